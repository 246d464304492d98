//! A text without what is of no language.

use super::script::is_east_asian;
use crate::keywords::is_of_word;

/// The words that are of the text's language: without addresses, `@names`, `#tags`, numbers and pictures.
pub fn words(text: &str) -> String {
    let text = without_names(&text.chars().map(of_ordinary_width).collect::<String>());
    text.split_whitespace().filter(|word| word.contains(char::is_alphabetic)).collect::<Vec<_>>().join(" ")
}

/// Latin letters and signs as wide as Han become ordinary ones. Of narrow katakana, only the script counts.
fn of_ordinary_width(letter: char) -> char {
    match letter {
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(u32::from(letter) - 0xFEE0).unwrap_or(letter),
        '\u{FF66}'..='\u{FF9D}' => 'ア',
        // The marks of voiced katakana.
        '\u{FF9E}' | '\u{FF9F}' => '゛',
        letter => letter,
    }
}

/// In scripts without spaces, names, tags and addresses stand among other text: a blank takes their place.
fn without_names(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let taken = name(rest, kept.chars().next_back());
        kept.push(if taken == 0 { letter } else { ' ' });
        rest = &rest[taken.max(letter.len_utf8())..];
    }
    kept
}

/// How many bytes of a text's beginning are a name, a tag or an address.
fn name(text: &str, before: Option<char>) -> usize {
    let begins_with = |prefix: &str| text.get(..prefix.len()).is_some_and(|text| text.eq_ignore_ascii_case(prefix));
    let is_within_word = before.is_some_and(|letter| letter.is_ascii_alphanumeric());
    if begins_with("https://") || begins_with("http://") || (begins_with("www.") && !is_within_word) {
        return text.find(|letter: char| !letter.is_ascii_graphic()).unwrap_or(text.len());
    }
    let Some(name) = text.strip_prefix(['@', '#']) else { return 0 };
    let goes_on = |letter: char| letter.is_alphanumeric() || is_of_word(letter);
    // Names are of one script, and in Japanese the next word may follow at once.
    let first_is_east_asian = name.starts_with(is_east_asian);
    let is_other = |letter: char| text.starts_with('@') && is_east_asian(letter) != first_is_east_asian;
    match name.find(|letter: char| !goes_on(letter) || is_other(letter)).unwrap_or(name.len()) {
        0 => 0,
        bytes => 1 + bytes,
    }
}
