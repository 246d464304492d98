//! Guesses the schema of a file's records from a sample.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::Read as _,
    path::Path,
};

use millstream_assembly::{Cell, Records};
use millstream_codec::{is_date, is_timestamp};
use serde_json::{Number, Value};

use crate::{Failure, grid::printable};

/// The sample: at most this many records and bytes.
const MAX_RECORDS: usize = 10_000;
const MAX_BYTES: u64 = 64 << 20;
/// The largest number of fields in an object: with more, the keys are data and not columns.
const MAX_FIELDS: usize = 1_000;
const TOO_MANY_FIELDS: &str = "it has more than 1,000 fields";
/// How many distinct texts of a field are counted.
const MAX_DISTINCT: usize = 1_000;
/// How many records of the file become a test.
const FIXTURE_RECORDS: usize = 20;
/// Decimals get this many digits, if the values fit.
const DIGITS: usize = 18;

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

/// A field of a record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub name: String,
    pub kind: Kind,
    pub nullable: bool,
    /// How many distinct texts it has, as far as they are counted.
    pub distinct: usize,
}

/// A type of the pipeline file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Scalar(String),
    Object(Vec<Field>),
    List(Box<Kind>),
}

impl Kind {
    pub fn is(&self, begin: &str) -> bool {
        matches!(self, Self::Scalar(name) if name.starts_with(begin))
    }
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
    match guess.left_out.is_empty() {
        true => Ok(guess),
        // Each column must be a field of the topic.
        false => Err(format!("line 1: change the header: {}", guess.left_out.join("; "))),
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
    match fields.is_empty() {
        true => Err(format!("no field has the same type in all records: {}", left_out.join("; "))),
        false => Ok(Guess { fields, left_out, records, fixture }),
    }
}

/// What the sample shows about a value.
#[derive(Default)]
struct Seen {
    nulls: usize,
    booleans: usize,
    numbers: Numbers,
    texts: Texts,
    lists: usize,
    items: Option<Box<Seen>>,
    objects: usize,
    fields: Vec<(String, Seen)>,
    /// The index of each field.
    places: HashMap<String, usize>,
    too_many_fields: bool,
    /// Cells of a CSV file: they are texts unless all of them fit another type.
    cells: usize,
}

#[derive(Default)]
struct Numbers {
    count: usize,
    /// Numbers with a decimal point.
    fractions: usize,
    /// Numbers with an exponent, which are not plain decimals.
    exponents: usize,
    digits_before: usize,
    digits_behind: usize,
    least: Option<i64>,
    most: Option<i64>,
    too_large: bool,
}

#[derive(Default)]
struct Texts {
    count: usize,
    times: usize,
    dates: usize,
    distinct: BTreeSet<String>,
}

impl Seen {
    /// The field with that name; `None` if there are too many fields.
    fn field(&mut self, name: &str) -> Option<&mut Seen> {
        let at = match self.places.get(name) {
            Some(at) => *at,
            None if self.fields.len() == MAX_FIELDS => {
                self.too_many_fields = true;
                return None;
            }
            None => {
                self.places.insert(name.to_owned(), self.fields.len());
                self.fields.push((name.to_owned(), Seen::default()));
                self.fields.len() - 1
            }
        };
        Some(&mut self.fields[at].1)
    }

    /// Adds a value of the record in `line`.
    fn json(&mut self, value: &Value, line: &str) {
        match value {
            Value::Null => self.nulls += 1,
            Value::Bool(_) => self.booleans += 1,
            Value::Number(number) => self.numbers.add(&text_of(number, line)),
            Value::String(text) => self.texts.add(text),
            Value::Array(items) => {
                self.lists += 1;
                items.iter().for_each(|item| self.items.get_or_insert_default().json(item, line));
            }
            Value::Object(fields) => {
                self.objects += 1;
                for (name, value) in fields {
                    self.field(name).into_iter().for_each(|field| field.json(value, line));
                }
            }
        }
    }

    fn cell(&mut self, cell: &Cell<'_>) {
        let text = cell.text.as_ref();
        self.cells += 1;
        match text {
            "" if !cell.quoted => self.nulls += 1,
            "true" | "false" => self.booleans += 1,
            _ if is_number(text) => self.numbers.add(text),
            _ => self.texts.add(text),
        }
    }

    fn count(&self) -> usize {
        self.booleans + self.numbers.count + self.texts.count + self.lists + self.objects
    }

    fn into_fields(self, place: &str, left_out: &mut Vec<String>) -> Vec<Field> {
        let records = self.objects;
        let mut fields = Vec::new();
        for (name, seen) in self.fields {
            let shown = printable(&name);
            let place = if place.is_empty() { shown } else { format!("{place}.{shown}") };
            let (count, distinct) = (seen.count(), seen.texts.distinct.len());
            let reserved = name.starts_with('_') && millstream_core::META_COLUMNS.contains(&name.as_str());
            match seen.into_kind(&name, &place, left_out) {
                _ if name.contains(char::is_control) => {
                    left_out.push(format!("`{place}`: the name has a control character"));
                }
                _ if reserved || name.is_empty() => left_out.push(format!("`{place}`: the name is reserved")),
                Ok(kind) => fields.push(Field { name, kind, nullable: count < records, distinct }),
                Err(reason) => left_out.push(format!("`{place}`: {reason}")),
            }
        }
        fields
    }

    fn into_kind(self, name: &str, place: &str, left_out: &mut Vec<String>) -> Result<Kind, &'static str> {
        let scalar = |name: String| Ok(Kind::Scalar(name));
        match self.count() {
            // Each column of a CSV file must be a field of the topic.
            0 if self.cells > 0 => scalar("string".to_owned()),
            0 => Err("it is null in all records"),
            all if all == self.booleans => scalar("boolean".to_owned()),
            all if all == self.numbers.count => scalar(self.numbers.name(name)),
            all if all == self.texts.count => scalar(self.texts.name().to_owned()),
            all if all == self.lists => match self.items {
                Some(items) => Ok(Kind::List(Box::new(items.into_kind(name, place, left_out)?))),
                None => Err("the list is empty in all records"),
            },
            all if all == self.objects && self.too_many_fields => Err(TOO_MANY_FIELDS),
            all if all == self.objects => match self.into_fields(place, left_out) {
                fields if fields.is_empty() => Err("the object has no field with one type"),
                fields => Ok(Kind::Object(fields)),
            },
            _ if self.cells > 0 => scalar("string".to_owned()),
            _ => Err("its values are of several types"),
        }
    }
}

impl Numbers {
    fn add(&mut self, text: &str) {
        self.count += 1;
        let digits = text.trim_start_matches(['-', '+']);
        if digits.contains(['e', 'E']) {
            self.exponents += 1;
            return;
        }
        let (before, behind) = digits.split_once('.').unwrap_or((digits, ""));
        self.fractions += usize::from(digits.contains('.'));
        self.digits_before = self.digits_before.max(before.trim_start_matches('0').len());
        self.digits_behind = self.digits_behind.max(behind.trim_end_matches('0').len());
        match text.parse::<i64>() {
            Ok(number) => {
                self.least = Some(self.least.map_or(number, |least| least.min(number)));
                self.most = Some(self.most.map_or(number, |most| most.max(number)));
            }
            Err(_) => self.too_large |= !digits.contains('.'),
        }
    }

    fn name(&self, field: &str) -> String {
        // At least two digits: a sample may contain only whole prices.
        let scale = self.digits_behind.max(2);
        match (self.exponents > 0, self.fractions > 0) {
            (true, _) => "double".to_owned(),
            (false, true) if self.digits_before + scale <= DIGITS => format!("decimal({DIGITS},{scale})"),
            (false, true) => "double".to_owned(),
            (false, false) if self.too_large && self.digits_before <= 38 => "decimal(38,0)".to_owned(),
            (false, false) if self.too_large => "double".to_owned(),
            (false, false) => self.epoch(field).map_or("bigint".to_owned(), |unit| format!("timestamp({unit})")),
        }
    }

    /// The unit of numbers that count the time since 1970, guessed from the field's name and from their size (1973 to
    /// 2286).
    fn epoch(&self, field: &str) -> Option<&'static str> {
        let name = field.to_ascii_lowercase();
        let named = ["at", "time", "ts", "timestamp", "date", "datetime"].contains(&name.as_str())
            || ["_at", "_time", "_ts", "_timestamp", "_ms", "_us"].iter().any(|end| name.ends_with(end));
        let (least, most) = (self.least?, self.most?);
        let units = [("s", 1), ("ms", 1_000), ("us", 1_000_000)];
        let within =
            |(_, per_second): &&(&str, i64)| least >= 100_000_000 * per_second && most < 10_000_000_000 * per_second;
        units.iter().find(within).filter(|_| named).map(|(unit, _)| *unit)
    }
}

impl Texts {
    fn add(&mut self, text: &str) {
        self.count += 1;
        self.times += usize::from(is_time(text));
        self.dates += usize::from(is_date(text));
        if self.distinct.len() < MAX_DISTINCT {
            self.distinct.insert(text.to_owned());
        }
    }

    fn name(&self) -> &'static str {
        match self.count {
            all if all == self.times => "timestamp",
            all if all == self.dates => "date",
            _ => "string",
        }
    }
}

/// Is it a JSON number? `007` and `+1` are texts, such as codes and telephone numbers.
fn is_number(text: &str) -> bool {
    matches!(serde_json::from_str(text), Ok(Value::Number(_))) && text.trim() == text
}

/// An RFC 3339 time that the decoder can read, with a zone: `2026-11-21T10:00:02.5+01:00`. Without one it may be a local
/// time.
fn is_time(text: &str) -> bool {
    let (letter, zone) = (text.get(10..11).unwrap_or_default(), text.get(19..).unwrap_or_default());
    is_timestamp(text) && letter.eq_ignore_ascii_case("T") && zone.contains(['Z', 'z', '+', '-'])
}

/// A number as it is in `line`. serde_json makes a double of an integer beyond 64 bits, such as a long id.
fn text_of(number: &Number, line: &str) -> String {
    if !number.is_f64() {
        return number.to_string();
    }
    let double = number.as_f64().unwrap_or_default();
    let is_it = |digits: &&str| {
        digits.len() > 19 && digits.parse().is_ok_and(|whole: f64| (whole - double.abs()).abs() <= whole * 1e-15)
    };
    match line.split(|letter: char| !letter.is_ascii_digit()).find(is_it) {
        Some(digits) => format!("{}{digits}", if double < 0.0 { "-" } else { "" }),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(guess: &Guess) -> Vec<String> {
        let show = |field: &Field| {
            let null = if field.nullable { "" } else { " not null" };
            match &field.kind {
                Kind::Scalar(name) => format!("{}: {name}{null}", field.name),
                other => format!("{}: {other:?}{null}", field.name),
            }
        };
        guess.fields.iter().map(show).collect()
    }

    #[test]
    fn types_of_json_are_guessed_from_all_records() {
        let guess = of_json_lines(concat!(
            r#"{"id":1,"price":10,"big":9223372036854775808,"rate":0.1234567890123456,"at":1795255202000,"day":"2026-11-21","ok":true,"who":{"n":1,"x":null},"tags":["a"],"odd":1,"note":null,"zip":"0123","huge":1e40}"#,
            "\n\n",
            r#"{"id":2,"price":10.125,"big":1,"rate":12345.6,"at":1795255203000,"day":"2026-11-22","ok":false,"who":{"n":2.5},"tags":[],"odd":"x","zip":"x","huge":1}"#,
        ))
        .unwrap();
        let mut found = types(&guess);
        found.sort();
        let who = found.pop().unwrap_or_default();
        assert!(found.pop() == Some("tags: List(Scalar(\"string\")) not null".into()) || !who.is_empty(), "{found:?}");
        for expected in [
            "id: bigint not null",
            "price: decimal(18,3) not null",
            "big: decimal(38,0) not null",
            "rate: double not null",
            "at: timestamp(ms) not null",
            "day: date not null",
            "ok: boolean not null",
            "zip: string not null",
            "huge: double not null",
        ] {
            assert!(types(&guess).contains(&expected.to_owned()), "{expected}: {:?}", types(&guess));
        }
        assert_eq!(guess.event_time().unwrap().name, "at");
        let left_out = guess.left_out.join("; ");
        for told in ["`odd`: its values are of several types", "`note`: it is null", "`who.x`: it is null"] {
            assert!(left_out.contains(told), "{left_out}");
        }
        assert_eq!((guess.records, guess.fixture.lines().count()), (2, 2));
        assert!(of_json_lines("{\"a\":1}\n[1]\n").unwrap_err().starts_with("line 2: "));
        assert!(of_json_lines("\n").is_err());
    }

    #[test]
    fn types_of_csv_are_guessed_from_its_cells() {
        let text = "at,code,price,n,flag,note\n2026-11-21T10:00:00Z,007,1.50,1,true,\n2026-11-21T10:00:00.5+01:00,8,2,,false,\"\"\n";
        let guess = of_csv(text).unwrap();
        let expected = [
            "at: timestamp not null",
            "code: string not null",
            "price: decimal(18,2) not null",
            "n: bigint",
            "flag: boolean not null",
            "note: string",
        ];
        assert_eq!(types(&guess), expected);
        assert_eq!(guess.left_out, [""; 0]);
        assert_eq!(guess.fixture, text);
        assert!(of_csv("a,b\n1\n").unwrap_err().contains("line 2: 1 cells"));
        assert!(of_csv("a,a\n1,2\n").unwrap_err().contains("names `a` twice"));
        assert!(of_csv("a,_offset\n1,2\n").unwrap_err().contains("`_offset`: the name is reserved"));
        assert_eq!(types(&of_csv("a,b\n1,\n").unwrap()), ["a: bigint not null", "b: string"]);
    }

    #[test]
    fn long_ids_stay_exact() {
        let id = "123456789012345678901";
        let line =
            format!(r#"{{"id":{id},"negative":-{id},"list":[{id}],"rate":1.5e25,"text":"{id}","whole":{id}.5}}"#);
        let guess = of_json_lines(&format!("{line}\n{}", line.replace("{id}.5", "0.5"))).unwrap();
        let types = types(&guess);
        for expected in ["id: decimal(38,0) not null", "negative: decimal(38,0) not null", "rate: double not null"] {
            assert!(types.contains(&expected.to_owned()), "{expected}: {types:?}");
        }
        assert!(types.iter().any(|found| found.starts_with("list: List(Scalar(\"decimal(38,0)")), "{types:?}");
    }

    #[test]
    fn times_have_a_zone() {
        for time in ["2026-11-21T10:00:02Z", "2026-11-21t10:00:02.123456z", "2026-11-21T10:00:02-05:30"] {
            assert!(is_time(time), "{time}");
        }
        for text in [
            "2026-11-21T10:00:02",
            "2026-11-21 10:00:02.Z",
            "2026-11-21T10:00:02.5",
            "yesterday, at ten o'clock",
            "0000-01-01T00:00:00Z",
            "2026-11-21T25:00:00Z",
            "2026-11-21T10:00:00+25:99",
            "2026-11-21 10:00:02Z",
        ] {
            assert!(!is_time(text), "{text}");
        }
        assert!(is_date("2026-11-21") && !is_date("2026-02-30") && !is_date("0000-01-01"));
    }
}
