//! Guesses the schema of a file's records from a sample.

mod scalars;
mod seen;
mod types;

#[cfg(test)]
mod tests;

use std::{fs::File, io::Read as _, path::Path};

use millstream_assembly::Records;
use serde_json::Value;

use self::seen::{Seen, TOO_MANY_FIELDS};
use crate::{Failure, grid::printable};

pub(crate) use self::types::{Field, Kind};

/// The sample: at most this many records and bytes.
const MAX_RECORDS: usize = 10_000;

const MAX_BYTES: u64 = 64 << 20;

/// How many records of the file become a test.
const FIXTURE_RECORDS: usize = 20;

/// The guessed schema of a file.
#[derive(Debug)]
pub(crate) struct Guess {
    /// The fields with a type, in the order of their first occurrence.
    pub fields: Vec<Field>,
    /// The fields that are left out, with the reason.
    pub left_out: Vec<String>,
    /// The number of records in the sample.
    pub records: usize,
    /// The file's first records, unchanged.
    pub fixture: String,
}

impl Guess {
    /// Reads the beginning of a CSV or JSON Lines file.
    pub fn of_file(path: &Path) -> Result<Self, Failure> {
        let wrong = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
        let text = sample(path).map_err(wrong)?;
        let guess = match ending.as_str() {
            "csv" => of_csv(&text),
            "jsonl" | "ndjson" => of_json_lines(&text),
            _ => Err("a schema is guessed from files that end in .csv, .jsonl or .ndjson".to_owned()),
        };
        guess.map_err(wrong)
    }

    /// The field with the time of the event: the one with a typical name, or the only time field.
    pub fn event_time(&self) -> Option<&Field> {
        let is_time = |field: &&Field| field.kind.is("timestamp") && !field.nullable;
        let times: Vec<&Field> = self.fields.iter().filter(is_time).collect();
        let named = ["event_time", "at", "time", "timestamp", "ts", "occurred_at", "created_at", "datetime"];
        let by_name = |name: &&str| times.iter().find(|field| field.name.eq_ignore_ascii_case(name)).copied();
        named.iter().find_map(by_name).or_else(|| times.first().copied())
    }
}

fn sample(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("can't read it: {error}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        // The last line may be incomplete.
        let end = bytes.iter().rposition(|byte| *byte == b'\n').ok_or("it has no lines")?;
        bytes.truncate(end + 1);
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
}

fn of_json_lines(text: &str) -> Result<Guess, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).take(MAX_RECORDS);
    let (mut record, mut fixture) = (Seen::default(), String::new());
    for (at, line) in lines {
        match serde_json::from_str(line) {
            Ok(value @ Value::Object(_)) => record.json(&value, line),
            Ok(_) => return Err(format!("line {}: a record must be a JSON object", at + 1)),
            Err(error) => return Err(format!("line {}: this is not a JSON object: {error}", at + 1)),
        }
        if record.objects <= FIXTURE_RECORDS {
            fixture += line;
            fixture += "\n";
        }
    }
    finish(record, fixture)
}

fn of_csv(text: &str) -> Result<Guess, String> {
    let told = |(line, what): (usize, &str)| format!("line {line}: {what}");
    let mut records = Records::new(text);
    let header = records.next().ok_or("it is empty: the first line names the columns")?.map_err(told)?.1;
    let names: Vec<String> = header.iter().map(|cell| cell.text.trim().to_owned()).collect();
    if let Some(twice) = names.iter().enumerate().find_map(|(at, name)| names[..at].contains(name).then_some(name)) {
        return Err(format!("line 1: the header names `{}` twice", printable(twice)));
    }
    let (mut record, mut end) = (Seen::default(), 0);
    while record.objects < MAX_RECORDS
        && let Some(read) = records.next()
    {
        let (line, cells) = read.map_err(told)?;
        if cells.len() != names.len() {
            let (is, named) = (cells.len(), names.len());
            return Err(format!("line {line}: {is} cells, but the header names {named} columns"));
        }
        record.objects += 1;
        for (name, cell) in names.iter().zip(&cells) {
            record.field(name).into_iter().for_each(|field| field.cell(cell));
        }
        if record.objects <= FIXTURE_RECORDS {
            end = text.len() - records.rest().len();
        }
    }
    let guess = finish(record, text[..end].to_owned())?;
    if guess.left_out.is_empty() {
        Ok(guess)
    } else {
        // Each column must be a field of the topic.
        Err(format!("line 1: change the header: {}", guess.left_out.join("; ")))
    }
}

fn finish(record: Seen, fixture: String) -> Result<Guess, String> {
    let records = record.objects;
    if records == 0 {
        return Err("it has no records to guess a schema from".to_owned());
    }
    if record.too_many_fields {
        return Err(format!("can't guess a schema from a record like this: {TOO_MANY_FIELDS}"));
    }
    let mut left_out = Vec::new();
    let fields = record.into_fields("", &mut left_out);
    if fields.is_empty() {
        return Err(format!("no field has the same type in all records: {}", left_out.join("; ")));
    }
    Ok(Guess { fields, left_out, records, fixture })
}
