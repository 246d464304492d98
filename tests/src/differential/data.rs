//! Topics, references and records of a case.

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

use super::value::{Type, Value, object_json};

/// A field of a topic or a column of a reference.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub of: Type,
    /// Its values may be as large as its type allows, so nothing is computed with them that could overflow.
    pub wide: bool,
}

/// The metadata of a record, in addition to its fields.
pub const META: [(&str, Type); 3] = [("_timestamp", Type::Time), ("_partition", Type::Int), ("_offset", Type::Big)];

#[derive(Clone, Debug)]
pub struct Topic {
    pub name: String,
    pub partitions: i32,
    pub fields: Vec<Field>,
    /// Is the field `at` the event time? Otherwise it is the record's timestamp.
    pub event_time: bool,
}

#[derive(Clone, Debug)]
pub struct Reference {
    pub name: String,
    pub columns: Vec<Field>,
    /// Its rows in each phase.
    pub versions: Vec<Vec<Vec<Value>>>,
}

/// A record; records are listed in the order of production.
#[derive(Clone, Debug)]
pub struct Record {
    pub topic: usize,
    pub partition: i32,
    pub timestamp_ms: i64,
    /// A value that replaces the object with the topic's fields: it becomes a dead letter.
    pub dirty: Option<String>,
    pub values: Vec<Value>,
    /// The version of the references that it is joined with.
    pub phase: usize,
}

#[derive(Clone, Debug)]
pub struct Data {
    pub topics: Vec<Topic>,
    pub references: Vec<Reference>,
    pub records: Vec<Record>,
    pub phases: usize,
}

impl Topic {
    pub fn json(&self, record: &Record) -> String {
        if let Some(dirty) = &record.dirty {
            return dirty.clone();
        }
        let fields: Vec<_> = self.fields.iter().map(|field| (field.name.as_str(), &field.of)).collect();
        object_json(&fields, &record.values)
    }

    /// The value of a record's field, by name.
    pub fn value_of<'a>(&self, values: &'a [Value], name: &str) -> Option<&'a Value> {
        self.fields.iter().position(|field| field.name == name).map(|index| &values[index])
    }
}

const TEXTS: [&str; 10] = ["a", "b", "c", "A", "", "null", "ä", "日本", "it's", "a-b"];
/// 2024-01-01; most times are around it.
const NEW_YEAR_US: i64 = 1_704_067_200_000_000;
const SECOND_US: i64 = 1_000_000;

/// How much the values of a case vary. A small number of texts makes groups of several records; all times are around
/// one point.
#[derive(Clone, Copy)]
struct Lively {
    base_us: i64,
    span_s: i64,
    texts: usize,
    nulls: f64,
}

impl Data {
    pub fn generate(rng: &mut StdRng, records: std::ops::Range<usize>, is_off: &dyn Fn(&str) -> bool) -> Self {
        let topics: Vec<_> = (0..rng.random_range(1..=2)).map(|number| topic(rng, number)).collect();
        let phases = if is_off("refresh") || rng.random_bool(0.6) { 1 } else { 2 };
        let references: Vec<_> = (0..2).map(|number| reference(rng, number, phases)).collect();
        let lively = Lively {
            texts: rng.random_range(2..=TEXTS.len()),
            nulls: *[0.05, 0.15, 0.5].choose(rng).unwrap_or(&0.1),
            base_us: match rng.random_range(0..10) {
                0 if !is_off("far_times") => -62_135_596_800_000_000, // the year 1
                1 if !is_off("far_times") => 253_370_764_800_000_000, // the year 9999
                2 => -SECOND_US * 30,                                 // around 1970
                3 if !is_off("far_times") => 32_503_680_000_000_000,  // the year 3000
                4 => -5_000_000_000_000_000,                          // 1811
                _ => NEW_YEAR_US,
            },
            span_s: *[5, 60, 3_600, 80_000].choose(rng).unwrap_or(&60),
        };
        let mut data = Self { topics, references, records: Vec::new(), phases };
        let count = rng.random_range(records);
        for _ in 0..count {
            let record = data.record(rng, lively, is_off);
            data.records.push(record);
        }
        data.records.sort_by_key(|record| record.phase);
        data
    }

    fn record(&self, rng: &mut StdRng, lively: Lively, is_off: &dyn Fn(&str) -> bool) -> Record {
        let topic = rng.random_range(0..self.topics.len());
        let declared = &self.topics[topic];
        let values = declared.fields.iter().map(|field| field_value(rng, field, lively)).collect();
        let dirty = (!is_off("dirty") && rng.random_bool(0.01))
            .then(|| ["{", "[]"].choose(rng).map(ToString::to_string))
            .flatten();
        Record {
            topic,
            partition: rng.random_range(0..declared.partitions),
            // Not before 1970: a log may refuse such times.
            timestamp_ms: time(rng, lively).div_euclid(1_000).max(0),
            dirty,
            values,
            phase: rng.random_range(0..self.phases),
        }
    }
}

fn field(name: &str, of: Type) -> Field {
    Field { name: name.into(), of, wide: false }
}

fn topic(rng: &mut StdRng, number: usize) -> Topic {
    let scale = rng.random_range(0..=6);
    let mut fields = vec![
        field("at", Type::Time),
        field("k", Type::Text),
        field("id", Type::Big),
        field("n", Type::Int),
        field("amount", Type::Decimal(18, 2)),
        field("price", Type::Decimal(rng.random_range(8..=12), scale)),
        field("x", Type::Double),
        field("ok", Type::Bool),
        field("seen", Type::Time),
        field(
            "pos",
            Type::Object(vec![("lat".into(), Type::Double), ("tag".into(), Type::Text), ("n".into(), Type::Big)]),
        ),
        field("tags", Type::List(Box::new(Type::Text))),
        field("nums", Type::List(Box::new(Type::Big))),
        field(
            "items",
            Type::List(Box::new(Type::Object(vec![("sku".into(), Type::Text), ("cost".into(), Type::Decimal(10, 2))]))),
        ),
        Field { name: "wide".into(), of: Type::Big, wide: true },
        Field { name: "huge".into(), of: Type::Decimal(38, 6), wide: true },
        Field { name: "wild".into(), of: Type::Double, wide: true },
    ];
    // Some fields are missing in some cases.
    let mut index = 3;
    while index < fields.len() {
        if rng.random_bool(0.2) {
            fields.remove(index);
        } else {
            index += 1;
        }
    }
    Topic { name: format!("t{number}"), partitions: rng.random_range(1..=3), fields, event_time: rng.random_bool(0.7) }
}

fn reference(rng: &mut StdRng, number: usize, phases: usize) -> Reference {
    let columns = vec![
        field("key", Type::Text),
        field("code", Type::Big),
        field("title", Type::Text),
        field("rate", Type::Decimal(10, 4)),
        field("since", Type::Time),
    ];
    let lively = Lively { base_us: NEW_YEAR_US, span_s: 60, texts: TEXTS.len(), nulls: 0.1 };
    let mut version = || -> Vec<Vec<Value>> {
        let rows = rng.random_range(0..8);
        (0..rows).map(|_| columns.iter().map(|column| field_value(rng, column, lively)).collect()).collect()
    };
    let versions = (0..phases).map(|_| version()).collect();
    Reference { name: format!("r{number}"), columns, versions }
}

fn field_value(rng: &mut StdRng, field: &Field, lively: Lively) -> Value {
    // Every record has the event time.
    if field.name != "at" && rng.random_bool(lively.nulls) {
        return Value::Null;
    }
    value(rng, &field.of, field.wide, lively)
}

fn value(rng: &mut StdRng, of: &Type, wide: bool, lively: Lively) -> Value {
    match of {
        Type::Text => Value::Text(TEXTS[..lively.texts].choose(rng).copied().unwrap_or_default().into()),
        Type::Int => Value::Integer(rng.random_range(-9..=9)),
        Type::Big if wide => {
            Value::Integer(*[i64::MIN, i64::MAX, 0, -1, 1 << 53, (1 << 53) + 1].choose(rng).unwrap_or(&0))
        }
        Type::Big if rng.random_bool(0.2) => Value::Integer(rng.random_range(-1_000_000_000_000..=1_000_000_000_000)),
        Type::Big => Value::Integer(rng.random_range(-5..=5)),
        Type::Double if wide => {
            Value::Double(*[1e300, -1e300, 1e-300, 0.1, 12_345.678_9, 1e15 + 0.5].choose(rng).unwrap_or(&0.0))
        }
        // Multiples of 1/8: their sums are exact in any order.
        Type::Double if rng.random() => Value::Double(f64::from(rng.random_range(-4..=4)) / 2.0),
        Type::Double => Value::Double(f64::from(rng.random_range(-800..=800)) / 8.0),
        Type::Decimal(precision, _) => {
            let edge = 10_i128.pow(u32::from(*precision)) - 1;
            let small = if rng.random() { rng.random_range(-99_999..=99_999) } else { rng.random_range(-3..=3) * 125 };
            Value::Decimal(match rng.random_range(0..10) {
                0 => edge,
                1 => -edge,
                2 => 0,
                3 => edge / 3,
                _ => small,
            })
        }
        Type::Bool => Value::Bool(rng.random()),
        Type::Time => Value::Time(time(rng, lively)),
        Type::Object(fields) => Value::Object(fields.iter().map(|(_, of)| maybe(rng, of, lively)).collect()),
        Type::List(item) => {
            let length = rng.random_range(0..4);
            Value::List((0..length).map(|_| maybe(rng, item, lively)).collect())
        }
    }
}

fn maybe(rng: &mut StdRng, of: &Type, lively: Lively) -> Value {
    if rng.random_bool(0.1) { Value::Null } else { value(rng, of, false, lively) }
}

fn time(rng: &mut StdRng, lively: Lively) -> i64 {
    let second = rng.random_range(0..lively.span_s) * SECOND_US;
    let fraction = match rng.random_range(0..4) {
        0 => 500_000,
        1 => 999_999,
        2 if rng.random_bool(0.3) => 1,
        _ => 0,
    };
    lively.base_us + second + fraction
}
