use std::path::Path;

use crate::context::quoted;

/// Commands that name no pipeline.
const WITHOUT_PIPELINE: [&str; 3] = ["new", "schema", "completions"];

/// The pipeline and the data folder that the command line names: commands that a message advises need them too.
pub(crate) struct Advice(String);

impl Advice {
    pub fn of(pipeline: Option<&Path>, data_dir: Option<&Path>) -> Self {
        let given = [("-p", pipeline), ("--data-dir", data_dir)].into_iter();
        let given = given.filter_map(|(name, path)| Some(format!(" {name} {}", quoted(&path?.to_string_lossy()))));
        Self(given.collect())
    }

    /// The text with these arguments in each command that it writes as `millstream …` between backticks.
    pub fn complete(&self, text: &str) -> String {
        let mut complete = String::with_capacity(text.len());
        for (at, part) in text.split('`').enumerate() {
            if at > 0 {
                complete.push('`');
            }
            complete.push_str(part);
            // Every second part is between backticks.
            let command = part.strip_prefix("millstream ").filter(|_| at % 2 == 1);
            let word = command.and_then(|command| command.split_whitespace().next());
            if word.is_some_and(|word| !WITHOUT_PIPELINE.contains(&word)) && !part.contains(" -p ") {
                complete.push_str(&self.0);
            }
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advised_commands_name_the_pipeline() {
        let text =
            "a `b` c: `millstream rebuild f --partial`, or `millstream new NAME`; `millstream up -p x`; `millstream";
        let shop = Advice::of(Some("my shop".as_ref()), Some("d".as_ref()));
        let complete = "a `b` c: `millstream rebuild f --partial -p 'my shop' --data-dir d`, or `millstream new NAME`; \
                        `millstream up -p x`; `millstream";
        assert_eq!(shop.complete(text), complete);
        assert_eq!(Advice::of(None, None).complete(text), text);
    }
}
