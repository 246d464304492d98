use serde_json::Value as Json;

use crate::shape::{Field, Form, Mapping, Presence, Shape};

mod read;

pub(crate) use read::read_generate;

/// How records are made: the built-in source of `ingest`.
#[derive(Clone, Debug, PartialEq)]
pub struct Generate {
    /// Records per second; with `every_ms`, what that amounts to.
    pub rate_per_s: f64,
    /// Milliseconds from one round of records to the next; none for a steady stream.
    pub every_ms: Option<u64>,
    /// With `every_ms`: each round has one record for every value of this field's [`Generator::OneOf`], in its order. A
    /// round without it is one record.
    pub for_each: Option<String>,
    /// How each field is made, in the schema's order. A field that is missing here is null.
    pub fields: Vec<(String, Generator)>,
}

/// How a field is made.
#[derive(Clone, Debug, PartialEq)]
pub enum Generator {
    /// One of these values, all equally likely; of the field's type as JSON writes it.
    OneOf(Vec<Json>),
    /// A decimal, all values equally likely. `min` and `max` count units of the field's scale (cents).
    Decimal {
        /// The smallest value.
        min: i128,
        /// The largest value.
        max: i128,
        /// Digits after the decimal point, from the field's type.
        scale: i8,
    },
    /// A whole number, all values equally likely.
    Integer {
        /// The smallest value.
        min: i64,
        /// The largest value.
        max: i64,
    },
    /// A decimal that changes by at most `step` from record to record: one walk for each value of the function's `key`
    /// field. All numbers count units of the field's scale.
    Walk {
        /// Where each walk starts.
        start: i128,
        /// The largest change.
        step: i128,
        /// The floor.
        min: i128,
        /// Digits after the decimal point, from the field's type.
        scale: i8,
    },
    /// The clock's time, in the form that the field's type asks for.
    Now,
    /// 1, 2, 3, …; from 1 again after a restart.
    Sequence,
    /// Always the same text.
    Text(String),
}

const MAX_RATE_PER_S: f64 = 1_000_000.0;
const MAX_EVERY_MS: i64 = 24 * 60 * 60 * 1_000;
const MAX_VALUES: usize = 10_000;

pub(crate) static GENERATE: Mapping = Mapping {
    name: "Generate",
    doc: "How records are made up.",
    fields: &[
        Field {
            name: "rate_per_s",
            shape: Shape::PositiveUpTo(MAX_RATE_PER_S),
            presence: Presence::Optional,
            doc: "Records per second, in a steady stream.",
        },
        Field {
            name: "every",
            shape: Shape::Duration(1..=MAX_EVERY_MS),
            presence: Presence::Optional,
            doc: "Instead of `rate_per_s`: the time from one round of records to the next.",
        },
        Field {
            name: "for_each",
            shape: Shape::Text,
            presence: Presence::Optional,
            doc: "With `every`: a round has one record for each value of this field's `one_of`. Without it, a round is one record.",
        },
        Field {
            name: "fields",
            shape: Shape::Named(&Shape::Mapping(&GENERATOR)),
            presence: Presence::Required,
            doc: "How each field is made. Every not-null field of the topic must be here.",
        },
    ],
    form: Form::Fields,
};

static GENERATOR: Mapping = Mapping {
    name: "Generator",
    doc: "How a field is made: one of these, such as `now` or `one_of: [A, B]`.",
    fields: &[
        generator("now", Shape::Nothing, "The current time."),
        generator("sequence", Shape::Nothing, "1, 2, 3, …; from 1 again after a restart."),
        generator(
            "one_of",
            Shape::List(
                &Shape::Either(&[Shape::Text, Shape::Integer(i64::MIN..=i64::MAX), Shape::Boolean]),
                1..=MAX_VALUES,
            ),
            "One of these values, all equally likely.",
        ),
        generator("text", Shape::Text, "Always the same text."),
        generator("decimal", Shape::Mapping(&RANGE), "A decimal, all values equally likely."),
        generator("integer", Shape::Mapping(&RANGE), "A whole number, all values equally likely."),
        generator(
            "walk",
            Shape::Mapping(&WALK),
            "A decimal that changes a little from record to record: one walk for each value of the function's `key` field.",
        ),
    ],
    form: Form::OneField,
};

const fn generator(name: &'static str, shape: Shape, doc: &'static str) -> Field {
    Field { name, shape, presence: Presence::Optional, doc }
}

static RANGE: Mapping = Mapping {
    name: "Range",
    doc: "All values from `min` to `max`, both included.",
    fields: &[
        Field { name: "min", shape: Shape::Exact, presence: Presence::Required, doc: "The smallest value." },
        Field { name: "max", shape: Shape::Exact, presence: Presence::Required, doc: "The largest value." },
    ],
    form: Form::Fields,
};

static WALK: Mapping = Mapping {
    name: "Walk",
    doc: "A random walk.",
    fields: &[
        Field { name: "start", shape: Shape::Exact, presence: Presence::Required, doc: "Where each walk starts." },
        Field {
            name: "step",
            shape: Shape::Exact,
            presence: Presence::Required,
            doc: "The largest change from record to record.",
        },
        Field { name: "min", shape: Shape::Exact, presence: Presence::Default("0"), doc: "The smallest value." },
    ],
    form: Form::Fields,
};
