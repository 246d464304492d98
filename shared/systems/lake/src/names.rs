use chrono::DateTime;
use millstream_core::{PartitionBy, TopicPartition, WHOLE_TOPIC};
use object_store::path::Path;

/// The last millisecond of the year 9999. A timestamp can be anything that a producer sent; readers don't take a day after this as a date.
const LAST_DATE_MS: i64 = 253_402_300_799_999;

/// What a table's objects are called. It is settled when the table is created and never changes: a chain whose names
/// changed could be written twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Days are `log_date=…`, which can't be confused with the day of an event, and only files that may hold rows end in
    /// `.parquet`.
    Current,
    /// Days are `date=…`, and everything ends in `.parquet`: tables of the first version.
    Dated,
}

impl Layout {
    /// What the folders of days begin with: the column that readers make of them.
    pub(crate) fn day_column(self) -> &'static str {
        match self {
            Self::Current => "log_date",
            Self::Dated => "date",
        }
    }

    /// The ending of the first turn, which has no day's folder to lie in.
    fn turn_ending(self) -> &'static str {
        match self {
            Self::Current => "turn",
            Self::Dated => "parquet",
        }
    }
}

/// What the folders of hours begin with.
pub(crate) const HOUR_COLUMN: &str = "log_hour";

/// Where the objects of one table are.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    table: Path,
}

impl Names {
    /// The names of `table` beneath `root` (empty for the store's top).
    pub(crate) fn new(root: Path, table: &str) -> Self {
        Self { table: root.join(table) }
    }

    /// The folder that readers are given.
    pub(crate) fn table(&self) -> &Path {
        &self.table
    }

    /// The table's columns. Which of the names is there also tells the table's layout.
    pub(crate) fn declaration(&self, layout: Layout) -> Path {
        self.table.clone().join(match layout {
            Layout::Current => "_table.columns",
            Layout::Dated => "_table.parquet",
        })
    }

    /// Who fills the table.
    pub(crate) fn owner(&self) -> Path {
        self.table.clone().join("_owner.json")
    }

    /// The folder of all fences.
    pub(crate) fn fences(&self) -> Path {
        self.table.clone().join("_fences")
    }

    /// The fence of a partition.
    pub(crate) fn fence(&self, partition: &TopicPartition) -> Path {
        self.fences().join(format!("{}.json", stem(partition)))
    }

    /// The one object that can follow a chain that is at `date` and `start`. What the date looks like decides its folder, and
    /// not how the table's folders should be: a name is a function of the chain's state alone.
    pub(crate) fn step(&self, layout: Layout, partition: &TopicPartition, date: Option<&str>, start: i64) -> Path {
        let day = |date: &str| self.table.clone().join(format!("{}={date}", layout.day_column()));
        let (folder, ending) = match date.map(|date| date.split_once('T').unwrap_or((date, ""))) {
            Some((date, "")) => (day(date), "parquet"),
            Some((date, hour)) => (day(date).join(format!("{HOUR_COLUMN}={hour}")), "parquet"),
            None => (self.fences(), layout.turn_ending()),
        };
        folder.join(format!("{}-{start:020}.{ending}", stem(partition)))
    }

    /// Is this a file that readers of the table see?
    pub(crate) fn is_data(&self, path: &Path) -> bool {
        let mut parts = match path.prefix_match(&self.table) {
            Some(parts) => parts,
            None => return false,
        };
        let is_day = |folder: &str| folder.starts_with("log_date=") || folder.starts_with("date=");
        parts.next().is_some_and(|folder| is_day(folder.as_ref())) && path.as_ref().ends_with(".parquet")
    }

    /// The partition of a fence object.
    pub(crate) fn partition_of_fence(&self, path: &Path) -> Option<TopicPartition> {
        parse_stem(path.filename()?.strip_suffix(".json")?)
    }

    /// The partition of a fence object, [`WHOLE_TOPIC`] among them.
    pub(crate) fn partition_of_any_fence(&self, path: &Path) -> Option<TopicPartition> {
        let stem = path.filename()?.strip_suffix(".json")?;
        let whole = stem.strip_suffix(&format!("-{WHOLE_TOPIC}")).and_then(|topic| {
            let (topic, generation) = topic.rsplit_once('-')?;
            Some(TopicPartition::new(topic, generation.parse().ok()?, WHOLE_TOPIC))
        });
        whole.or_else(|| parse_stem(stem))
    }

    /// The partition of a file.
    pub(crate) fn partition_of_step(&self, path: &Path) -> Option<TopicPartition> {
        let (stem, _start) = path.filename()?.strip_suffix(".parquet")?.rsplit_once('-')?;
        parse_stem(stem)
    }
}

/// The day or the hour of Kafka's timestamp, UTC, between 1970 and 9999: `2026-11-21` or `2026-11-21T05`.
pub(crate) fn period_of(timestamp_ms: i64, by: PartitionBy) -> String {
    let form = match by {
        PartitionBy::Date => "%Y-%m-%d",
        PartitionBy::Hour => "%Y-%m-%dT%H",
    };
    let time = DateTime::from_timestamp_millis(timestamp_ms.clamp(0, LAST_DATE_MS)).unwrap_or_default();
    time.format(form).to_string()
}

fn stem(partition: &TopicPartition) -> String {
    format!("{}-{}-{}", partition.topic, partition.generation, partition.partition)
}

/// Read from the right: a topic's name may hold dashes and numbers itself.
fn parse_stem(stem: &str) -> Option<TopicPartition> {
    let mut parts = stem.rsplitn(3, '-');
    let (partition, generation, topic) = (parts.next()?, parts.next()?, parts.next()?);
    Some(TopicPartition::new(topic, generation.parse().ok()?, partition.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_which_partition_they_belong_to() {
        let names = Names::new("lake".into(), "orders");
        for topic in ["orders", "orders-1-0", "a.b_c-"] {
            let partition = TopicPartition::new(topic, 3, 12);
            for layout in [Layout::Current, Layout::Dated] {
                let file = names.step(layout, &partition, Some("2026-11-21"), 7);
                assert_eq!(names.partition_of_step(&file), Some(partition.clone()));
                assert!(names.is_data(&file));
                assert!(!names.is_data(&names.step(layout, &partition, None, 7)));
                assert!(!names.is_data(&names.declaration(layout)));
            }
            assert_eq!(names.partition_of_fence(&names.fence(&partition)), Some(partition.clone()));
            assert_eq!(names.partition_of_any_fence(&names.fence(&partition)), Some(partition.clone()));
            let whole = TopicPartition { partition: WHOLE_TOPIC, ..partition.clone() };
            assert_eq!(names.partition_of_any_fence(&names.fence(&whole)), Some(whole.clone()));
            assert_eq!(names.partition_of_fence(&names.fence(&whole)), None);
        }
        let first = |layout| names.step(layout, &TopicPartition::new("orders", 1, 0), Some("2026-11-21"), 42);
        let file = "2026-11-21/orders-1-0-00000000000000000042.parquet";
        assert_eq!(first(Layout::Current).as_ref(), format!("lake/orders/log_date={file}"));
        assert_eq!(first(Layout::Dated).as_ref(), format!("lake/orders/date={file}"));
        let hour = names.step(Layout::Current, &TopicPartition::new("orders", 1, 0), Some("2026-11-21T05"), 42);
        let file = "log_date=2026-11-21/log_hour=05/orders-1-0-00000000000000000042.parquet";
        assert_eq!(hour.as_ref(), format!("lake/orders/{file}"));
        assert!(names.is_data(&hour));
    }

    #[test]
    fn a_day_is_utc_and_a_date_to_every_reader() {
        let date_of = |timestamp_ms| period_of(timestamp_ms, PartitionBy::Date);
        assert_eq!(date_of(1_795_219_199_999), "2026-11-20");
        assert_eq!(date_of(1_795_219_200_000), "2026-11-21");
        assert_eq!(date_of(-1), "1970-01-01");
        assert_eq!(date_of(i64::MIN), "1970-01-01");
        assert_eq!(date_of(i64::MAX), "9999-12-31");
        let hour_of = |timestamp_ms| period_of(timestamp_ms, PartitionBy::Hour);
        assert_eq!(hour_of(1_795_219_199_999), "2026-11-20T23");
        assert_eq!(hour_of(1_795_219_200_000), "2026-11-21T00");
        assert_eq!(hour_of(i64::MAX), "9999-12-31T23");
    }
}
