use std::sync::Arc;

use arrow::{
    array::{
        Array as _, ArrayRef, AsArray as _, BinaryArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray,
    },
    datatypes::{DataType, FieldRef, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType},
    error::ArrowError,
};
use millstream_core::{Bad, Batch, Decode, Decoded, Error, META_COLUMNS, Result, Tombstones};

use crate::{
    MAX_BATCH_LIST_ITEMS, MAX_VALUE_BYTES,
    column::Column,
    meta::{self, Rows},
    problem::Problem,
    scan::Scanner,
    time,
};

/// The options of a [`JsonDecoder`].
#[derive(Clone, Debug)]
pub struct JsonOptions {
    /// The topic's fields. Types: boolean, 16, 32 and 64-bit integers, both floats, UTF-8, binary (base64 in JSON),
    /// `Decimal128`, `Date32`, timestamps in microseconds, structs and lists of these. See [`crate::EPOCH`].
    pub schema: SchemaRef,
    /// The wanted columns, from the schema and [`META_COLUMNS`]. The output has those of the schema in its order, then
    /// the meta columns in theirs; the order here doesn't matter. `None` means the whole schema without meta columns.
    pub columns: Option<Vec<String>>,
    /// The top-level timestamp field with the time of the event; `None` uses Kafka's timestamp.
    pub event_time: Option<String>,
    /// How a record without a value is treated.
    pub tombstones: Tombstones,
}

/// Decodes the JSON objects of a batch to Arrow columns, by the rules in the crate's documentation.
///
/// It makes one pass, straight into the wanted columns. A bad record is removed from the columns again, so it doesn't
/// affect its neighbours.
#[derive(Debug)]
pub struct JsonDecoder {
    /// The fields that are read from JSON.
    fields: Vec<FieldRef>,
    event_time: Option<EventTime>,
    tombstones: Tombstones,
    output: SchemaRef,
    /// The source of each output column.
    sources: Vec<ColumnSource>,
}

#[derive(Debug)]
struct EventTime {
    name: String,
    /// Its index among the fields that are read.
    at: usize,
}

#[derive(Debug)]
enum ColumnSource {
    /// The field with this index among those that are read.
    Field(usize),
    Meta(&'static str),
}

impl JsonDecoder {
    /// A decoder for one topic.
    ///
    /// # Errors
    /// `Stop` if a column or the event time isn't in the schema or has a type that can't be decoded, or if a field has
    /// the name of a meta column.
    pub fn new(options: JsonOptions) -> Result<Self> {
        let JsonOptions { schema, columns, event_time, tombstones } = options;
        check_names(&schema, columns.as_deref().unwrap_or_default())?;
        let wanted = |name: &str| columns.as_ref().is_none_or(|columns| columns.iter().any(|column| column == name));
        let meta_wanted = |name: &str| columns.is_some() && wanted(name);

        let (mut fields, mut output, mut sources) = (Vec::new(), Vec::new(), Vec::new());
        for field in schema.fields() {
            if wanted(field.name()) {
                sources.push(ColumnSource::Field(fields.len()));
                output.push(field.clone());
            } else if event_time.as_ref() != Some(field.name()) {
                continue;
            }
            fields.push(field.clone());
        }
        for name in META_COLUMNS.into_iter().filter(|name| meta_wanted(name)) {
            sources.push(ColumnSource::Meta(name));
            output.push(Arc::new(meta::field(name)));
        }
        let event_time = event_time.map(|name| find_event_time(&fields, name)).transpose()?;
        // Types that can't be decoded are found now, not with the first batch.
        Column::record(schema.fields(), 0)?;
        let output = Arc::new(Schema::new_with_metadata(output, schema.metadata().clone()));
        Ok(Self { fields, event_time, tombstones, output, sources })
    }

    /// The schema of [`Decoded::rows`].
    pub fn output_schema(&self) -> SchemaRef {
        self.output.clone()
    }

    /// Reads record `index` into `record`. Returns its Kafka timestamp in microseconds and its number of list items;
    /// `None` if the record is skipped.
    fn read(
        &self,
        record: &mut Column,
        batch: &Batch,
        values: &Texts<'_>,
        index: usize,
    ) -> Result<Option<(i64, usize)>, Problem> {
        let Some(value) = values.get(index)? else {
            return match self.tombstones {
                Tombstones::Skip => Ok(None),
                Tombstones::DeadLetter => Err(Problem::Value("no value (a tombstone)".to_owned())),
            };
        };
        let timestamp_ms = batch.timestamps_ms().value(index);
        if timestamp_ms == -1 && self.event_time.is_none() {
            return Err(Problem::Value(
                "no event time: the record has no timestamp in the log, and the topic declares no field as its \
                 event_time"
                    .to_owned(),
            ));
        }
        let out_of_range = || Problem::Value("Kafka's timestamp is outside the years 0001 to 9999".to_owned());
        let kafka_us = timestamp_ms.checked_mul(1000).and_then(time::within_us).ok_or_else(out_of_range)?;
        let mut json = Scanner::new(value);
        match json.peek() {
            Some(b'{') => record.read(&mut json)?,
            None => return Err(Problem::Value("empty value, expected a JSON object".to_owned())),
            Some(_) => return Err(not_an_object(json)),
        }
        json.end()?;
        Ok(Some((kafka_us, json.kept_items)))
    }

    /// The rows of a batch, from the columns that were read.
    fn assemble(
        &self,
        columns: Vec<ArrayRef>,
        rows: Rows<'_>,
    ) -> Result<(RecordBatch, TimestampMicrosecondArray), ArrowError> {
        let event_time = match &self.event_time {
            // The event time refuses null, so every value is valid.
            Some(event_time) => columns[event_time.at].as_primitive::<TimestampMicrosecondType>().values().clone(),
            None => rows.kafka_us.to_vec().into(),
        };
        let rows = Rows { event_us: &event_time, ..rows };
        let output = self.sources.iter().map(|source| match source {
            ColumnSource::Field(at) => columns[*at].clone(),
            ColumnSource::Meta(name) => rows.column(name),
        });
        // A statement may read no columns at all (`count(*)`), so the number of rows is set explicitly.
        let options = RecordBatchOptions::new().with_row_count(Some(rows.index.len()));
        let batch = RecordBatch::try_new_with_options(self.output.clone(), output.collect(), &options)?;
        Ok((batch, TimestampMicrosecondArray::new(event_time, None).with_timezone("UTC")))
    }
}

impl Decode for JsonDecoder {
    fn decode(&self, batch: &Batch) -> Result<Decoded> {
        let mut record = Column::record(&self.fields, batch.len())?;
        if let Some(event_time) = &self.event_time {
            record.require(&event_time.name);
        }
        let values = Texts::new(batch.values());
        let (mut index, mut kafka_us) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        let (mut bad, mut items) = (Vec::new(), 0);
        for at in 0..batch.len() {
            match self.read(&mut record, batch, &values, at) {
                Ok(Some((us, more))) => {
                    items += more;
                    if items > MAX_BATCH_LIST_ITEMS {
                        return Err(Error::too_large(format!(
                            "the lists of a batch of {} records have more than {MAX_BATCH_LIST_ITEMS} items",
                            batch.len()
                        )));
                    }
                    index.push(at);
                    kafka_us.push(us);
                }
                Ok(None) => {}
                Err(problem) => {
                    record.truncate(index.len());
                    bad.push(Bad { index: at, reason: problem.to_string() });
                }
            }
        }
        let defect = |error| Error::stop("internal: decoded columns don't fit their schema").caused_by(error);
        let columns = record.finish_children().map_err(defect)?;
        let rows = Rows { batch, index: &index, kafka_us: &kafka_us, event_us: &[] };
        let (rows, event_time) = self.assemble(columns, rows).map_err(defect)?;
        Ok(Decoded { rows, index, event_time, bad })
    }
}

/// The values of a batch as text.
///
/// All values are checked for UTF-8 at once, which is very fast. Only if that fails are they checked one by one.
struct Texts<'a> {
    values: &'a BinaryArray,
    /// Where the first value starts in the buffer that the values share.
    start: usize,
    whole: Option<&'a str>,
}

impl<'a> Texts<'a> {
    fn new(values: &'a BinaryArray) -> Self {
        let offsets = values.value_offsets();
        let (start, end) = (offsets[0] as usize, offsets[values.len()] as usize);
        Self { values, start, whole: std::str::from_utf8(&values.value_data()[start..end]).ok() }
    }

    /// A value as text; `None` for null.
    #[inline]
    fn get(&self, index: usize) -> Result<Option<&'a str>, Problem> {
        if self.values.is_null(index) {
            return Ok(None);
        }
        let bytes = self.values.value_length(index) as usize;
        if bytes > MAX_VALUE_BYTES {
            let reason = format!("a value of {bytes} bytes; the limit is {MAX_VALUE_BYTES}");
            return Err(Problem::Limit(reason));
        }
        let text = match self.whole {
            Some(whole) => {
                let start = self.values.value_offsets()[index] as usize - self.start;
                // `None` if the border between two values cuts a character in two.
                whole.get(start..start + bytes)
            }
            None => std::str::from_utf8(self.values.value(index)).ok(),
        };
        text.map(Some).ok_or_else(|| Problem::Value("not JSON: it is not UTF-8".to_owned()))
    }
}

#[cold]
fn not_an_object(mut json: Scanner<'_>) -> Problem {
    match json.mismatch() {
        Problem::Found(found) => Problem::Value(format!("expected a JSON object, found {found}")),
        not_json => not_json,
    }
}

fn check_names(schema: &Schema, columns: &[String]) -> Result<()> {
    let is_field = |name: &str| schema.fields().iter().any(|field| field.name() == name);
    if let Some(name) = META_COLUMNS.into_iter().find(|name| is_field(name)) {
        return Err(Error::stop(format!(
            "the topic's field `{name}` has the name of a column that every topic has; rename it"
        )));
    }
    match columns.iter().find(|column| !is_field(column) && !META_COLUMNS.contains(&column.as_str())) {
        Some(column) => Err(Error::stop(format!("the topic has no column `{column}`"))),
        None => Ok(()),
    }
}

fn find_event_time(fields: &[FieldRef], name: String) -> Result<EventTime> {
    let Some(at) = fields.iter().position(|field| *field.name() == name) else {
        return Err(Error::stop(format!("the topic has no field `{name}`, which is declared as its event_time")));
    };
    if !matches!(fields[at].data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)) {
        return Err(Error::stop(format!("field `{name}` is declared as the event_time, but is not a timestamp")));
    }
    Ok(EventTime { name, at })
}
