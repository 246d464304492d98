//! The windows that a statement groups by, as its text has them.

/// What makes a window out of a time.
const MAKERS: [&str; 4] = ["tumble", "hop", "date_trunc", "date_bin"];

/// The line for a person whose statement has other windows than before.
pub(super) fn other_windows(was: &str, is: &str) -> Option<String> {
    let (was, is) = (windows(was), windows(is));
    let without_spaces = |calls: &[String]| calls.iter().map(|call| call.replace(' ', "")).collect::<Vec<_>>();
    (without_spaces(&was) != without_spaces(&is) && !was.is_empty() && !is.is_empty()).then(|| {
        format!(
            "the windows were {}, and are {}: in an adopted table, rows of both stand side by side, and records of the time at which \
             it is adopted are spread over both. A rebuilt table has only the new ones",
            was.join(", "),
            is.join(", ")
        )
    })
}

/// The calls that make windows, each once, in lower case and with single spaces.
fn windows(sql: &str) -> Vec<String> {
    let sql = sql.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let mut found: Vec<String> = MAKERS.iter().flat_map(|maker| calls(&sql, maker)).collect();
    found.sort();
    found.dedup();
    found
}

fn calls(sql: &str, name: &str) -> Vec<String> {
    let is_word = |before: &str| before.ends_with(|before: char| before.is_alphanumeric() || before == '_');
    let starts = sql.match_indices(name).filter(|(at, _)| !is_word(&sql[..*at]));
    starts.filter_map(|(at, _)| call(&sql[at..], name.len())).collect()
}

/// The call that `sql` begins with, up to its closing parenthesis.
fn call(sql: &str, name: usize) -> Option<String> {
    let arguments = sql[name..].trim_start();
    let (mut open, mut in_text) = (0, false);
    for (at, character) in arguments.char_indices() {
        match character {
            '\'' => in_text = !in_text,
            '(' if !in_text => open += 1,
            ')' if !in_text => open -= 1,
            _ => {}
        }
        if open == 0 {
            return (character == ')').then(|| format!("`{}{}`", &sql[..name], &arguments[..=at]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_windows_are_told_and_the_same_in_other_words_are_not() {
        let hour = "SELECT tumble(at, INTERVAL '1 hour') AS w, count(*) FROM t GROUP BY 1";
        assert_eq!(other_windows(hour, &hour.replace("tumble(at, ", "TUMBLE ( at,").replace("count", "sum")), None);
        let said = other_windows(hour, &hour.replace("1 hour", "2 hours (ago)")).unwrap();
        let both = "the windows were `tumble(at, interval '1 hour')`, and are `tumble(at, interval '2 hours (ago)')`:";
        assert!(said.starts_with(both), "{said}");
        assert_eq!(other_windows(hour, "SELECT count(*) FROM t"), None, "that is another table");
        assert_eq!(
            windows("SELECT my_hop(a), hopper, date_trunc('day', f(at)) FROM t"),
            ["`date_trunc('day', f(at))`"]
        );
    }
}
