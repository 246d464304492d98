//! Texts without the differences that keywords don't tell apart, and where a word ends.

/// A text in which letters that differ only in case are equal, each run of blanks is one space, and signs that only choose
/// how the sign before them is drawn are left out.
///
/// A letter is folded by what Unicode says of its lower and upper case, without regard to a language: `ß`, `ẞ` and `ss`
/// become one, and so do `Σ`, `σ` and `ς`, or `ﬁ` and `fi`. The four i of Turkish (`I`, `ı`, `İ`, `i`) become one: what is an
/// upper case of which depends on the language, which a text doesn't tell. Accents and other marks stay.
pub fn folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii_alphanumeric() {
            folded.push(letter.to_ascii_lowercase());
        } else if letter.is_whitespace() {
            if !folded.ends_with(' ') {
                folded.push(' ');
            }
        } else if let Some(second) = second_of_flag(letter) {
            let is_second = folded.ends_with(|before| second_of_flag(before).is_some());
            folded.push(if is_second { second } else { letter });
        } else if !chooses_form(letter) {
            // The upper case of `ß` is `SS`, and the lower case of `ẞ` is `ß`.
            for letter in letter.to_lowercase().flat_map(char::to_uppercase).flat_map(char::to_lowercase) {
                // The lower case of `İ` is an i with a second dot.
                if !(letter == DOT_ABOVE && folded.ends_with('i')) {
                    folded.push(letter);
                }
            }
        }
    }
    folded
}

const DOT_ABOVE: char = '\u{307}';

/// Variation selectors: they turn `❤` into a picture or back, or choose one of the forms of a sign of Han or Mongolian.
fn chooses_form(letter: char) -> bool {
    matches!(letter, '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}' | '\u{180B}'..='\u{180D}' | '\u{180F}')
}

/// A flag is two signs, so two flags have a third one between them. Here the second sign of each is another one, which no text
/// has: a noncharacter of Unicode.
fn second_of_flag(letter: char) -> Option<char> {
    let place = u32::from(letter).checked_sub(u32::from('🇦'))?;
    if place < 26 { char::from_u32(u32::from(SECOND_OF_FLAG) + place) } else { None }
}

const SECOND_OF_FLAG: char = '\u{FDD0}';

/// Is it the second sign of a flag in a folded text?
pub fn is_second_of_flag(letter: char) -> bool {
    matches!(letter, SECOND_OF_FLAG..='\u{FDE9}')
}

/// Is it a part of words that end where another word, a blank or a sign begins? A letter, a digit, a mark on a letter, or
/// `_`; but not in scripts whose words are written without spaces between them.
pub fn is_of_word(letter: char) -> bool {
    (letter.is_alphanumeric() || letter == '_' || is_mark(letter)) && !is_written_without_spaces(letter)
}

/// Marks that belong to the letter before them and that Unicode doesn't count as alphabetic: accents, cantillation, viramas,
/// and the signs that join and separate letters of one word in Persian and in the scripts of India. The frame of `1️⃣` is none.
pub fn is_mark(letter: char) -> bool {
    match letter {
        '\u{0300}'..='\u{036F}' | '\u{0483}'..='\u{0489}' | '\u{0591}'..='\u{05BD}' | '\u{0610}'..='\u{061A}' => true,
        '\u{064B}'..='\u{065F}' | '\u{06D6}'..='\u{06DC}' | '\u{06DF}'..='\u{06E8}' | '\u{06EA}'..='\u{06ED}' => true,
        '\u{0740}'..='\u{074A}' | '\u{07EB}'..='\u{07F3}' | '\u{08CA}'..='\u{08FF}' => true,
        // Nukta and virama stand at the same place of each block of India's scripts.
        '\u{0900}'..='\u{0D7F}' if matches!(u32::from(letter) & 0x7F, 0x3B | 0x3C | 0x4D) => true,
        '\u{0951}'..='\u{0954}' | '\u{0DCA}' | '\u{135D}'..='\u{135F}' | '\u{1AB0}'..='\u{1AFF}' => true,
        '\u{1DC0}'..='\u{1DFF}' | '\u{200C}' | '\u{200D}' | '\u{20D0}'..='\u{20E2}' | '\u{20E4}'..='\u{20F0}' => true,
        '\u{FE20}'..='\u{FE2F}' => true,
        _ => false,
    }
}

/// The scripts of Chinese, Japanese, Thai, Lao, Tibetan, Burmese and Khmer; and that of Korean, whose particles are written
/// onto the word.
fn is_written_without_spaces(letter: char) -> bool {
    matches!(letter,
        // Han.
        '\u{2E80}'..='\u{2FDF}' | '\u{3005}'..='\u{3007}' | '\u{3021}'..='\u{3029}' | '\u{3038}'..='\u{303B}'
        | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}'
        // Hiragana, Katakana, Bopomofo.
        | '\u{3040}'..='\u{312F}' | '\u{31A0}'..='\u{31BF}' | '\u{31F0}'..='\u{31FF}' | '\u{FF66}'..='\u{FF9F}'
        | '\u{1AFF0}'..='\u{1B16F}'
        // Hangul.
        | '\u{1100}'..='\u{11FF}' | '\u{3130}'..='\u{318F}' | '\u{A960}'..='\u{A97F}' | '\u{AC00}'..='\u{D7FF}'
        | '\u{FFA0}'..='\u{FFDC}'
        // Thai and Lao, Tibetan, Burmese, Khmer.
        | '\u{0E00}'..='\u{0EFF}' | '\u{0F00}'..='\u{0FFF}' | '\u{1000}'..='\u{109F}' | '\u{A9E0}'..='\u{A9FF}'
        | '\u{AA60}'..='\u{AA7F}' | '\u{1780}'..='\u{17FF}')
}
