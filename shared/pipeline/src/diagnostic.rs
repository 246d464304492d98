use std::{
    fmt,
    ops::Deref,
    path::{Path, PathBuf},
};

use millstream_core::Error;

/// A mistake in a pipeline file: where it is, what is wrong and what is allowed there.
///
/// Prints as `bank/pipeline.yaml:12:7: unknown field …`, which editors and terminals make a link of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as the caller named it.
    pub file: PathBuf,
    /// The line, from 1; 0 when the mistake is about the file as a whole.
    pub line: usize,
    /// The column in characters, from 1; 0 when the mistake is about the file as a whole.
    pub column: usize,
    /// What is wrong, what is allowed, and what was probably meant.
    pub message: String,
}

impl Diagnostic {
    /// A mistake about the file as a whole.
    pub(crate) fn of_file(file: &Path, message: String) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, message }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.message),
            line => write!(f, "{}:{line}:{}: {}", self.file.display(), self.column, self.message),
        }
    }
}

impl std::error::Error for Diagnostic {}

/// All mistakes of a pipeline file, at least one, in the order of the file. Prints one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// These mistakes, if there are any.
    pub fn of(mistakes: Vec<Diagnostic>) -> Option<Self> {
        (!mistakes.is_empty()).then_some(Self(mistakes))
    }
}

impl Deref for Diagnostics {
    type Target = [Diagnostic];

    fn deref(&self) -> &[Diagnostic] {
        &self.0
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(mistake: Diagnostic) -> Self {
        Self(vec![mistake])
    }
}

impl From<Diagnostics> for Vec<Diagnostic> {
    fn from(mistakes: Diagnostics) -> Self {
        mistakes.0
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Diagnostics {}

/// A person must correct the file: `Stop`.
impl From<Diagnostics> for Error {
    fn from(mistakes: Diagnostics) -> Self {
        Self::stop(mistakes.to_string())
    }
}

/// A place in the file: line and column from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub line: usize,
    pub column: usize,
}

/// Collects mistakes, so that one run shows all of them.
#[derive(Default)]
pub(crate) struct Report(Vec<(Mark, String)>);

impl Report {
    pub fn at(&mut self, mark: Mark, message: impl Into<String>) {
        self.0.push((mark, message.into()));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order of the file.
    pub fn into_diagnostics(mut self, file: &Path) -> Diagnostics {
        self.0.sort();
        self.0.dedup();
        let diagnostic = |(mark, message): (Mark, String)| Diagnostic {
            file: file.to_owned(),
            line: mark.line,
            column: mark.column,
            message,
        };
        Diagnostics(self.0.into_iter().map(diagnostic).collect())
    }
}

/// `; allowed: a, b, c (did you mean `b`?)`
pub(crate) fn list_allowed<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match find_nearest(given, &names) {
        _ if names.is_empty() => "; there are none".to_owned(),
        Some(name) => format!("; allowed: {} (did you mean `{name}`?)", names.join(", ")),
        None => format!("; allowed: {}", names.join(", ")),
    }
}

/// "a, b or c"
pub(crate) fn join_or(names: &[impl AsRef<str>]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => names.concat(),
    }
}

/// The name that was probably meant: one slip away, or one for every three characters.
pub(crate) fn find_nearest<'a>(given: &str, names: &[&'a str]) -> Option<&'a str> {
    let (distance, name) = names.iter().map(|name| (distance(given, name), *name)).min()?;
    (distance <= 1.max(given.chars().count() / 3)).then_some(name)
}

/// How many insertions, deletions, replacements and swaps of neighbours turn `a` into `b`, ignoring case (optimal string
/// alignment). Names longer than 64 characters are not compared.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_fingers_is_one_step() {
        for slip in ["form", "fron", "frm", "froom", "From"] {
            assert!(distance(slip, "from") <= 1, "{slip}");
        }
        assert_eq!(distance("sql", "into"), 4);
    }

    #[test]
    fn choices_are_joined_by_or() {
        let joined = [join_or(&[] as &[&str]), join_or(&["a"]), join_or(&["a", "b"]), join_or(&["a", "b", "c"])];
        assert_eq!(joined, ["", "a", "a or b", "a, b or c"]);
    }

    #[test]
    fn only_what_is_near_is_suggested() {
        assert_eq!(list_allowed("form", ["from", "into"]), "; allowed: from, into (did you mean `from`?)");
        assert_eq!(list_allowed("zebra", ["from", "into"]), "; allowed: from, into");
        assert_eq!(list_allowed("zebra", []), "; there are none");
    }
}
