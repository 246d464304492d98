use std::collections::HashMap;

use millstream_assembly::Cell;
use serde_json::Value;

use super::{
    scalars::{Numbers, Texts, is_number, text_of},
    types::{Field, Kind},
};
use crate::grid::printable;

/// The largest number of fields in an object: with more, the keys are data and not columns.
pub(super) const MAX_FIELDS: usize = 1_000;

pub(super) const TOO_MANY_FIELDS: &str = "it has more than 1,000 fields";

/// What the sample shows about a value.
#[derive(Default)]
pub(super) struct Seen {
    nulls: usize,
    booleans: usize,
    numbers: Numbers,
    texts: Texts,
    lists: usize,
    items: Option<Box<Seen>>,
    pub(super) objects: usize,
    fields: Vec<(String, Seen)>,
    /// The index of each field.
    places: HashMap<String, usize>,
    pub(super) too_many_fields: bool,
    /// Cells of a CSV file: they are texts unless all of them fit another type.
    cells: usize,
}

impl Seen {
    /// The field with that name; `None` if there are too many fields.
    pub(super) fn field(&mut self, name: &str) -> Option<&mut Seen> {
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
    pub(super) fn json(&mut self, value: &Value, line: &str) {
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

    pub(super) fn cell(&mut self, cell: &Cell<'_>) {
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

    pub(super) fn into_fields(self, place: &str, left_out: &mut Vec<String>) -> Vec<Field> {
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
