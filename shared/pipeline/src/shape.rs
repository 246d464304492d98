//! What a pipeline file can hold, as data. The readers take field names, ranges and choices from these rows; the JSON
//! Schema and `docs/pipeline-file.md` are generated from them.

use std::ops::RangeInclusive;

use millstream_core::Limits;

/// A mapping whose fields are known.
pub(crate) struct Mapping {
    /// Its name in the JSON Schema and in the documentation, such as `Topic`.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Its fields, in the order in which messages list them.
    pub fields: &'static [Field],
    pub form: Form,
}

/// Which fields a mapping can have.
pub(crate) enum Form {
    /// Those of its rows.
    Fields,
    /// Those of its rows, and any others, which are like this one.
    FieldsAndOthers(&'static Field),
    /// Exactly one of its rows. One that holds nothing is written as a word instead.
    OneField,
}

/// A field of a mapping.
pub(crate) struct Field {
    pub name: &'static str,
    pub shape: Shape,
    pub presence: Presence,
    /// What it means.
    pub doc: &'static str,
}

/// Must a field be there?
pub(crate) enum Presence {
    /// It must.
    Required,
    /// It may be left out, and then there is none.
    Optional,
    /// It may be left out, and then has this value.
    Default(&'static str),
    /// It may be left out, and then has what the kind of function says.
    OfKind(fn(&Limits) -> String),
}

/// What a value can be.
pub(crate) enum Shape {
    /// Nothing, see [`Form::OneField`].
    Nothing,
    /// Any text.
    Text,
    /// Text of this pattern, and how the documentation calls it.
    Pattern(fn() -> String, &'static str),
    /// `true` or `false`.
    Boolean,
    /// A whole number in this range.
    Integer(RangeInclusive<i64>),
    /// A number above 0, and at most this.
    PositiveUpTo(f64),
    /// A number that is read exactly; as text where more than 15 digits matter.
    Exact,
    /// One of these words.
    Choice(fn() -> Vec<&'static str>),
    /// A length of time such as `10s`, in this range of milliseconds.
    Duration(RangeInclusive<i64>),
    /// A size such as `16MiB`, in this range of bytes.
    Bytes(RangeInclusive<i64>),
    /// The type of a topic's or a reference's field.
    FieldType,
    /// A mapping with known fields.
    Mapping(&'static Mapping),
    /// A mapping of names to values of one shape.
    Named(&'static Shape),
    /// A list of values of one shape, of so many items.
    List(&'static Shape, RangeInclusive<usize>),
    /// One of these shapes.
    Either(&'static [Shape]),
}

impl Mapping {
    /// The names of its fields.
    pub fn names(&self) -> Vec<&'static str> {
        self.fields.iter().map(|field| field.name).collect()
    }

    /// The field of that name.
    pub fn find(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Its fields, and the one that stands for all others.
    pub fn rows(&self) -> impl Iterator<Item = &'static Field> {
        let others = match self.form {
            Form::FieldsAndOthers(field) => Some(field),
            Form::Fields | Form::OneField => None,
        };
        self.fields.iter().chain(others)
    }

    /// This mapping and all that it refers to, each once, in the order in which they are referred to.
    pub fn all(&'static self) -> Vec<&'static Self> {
        let mut all = vec![self];
        let mut at = 0;
        while let Some(mapping) = all.get(at).copied() {
            mapping.rows().for_each(|field| field.shape.collect(&mut all));
            at += 1;
        }
        all
    }
}

impl Shape {
    fn collect(&self, all: &mut Vec<&'static Mapping>) {
        match self {
            Self::Mapping(mapping) if all.iter().all(|known| known.name != mapping.name) => all.push(mapping),
            Self::Mapping(_) => {}
            Self::Named(shape) | Self::List(shape, _) => shape.collect(all),
            Self::Either(shapes) => shapes.iter().for_each(|shape| shape.collect(all)),
            _ => {}
        }
    }
}

/// The words of a table of choices.
pub(crate) fn words<T>(choices: &[(&'static str, T)]) -> Vec<&'static str> {
    choices.iter().map(|(word, _)| *word).collect()
}
