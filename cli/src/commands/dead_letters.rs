mod redrive;

use std::collections::BTreeMap;

use arrow::temporal_conversions::timestamp_ms_to_datetime;
use millstream_assembly::{LetterStanding, LetterState, Systems, beside};
use millstream_core::{DeadLetter, Position};
use millstream_pipeline::{Function, Pipeline};
use serde_json::{Value, json};

use self::redrive::redrive;
use crate::{
    DeadLettersCommand, Failure,
    context::{Context, named},
    grid::Grid,
    letters,
    numbers::counted,
};

/// `millstream dead-letters …`
pub(super) async fn dead_letters(context: &Context, command: DeadLettersCommand) -> Result<(), Failure> {
    let pipeline = context.load(None)?;
    let systems = context.open(&pipeline)?;
    match command {
        DeadLettersCommand::List { function, limit } => {
            let store = systems.dead_letters(&pipeline);
            let ids = ids(&pipeline, function.as_deref())?;
            let is_wanted = |id: &str| ids.iter().any(|ours| ours == id);
            let letters = letters::newest(store.as_ref(), is_wanted, limit).await?;
            let standings = standings(&pipeline, &systems, &letters).await;
            list(context, &letters, &standings, limit)
        }
        DeadLettersCommand::Show { position, function } => {
            let position = Position::parse(&position).ok_or_else(|| {
                Failure::Usage(format!("`{position}` is not a position: write topic/generation/partition/offset"))
            })?;
            let ids = ids(&pipeline, function.as_deref())?;
            let mut letters = systems.dead_letters(&pipeline).find(None, &position).await?;
            letters.retain(|letter| ids.contains(&letter.function));
            if letters.is_empty() {
                return Err(Failure::Usage(format!("there is no dead letter for the record at {position}")));
            }
            letters.iter().try_for_each(|letter| show(context, letter))
        }
        DeadLettersCommand::Redrive(args) => redrive(context, &pipeline, &systems, &args).await,
    }
}

/// The named function, or all functions of the pipeline, as `pipeline.function`, each with its rebuild: what one that was stopped
/// has found is under its own name until it ends.
fn ids(pipeline: &Pipeline, function: Option<&str>) -> Result<Vec<String>, Failure> {
    let names = match function {
        Some(name) => vec![named(pipeline, name)?.0],
        None => pipeline.functions.keys().collect(),
    };
    let both = |name: &String| {
        let id = Function::id(&pipeline.name, name);
        let (rebuild, _) = beside(&id, &pipeline.functions[name].into.name);
        [id, rebuild]
    };
    Ok(names.into_iter().flat_map(both).collect())
}

/// What has become of the letters of each function that is among them, as far as its sink says it.
async fn standings(pipeline: &Pipeline, systems: &Systems, letters: &[DeadLetter]) -> BTreeMap<String, LetterStanding> {
    let mut standings = BTreeMap::new();
    for name in pipeline.functions.keys() {
        let id = Function::id(&pipeline.name, name);
        if letters.iter().all(|letter| letter.function != id) {
            continue;
        }
        match systems.letters_standing(pipeline, name).await {
            Ok(standing) => drop(standings.insert(id, standing)),
            Err(error) => eprintln!("warning: which letters of `{name}` were redriven is not known: {error}"),
        }
    }
    standings
}

fn list(
    context: &Context,
    letters: &[DeadLetter],
    standings: &BTreeMap<String, LetterStanding>,
    limit: usize,
) -> Result<(), Failure> {
    let standing = |letter: &DeadLetter| {
        let standing = standings.get(&letter.function);
        standing.map(|standing| (standing.of(&letter.position), standing.refusals(&letter.position)))
    };
    if context.json {
        return letters.iter().try_for_each(|letter| {
            let mut shown = json(letter);
            if let Some((redriven, (refusals, last))) = standing(letter) {
                (shown["state"], shown["refused_again"], shown["last_reason"]) =
                    (json!(state(redriven)), json!(refusals), json!(last));
            }
            context.say(shown.to_string())
        });
    }
    if letters.is_empty() {
        return context.say("no dead letters");
    }
    let mut grid = Grid::new(&["position", "function", "time", "state", "reason"]);
    for letter in letters {
        let (position, function) = (letter.position.to_string(), letter.function.clone());
        let (state, reason) = match standing(letter) {
            Some((redriven, (0, _))) => (state(redriven).to_owned(), letter.reason.as_str()),
            Some((redriven, (times, last))) => {
                (format!("{}, refused {times}× again", state(redriven)), last.unwrap_or(&letter.reason))
            }
            None => ("unknown".to_owned(), letter.reason.as_str()),
        };
        grid.row([position, function, time(letter.timestamp_ms), state, printable_lines(reason)]);
    }
    grid.lines("", false).iter().try_for_each(|line| context.say(line))?;
    if letters.len() == limit {
        eprintln!("the newest {}; `--limit` shows more", counted(limit as u64, "letter"));
    }
    Ok(())
}

/// What has become of a letter, in a word.
fn state(state: LetterState) -> &'static str {
    match state {
        LetterState::Open => "open",
        LetterState::Unsettled => "in flight",
        LetterState::Chosen => "redriving",
        LetterState::Redriven => "redriven",
    }
}

fn show(context: &Context, letter: &DeadLetter) -> Result<(), Failure> {
    if context.json {
        return context.say_json(&json(letter));
    }
    let text = |bytes: &Option<Vec<u8>>| bytes.as_deref().map_or_else(|| "null".to_owned(), bytes_text);
    context.say(format!("position  {}", letter.position))?;
    context.say(format!("function  {}", letter.function))?;
    context.say(format!("time      {}", time(letter.timestamp_ms)))?;
    context.say(format!("reason    {}", printable_lines(&letter.reason)))?;
    context.say(format!("key       {}", text(&letter.key)))?;
    for (name, value) in &letter.headers {
        context.say(format!("header    {} = {}", printable_lines(name), bytes_text(value)))?;
    }
    let held = letter.value.as_ref().map_or(0, Vec::len);
    let cut = if held < letter.value_bytes { format!(", the first {held} here") } else { String::new() };
    context.say(format!("value     {}{cut}:", counted(letter.value_bytes as u64, "byte")))?;
    context.say(text(&letter.value))
}

/// Bytes as text if they are UTF-8, otherwise as hexadecimal digits.
fn json(letter: &DeadLetter) -> Value {
    let text = |bytes: &Option<Vec<u8>>| match bytes.as_deref().map(std::str::from_utf8) {
        None => json!(null),
        Some(Ok(text)) => json!(text),
        Some(Err(_)) => json!({ "hex": bytes.as_deref().map(hex) }),
    };
    json!({
        "position": letter.position.to_string(),
        "function": letter.function,
        "timestamp_ms": letter.timestamp_ms,
        "reason": letter.reason,
        "key": text(&letter.key),
        "value": text(&letter.value),
        "headers": letter.headers.iter().map(|(name, value)| json!([name, text(&Some(value.clone()))])).collect::<Vec<_>>(),
        "value_bytes": letter.value_bytes,
    })
}

fn bytes_text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| format!("0x{}", hex(bytes)), printable_lines)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Text from outside, which may have several lines. It must not control the terminal.
fn printable_lines(text: &str) -> String {
    let steers = |character: char| character.is_control() && character != '\n' && character != '\t';
    text.chars().map(|character| if steers(character) { '\u{fffd}' } else { character }).collect()
}

pub(super) fn time(timestamp_ms: i64) -> String {
    let time = timestamp_ms_to_datetime(timestamp_ms).filter(|_| timestamp_ms >= 0);
    time.map_or_else(|| "-".to_owned(), |time| format!("{time}Z"))
}

#[cfg(test)]
mod tests {
    use millstream_core::TopicPartition;

    use super::*;

    #[test]
    fn bytes_are_shown_as_text_or_hexadecimal() {
        assert_eq!(bytes_text(b"{\"a\":1}\x1b[2J"), "{\"a\":1}\u{fffd}[2J");
        assert_eq!(bytes_text(b"\xff\x00"), "0xff00");
        let letter = DeadLetter {
            function: "bank.flow".into(),
            position: TopicPartition::new("transaction", 1, 2).at(7),
            timestamp_ms: 1_700_000_000_123,
            key: None,
            value: Some(b"\xff".to_vec()),
            headers: vec![("trace".into(), b"a1".to_vec())],
            value_bytes: 1,
            reason: "no JSON".into(),
        };
        assert_eq!(json(&letter)["value"], json!({ "hex": "ff" }));
        assert_eq!(json(&letter)["headers"], json!([["trace", "a1"]]));
        assert_eq!(json(&letter)["position"], "transaction/1/2/7");
        assert_eq!(time(letter.timestamp_ms), "2023-11-14 22:13:20.123Z");
        assert_eq!(time(-1), "-");
    }
}
