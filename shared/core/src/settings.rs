//! What a pipeline file may say of a function or a topic, for the crates that act on it.

/// Where a function begins that has no fence yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record that the topic still holds.
    #[default]
    Earliest,
    /// Behind the newest record; in a partition that is added to the topic later, at its first one.
    Latest,
}

/// What a function does when records are missing between the fence and a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnGap {
    /// Read them from the log: for every function that should see all of its topic.
    #[default]
    Heal,
    /// Stop: for logs that can't be read again.
    Fail,
    /// Go on without them: for a function behind a trigger's filter, which leaves records out on purpose.
    Skip,
}

/// What becomes of an event that is older than the newest one before it in its partition by more than the lateness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Late {
    /// It merges into its window whenever it comes.
    #[default]
    Merge,
    /// It becomes a dead letter.
    DeadLetter,
}

/// What a record without a value is taken for: in a compacted topic it is the deletion of its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tombstones {
    /// A bad record.
    #[default]
    DeadLetter,
    /// Neither a row nor bad.
    Skip,
}

/// Which folders a table of files has. Both are times at which the log took a file's last record, in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PartitionBy {
    /// One for each day.
    #[default]
    Date,
    /// One for each hour of a day, in that day's folder.
    Hour,
}

impl PartitionBy {
    /// Its name in the pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Date => "date",
            Self::Hour => "hour",
        }
    }
}

/// How producers compress batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compression {
    /// Not at all.
    None,
    /// The one that every broker understands, Event Hubs among them.
    #[default]
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Its name in the pipeline file and in librdkafka's `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}
