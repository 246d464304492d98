//! Keywords, prepared once, and what a text has of them.

use super::folding::{folded, is_mark, is_of_word, is_second_of_flag};

/// As many marks on one letter as Unicode's stream-safe text has.
const MOST_MARKS: usize = 30;

/// Keywords in the order of the statement, each once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Keywords(Vec<Keyword>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Keyword {
    /// As the statement has it.
    written: String,
    folded: String,
    /// May no word go on before its first and behind its last letter?
    begins_word: bool,
    ends_word: bool,
}

impl Keywords {
    /// Is there something to look for?
    pub fn is_keyword(text: &str) -> bool {
        !folded(text).trim().is_empty()
    }

    pub fn of(words: &[&str]) -> Self {
        let mut keywords: Vec<Keyword> = Vec::new();
        for word in words {
            let keyword = Keyword::of(word);
            // Two spellings of one keyword would count a text twice.
            if !keywords.iter().any(|known| known.folded == keyword.folded) {
                keywords.push(keyword);
            }
        }
        Self(keywords)
    }

    /// The keywords that are in a text, as the statement has them.
    pub fn found_in(&self, text: &str) -> impl Iterator<Item = &str> {
        let text = folded(text);
        self.0.iter().filter(move |keyword| keyword.is_in(&text)).map(|keyword| keyword.written.as_str())
    }
}

impl Keyword {
    fn of(word: &str) -> Self {
        let folded = folded(word).trim().to_owned();
        Self {
            written: word.to_owned(),
            // In `a#b` the sign begins no tag, and in `a@b` no name.
            begins_word: folded.starts_with(|letter| is_of_word(letter) || matches!(letter, '#' | '@')),
            ends_word: folded.ends_with(is_of_word),
            folded,
        }
    }

    fn is_in(&self, text: &str) -> bool {
        let mut from = 0;
        while let Some(at) = text.get(from..).and_then(|rest| rest.find(&self.folded)) {
            let (start, end) = (from + at, from + at + self.folded.len());
            let goes_on_before = self.begins_word && ends_in_word(&text[..start]);
            let goes_on_behind = self.ends_word && text[end..].starts_with(is_of_word);
            let cuts_flag = text[end..].starts_with(is_second_of_flag);
            if !goes_on_before && !goes_on_behind && !cuts_flag {
                return true;
            }
            // The next place may overlap with this one.
            from = start + text[start..].chars().next().map_or(1, char::len_utf8);
        }
        false
    }
}

/// Does a text end in a letter of a word, which may have marks? Marks alone are no word.
fn ends_in_word(text: &str) -> bool {
    text.chars().rev().take(MOST_MARKS + 1).find(|letter| !is_mark(*letter)).is_some_and(is_of_word)
}
