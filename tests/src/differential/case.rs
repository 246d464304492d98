//! A case: data, a statement over it, and the oracles' tables.

use std::collections::BTreeSet;

use rand::{SeedableRng, rngs::StdRng};

use super::{
    compare::DUST,
    data::{Data, META, Record, Topic},
    expr::{Dialect, Expr},
    expressions::Maker,
    generate,
    statement::{Base, From, Select},
    value::{Type, Value},
};

/// The oracles' column with a record's place in the order of events.
pub const ORDER: &str = "_ord";
/// The oracles' column with the version of the references.
pub const VERSION: &str = "_v";

#[derive(Clone, Debug)]
pub struct Case {
    pub seed: u64,
    pub data: Data,
    pub statement: Select,
}

/// The oracles' tables.
pub struct Tables {
    pub all: Vec<Table>,
}

pub struct Table {
    pub name: String,
    pub columns: Vec<(String, Type)>,
    pub rows: Vec<Row>,
}

pub struct Row {
    pub order: String,
    pub version: usize,
    pub values: Vec<Value>,
}

impl Case {
    pub fn generate(seed: u64, is_off: &dyn Fn(&str) -> bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let data = Data::generate(&mut rng, 8..40, is_off);
        let mut maker = Maker { rng: &mut rng, is_off, versions: data.phases };
        let statement = generate::statement(&mut maker, &data);
        Self { seed, data, statement }
    }

    /// How far apart the doubles of each column may be, whatever their size. A sum of large doubles with both signs leaves what rounding lost,
    /// which depends on the order: some 450 units in the last place of the largest number that the statement may cast.
    pub fn dust(&self) -> Vec<f64> {
        let casts = self.statement.features().contains("cast_double");
        let of_sums = self.largest_number() * 1e-13;
        let one = |expr: &Expr| {
            let (mut features, mut keys, mut aggregates) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
            expr.features(&mut features);
            expr.uses(&mut keys, &mut aggregates);
            let all = self.statement.aggregates();
            let named = aggregates.iter().filter_map(|index| all.get(*index));
            named.for_each(|aggregate| aggregate.features(&mut features));
            let sums = ["sum", "avg", "moments"].iter().any(|feature| features.contains(feature));
            if casts && sums { of_sums } else { DUST }
        };
        self.statement.items().iter().map(|item| one(&item.expr)).collect()
    }

    /// The largest number in the columns that the statement names.
    fn largest_number(&self) -> f64 {
        let text = self.statement.print(Dialect::Ours);
        let mut largest = 1.0_f64;
        let mut add = |name: &str, of: &Type, value: &Value| {
            if text.contains(name) {
                largest = largest.max(value.magnitude(of));
            }
        };
        for record in &self.data.records {
            let fields = self.data.topics[record.topic].fields.iter().zip(&record.values);
            fields.for_each(|(field, value)| add(&field.name, &field.of, value));
        }
        for reference in &self.data.references {
            for row in reference.versions.iter().flatten() {
                reference.columns.iter().zip(row).for_each(|(column, value)| add(&column.name, &column.of, value));
            }
        }
        largest
    }

    pub fn types(&self) -> Vec<Type> {
        self.statement.items().iter().map(|item| item.expr.of.clone()).collect()
    }

    /// The topics that the statement reads.
    pub fn reads(&self) -> BTreeSet<String> {
        let mut topics = BTreeSet::new();
        read(&self.statement.from, &mut topics);
        topics.retain(|name| self.data.topics.iter().any(|topic| topic.name == *name));
        topics
    }

    pub fn tables(&self) -> Tables {
        let columns = |fields: &[super::data::Field]| -> Vec<(String, Type)> {
            fields.iter().map(|field| (field.name.clone(), field.of.clone())).collect()
        };
        let mut all = Vec::new();
        let placed = self.data.placed();
        for (index, topic) in self.data.topics.iter().enumerate() {
            let row = |(record, offset): &(&Record, i64)| {
                let mut values = record.values.clone();
                let at = Value::Time(record.timestamp_ms * 1_000);
                values.extend([at, Value::Integer(record.partition.into()), Value::Integer(*offset)]);
                Row { order: order(topic, record, *offset), version: record.phase, values }
            };
            let of_topic = placed.iter().filter(|(record, _)| record.topic == index && record.dirty.is_none());
            let mut columns = columns(&topic.fields);
            columns.extend(META.map(|(name, of)| (name.to_owned(), of)));
            all.push(Table { name: topic.name.clone(), columns, rows: of_topic.map(row).collect() });
        }
        for reference in &self.data.references {
            let row = |version, values: &Vec<Value>| Row { order: String::new(), version, values: values.clone() };
            let versions = reference.versions.iter().enumerate();
            let rows = versions.flat_map(|(version, rows)| rows.iter().map(move |values| row(version, values)));
            let columns = columns(&reference.columns);
            all.push(Table { name: reference.name.clone(), columns, rows: rows.collect() });
        }
        Tables { all }
    }
}

impl Data {
    /// The records with their offsets.
    pub fn placed(&self) -> Vec<(&Record, i64)> {
        let mut next = std::collections::BTreeMap::new();
        let mut place = |record: &Record| {
            let next = next.entry((record.topic, record.partition)).or_insert(0);
            *next += 1;
            *next - 1
        };
        self.records.iter().map(|record| (record, place(record))).collect()
    }
}

fn read(from: &From, topics: &mut BTreeSet<String>) {
    match &from.base {
        Base::Topic(name) => drop(topics.insert(name.clone())),
        Base::Union(arms) => arms.iter().for_each(|arm| read(&arm.from, topics)),
    }
}

/// A text that sorts like events: by event time, then topic, partition and offset.
fn order(topic: &Topic, record: &Record, offset: i64) -> String {
    let event_us = match (topic.event_time, topic.value_of(&record.values, "at")) {
        (true, Some(Value::Time(us))) => *us,
        _ => record.timestamp_ms * 1_000,
    };
    let ascending = event_us.cast_unsigned() ^ (1 << 63);
    format!("{ascending:016x}/{}/{:08x}/{offset:016x}", topic.name, record.partition)
}
