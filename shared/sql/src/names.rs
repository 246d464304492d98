//! Names of a table's columns.

use std::collections::BTreeSet;

/// The longest name that PostgreSQL doesn't shorten, in bytes.
pub const LONGEST: usize = 63;

/// A name as stores compare it: SQLite ignores the case of ASCII letters.
pub fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// A set of names, each of which can be taken once.
#[derive(Default)]
pub struct Names(BTreeSet<String>);

impl Names {
    /// Takes `wanted`, or `wanted` with a number if that name is taken.
    pub fn claim(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut number = 2;
        while !self.0.insert(folded(&name)) {
            name = format!("{}_{number}", shortened(wanted, LONGEST - 6));
            number += 1;
        }
        name
    }

    /// Takes `base_suffix`, with a number if that name is taken. The base is shortened if the name is too long.
    pub fn of_state(&mut self, base: &str, suffix: &str) -> String {
        self.claim(&format!("{}_{suffix}", shortened(base, LONGEST - 1 - suffix.len())))
    }
}

fn shortened(name: &str, bytes: usize) -> &str {
    &name[..name.floor_char_boundary(bytes)]
}

/// Can a column have this name without quotes?
pub fn is_identifier(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && letters.all(|c| c.is_alphanumeric() || c == '_')
        && name.len() <= LONGEST
}

/// `avg(price.price)` as `avg_price_price`, at most 40 letters.
pub fn identifier(text: &str) -> String {
    let words: Vec<String> = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    let joined: String = words.join("_").chars().take(40).collect();
    if joined.starts_with(|c: char| c.is_ascii_digit()) { format!("_{joined}") } else { joined }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_once_and_never_too_long() {
        let mut names = Names::default();
        assert_eq!(names.claim("price"), "price");
        assert_eq!(names.claim("price_count"), "price_count");
        assert_eq!(names.of_state("price", "count"), "price_count_2");
        assert_eq!(names.of_state("price", "sum"), "price_sum");
        assert_eq!(names.claim("Price"), "Price_2", "SQLite would take both for one column");
        let long = names.of_state(&"ä".repeat(40), "count");
        assert!(long.len() <= LONGEST && long.ends_with("_count"), "{long}");
        let other = names.of_state(&"ä".repeat(40), "count");
        assert!(other.len() <= LONGEST && other != long, "{other}");
    }
}
