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
