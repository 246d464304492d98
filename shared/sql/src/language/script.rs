//! Which letters of a text say its language.

/// The letters of Chinese, Japanese and Korean if a text has more of them than of others; otherwise the text without them.
///
/// whatlang counts Han, hiragana and katakana as three scripts, so that in a Japanese text the names of a few products would
/// outnumber each of them. And it counts their punctuation as Korean.
pub fn of_most_letters(text: &str) -> String {
    let east_asian: String = text.chars().filter(|letter| is_east_asian(*letter)).collect();
    let others: String = text.chars().map(|letter| if is_of_east_asia(letter) { ' ' } else { letter }).collect();
    if letters(&east_asian) > letters(&others) { east_asian } else { others }
}

/// How many letters a text has: a sign of Han or kana and a syllable of Hangul say as much as three.
pub fn letters(text: &str) -> usize {
    let weight = |letter: char| match letter {
        letter if is_jamo(letter) || !is_east_asian(letter) => usize::from(letter.is_alphabetic()),
        _ => 3,
    };
    text.chars().map(weight).sum()
}

/// Is it a letter of Han, kana or Hangul?
pub fn is_east_asian(letter: char) -> bool {
    let is_of_script = is_jamo(letter)
        || matches!(letter,
            // Han.
            '\u{3005}'..='\u{3007}' | '\u{3021}'..='\u{3029}' | '\u{3038}'..='\u{303B}' | '\u{3400}'..='\u{4DBF}'
            | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}'
            // Hiragana and katakana.
            | '\u{3040}'..='\u{30FF}' | '\u{31F0}'..='\u{31FF}'
            // Hangul.
            | '\u{AC00}'..='\u{D7A3}');
    is_of_script && letter.is_alphabetic()
}

/// A part of a syllable of Hangul.
fn is_jamo(letter: char) -> bool {
    matches!(letter,
        '\u{1100}'..='\u{11FF}' | '\u{3130}'..='\u{318F}' | '\u{A960}'..='\u{A97F}' | '\u{D7B0}'..='\u{D7FF}'
        | '\u{FFA0}'..='\u{FFDC}')
}

/// A letter of Han, kana or Hangul, or a sign that is written among them.
fn is_of_east_asia(letter: char) -> bool {
    is_east_asian(letter) || matches!(letter, '\u{3000}'..='\u{33FF}' | '\u{FF00}'..='\u{FFEF}')
}
