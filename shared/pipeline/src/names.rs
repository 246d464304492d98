//! The names that a pipeline file can give, each rule as a check, in words, and as a regular expression.

/// Is it a lower-case name that needs no quotes in any SQL (PostgreSQL keeps 63 bytes)?
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

pub(crate) const NAME_RULE: &str = "up to 63 lower-case letters, digits and underscores that don't start with a digit";
pub(crate) const NAME_PATTERN: &str = "[a-z_][a-z0-9_]{0,62}";

/// Can it be the name of a table that a function writes?
pub(crate) fn is_table_name(name: &str) -> bool {
    is_name(name) && !name.starts_with("millstream_")
}

pub(crate) const TABLE_NAME_RULE: &str =
    "up to 63 lower-case letters, digits and underscores that don't start with a digit or with `millstream_`";

/// Can it be the name of a topic (Kafka's rule)?
pub(crate) fn is_topic_name(name: &str) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    !name.is_empty() && name.len() <= 249 && name.chars().all(valid) && ![".", ".."].contains(&name)
}

pub(crate) const TOPIC_NAME_RULE: &str = "1 to 249 letters, digits, `.`, `_` and `-` (Kafka's rule)";
pub(crate) const TOPIC_PATTERN: &str = "[A-Za-z0-9._-]{1,249}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_every_sql_reads_without_quotes() {
        for good in ["a", "_x", "transaction_flow", "t2"] {
            assert!(is_name(good), "{good}");
        }
        let long = "x".repeat(64);
        for bad in ["", "2t", "Flow", "a-b", "a.b", "é", long.as_str()] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
