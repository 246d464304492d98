use std::{collections::BTreeMap, ffi::OsString, fmt, fs, sync::Arc};

use crate::{Error, Result};

/// The value of an address that asks for the embedded store.
const EMBEDDED: &str = "embedded";

/// The largest file that a `file://` value is read from.
const MAX_SECRET_BYTES: usize = 64 << 10;

/// The settings of a process, by the names of environment variables; by default nothing is set. A main makes one from its environment and hands it
/// down; tests make one from pairs. Each system's crate reads its own variables from it. Cheap to clone.
///
/// Every error is a `Stop` that names the variable. No error holds a value: it may be a secret that was meant for another
/// variable.
#[derive(Clone, Default)]
pub struct Env(Arc<BTreeMap<String, String>>);

/// The variable that says where a system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The variable's name.
    pub variable: &'static str,
    /// What its value looks like, such as `postgres://…`.
    pub example: &'static str,
}

/// A text that prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Env {
    /// Settings from the variables of a process. One that is no UTF-8 counts as not set.
    pub fn of_process(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Self::of(variables.into_iter().filter_map(text))
    }

    /// Settings from pairs of name and value; nothing else is set.
    pub fn of<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        Self(Arc::new(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect()))
    }

    /// The variable as it is, unchecked.
    pub fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    /// The names of all variables that are set.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Is the variable set, to whatever value?
    pub fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The variable without the space around it; `None` when it is not set.
    ///
    /// # Errors
    /// `Stop` when it is set and empty: most often a secret that was not mounted.
    pub fn find_text(&self, name: &str) -> Result<Option<String>> {
        match self.get(name).map(|value| value.trim().to_owned()) {
            Some(value) if value.is_empty() => Err(Error::stop(format!(
                "{name} is set and empty: a secret that did not mount? Give it a value, or unset it"
            ))),
            value => Ok(value),
        }
    }

    /// The variable, or the content of the file that it names as `file://PATH`, which is how secrets are mounted.
    ///
    /// # Errors
    /// `Stop` when it is set and empty, or when the file can't be read, is empty or is larger than 64 KiB.
    pub fn find_secret(&self, name: &str) -> Result<Option<Secret>> {
        let Some(value) = self.find_text(name)? else { return Ok(None) };
        let Some(path) = value.strip_prefix("file://") else { return Ok(Some(Secret(value))) };
        let unreadable = |why: &dyn fmt::Display| Error::stop(format!("{name} says to read the file `{path}`: {why}"));
        let text = fs::read_to_string(path).map_err(|error| unreadable(&error))?;
        if text.len() > MAX_SECRET_BYTES {
            return Err(unreadable(&"it is larger than 64 KiB"));
        }
        match text.trim_end() {
            "" => Err(unreadable(&"it is empty")),
            text => Ok(Some(Secret::new(text))),
        }
    }

    /// The variable, which must be one of `choices`. It may be in a file, as a secret is.
    ///
    /// # Errors
    /// Those of [`Env::find_secret`], and `Stop` with the choices when it is something else.
    pub fn find_choice<'a>(&self, name: &str, choices: &[&'a str]) -> Result<Option<&'a str>> {
        let Some(value) = self.find_secret(name)? else { return Ok(None) };
        match choices.iter().find(|choice| **choice == value.0) {
            Some(choice) => Ok(Some(choice)),
            None => Err(Error::stop(format!("{name} may be {}; it is something else", choices.join(", ")))),
        }
    }

    /// Where a system is; `None` when the variable is not set or is `embedded`. It may be in a file, as a secret is.
    ///
    /// # Errors
    /// Those of [`Env::find_secret`].
    pub fn find_address(&self, address: Address) -> Result<Option<Secret>> {
        Ok(self.find_secret(address.variable)?.filter(|value| value.0 != EMBEDDED))
    }

    /// The same for an address that is a path: `file://PATH` is the path itself, and no file is read for it.
    ///
    /// # Errors
    /// Those of [`Env::find_text`].
    pub fn find_path_address(&self, address: Address) -> Result<Option<String>> {
        Ok(self.find_text(address.variable)?.filter(|value| value != EMBEDDED))
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env(…)")
    }
}

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the client that needs it and for nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Address = Address { variable: "PLACE", example: "host:port" };

    fn stop<T: fmt::Debug>(result: Result<T>) -> String {
        match result {
            Err(error @ Error::Stop(_)) => error.to_string(),
            other => panic!("must be Stop, got {other:?}"),
        }
    }

    #[test]
    fn an_empty_variable_is_a_secret_that_did_not_mount() {
        for empty in ["", " \n"] {
            let env = Env::of([("PLACE", empty)]);
            let all = [
                stop(env.find_text("PLACE")),
                stop(env.find_secret("PLACE")),
                stop(env.find_choice("PLACE", &["a"])),
                stop(env.find_address(PLACE)),
                stop(env.find_path_address(PLACE)),
            ];
            assert!(all.iter().all(|said| said.starts_with("PLACE is set and empty")), "{all:?}");
        }
        assert_eq!(Env::of([("A", " x ")]).find_text("A").unwrap().as_deref(), Some("x"));
        assert_eq!(Env::of([("A", "x")]).find_text("B").unwrap(), None);
    }

    #[test]
    fn secrets_are_read_from_files_and_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "hunter2\n").unwrap();
        let env = Env::of([("A", format!("file://{}", file.display())), ("B", "hunter2".to_owned())]);
        let (a, b) = (env.find_secret("A").unwrap().unwrap(), env.find_secret("B").unwrap().unwrap());
        assert_eq!((a.expose(), &a), ("hunter2", &b));
        assert_eq!(format!("{a:?} {b} {env:?}"), "*** *** Env(…)");
        for name in ["A", "B"] {
            assert_eq!(stop(env.find_choice(name, &["x", "y"])), format!("{name} may be x, y; it is something else"));
        }
        fs::write(&file, "x".repeat(MAX_SECRET_BYTES + 1)).unwrap();
        assert!(stop(env.find_secret("A")).ends_with("it is larger than 64 KiB"));
        fs::write(&file, "\n").unwrap();
        assert!(stop(env.find_secret("A")).ends_with("it is empty"));
        let away = Env::of([("A", "file:///nowhere/at/all")]);
        let said = "A says to read the file `/nowhere/at/all`: No such file or directory (os error 2)";
        assert_eq!(stop(away.find_secret("A")), said);
    }

    #[test]
    fn embedded_is_no_address() {
        let at = |value: &str| {
            let env = Env::of([("PLACE", value)]);
            (env.find_address(PLACE).unwrap().map(|at| at.expose().to_owned()), env.find_path_address(PLACE).unwrap())
        };
        assert_eq!(at("embedded"), (None, None));
        assert_eq!(at("h:1"), (Some("h:1".to_owned()), Some("h:1".to_owned())));
        let path = Env::of([("PLACE", "file:///data/lake")]).find_path_address(PLACE).unwrap();
        assert_eq!(path.as_deref(), Some("file:///data/lake"));
    }
}
