use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow::{
    array::{Array, ArrayRef, RecordBatch},
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use millstream_core::{Clock, Error, Result, TableStore};
use millstream_pipeline::{Pipeline, ReferenceFrom, System};
use millstream_sql::ReferenceTable;
use tokio::{task::JoinSet, time::Instant};

use crate::{csv_table::read_csv_bytes, lookup::StoreLookup, open::open_folder, read_csv, type_name, used::store_of};

/// How often a file that changes while it is read is read again, and how long it must have been still.
const FILE_TRIES: usize = 20;
const FILE_PAUSE: Duration = Duration::from_millis(100);

/// A reference that a function joins: where its rows come from, and the table that they go into.
pub(crate) struct Reference {
    table: Arc<ReferenceTable>,
    rows: Rows,
    refresh: Option<Duration>,
    clock: Arc<dyn Clock>,
}

/// Where the rows of a reference come from.
enum Rows {
    File(PathBuf),
    Store(Arc<dyn TableStore>, String),
}

impl Reference {
    /// The reference of the pipeline that has the table's name, in the store that `store` finds.
    ///
    /// # Errors
    /// `Stop` when the pipeline has no such reference, or its store is not open.
    pub fn of(
        pipeline: &Pipeline,
        table: &Arc<ReferenceTable>,
        store: impl Fn(System) -> Option<Arc<dyn TableStore>>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self> {
        let name = &table.name;
        let missing = || Error::stop(format!("internal: the reference `{name}` or its store is not there"));
        let declared = pipeline.references.get(name).ok_or_else(missing)?;
        let rows = match (&declared.from, store_of(&declared.from)) {
            (_, Some((system, name))) => Rows::Store(store(system).ok_or_else(missing)?, name),
            (ReferenceFrom::File(path), None) => Rows::File(pipeline.path(path)),
            (_, None) => return Err(missing()),
        };
        let refresh = declared.refresh_ms.map(|ms| Duration::from_millis(ms.unsigned_abs()));
        Ok(Self { table: Arc::clone(table), rows, refresh, clock: Arc::clone(clock) })
    }

    /// Loads the rows; or, of a table that is asked by key, finds out whether it can be.
    async fn begin(&self) -> Result<()> {
        match (&self.rows, self.table.asked_by()) {
            (Rows::Store(store, name), Some(by)) => {
                let lookup = StoreLookup {
                    store: Arc::clone(store),
                    name: name.clone(),
                    schema: Arc::clone(&self.table.schema),
                    by: by.to_owned(),
                    max_age_us: self.refresh.map(|age| i64::try_from(age.as_micros()).unwrap_or(i64::MAX)),
                    clock: Arc::clone(&self.clock),
                    remembered: Mutex::default(),
                };
                lookup.check().await?;
                self.table.ask(Arc::new(lookup));
                Ok(())
            }
            _ => self.load().await,
        }
    }

    fn of_it(&self, error: Error) -> Error {
        error.context(format_args!("reference `{}`", self.table.name))
    }

    async fn load(&self) -> Result<()> {
        let schema = &self.table.schema;
        let rows = match &self.rows {
            Rows::File(path) => whole(path, || read_file(path, schema)).await?,
            Rows::Store(store, name) if is_csv(Path::new(name)) => {
                vec![read_csv_bytes(name, store.read_file(name).await?, schema)?]
            }
            Rows::Store(store, name) => match self.table.asked_by() {
                Some(by) => store.read_all_by_key(name, schema, by).await?,
                None => store.read_reference(name, schema).await?,
            },
        };
        self.table.set(rows.iter().map(|rows| declared(rows, schema)).collect::<Result<_>>()?);
        Ok(())
    }

    /// Loads it again and again. When that fails, the previous rows stay, with a warning: a reference that is away for a
    /// while must not stop a stream.
    async fn keep_fresh(self, every: Duration) {
        let mut loaded = Instant::now();
        loop {
            tokio::time::sleep(every).await;
            match self.load().await {
                Ok(()) => loaded = Instant::now(),
                Err(error) => {
                    let (reference, age_s) = (&self.table.name, loaded.elapsed().as_secs());
                    tracing::warn!(reference, age_s, %error, "not refreshed; the rows of {age_s} s ago stay");
                }
            }
        }
    }
}

/// Loads the rows of the references that a function joins, but for those that it asks by key.
pub(crate) async fn load_all(references: &[Reference]) -> Result<()> {
    for reference in references {
        reference.begin().await.map_err(|error| reference.of_it(error))?;
    }
    Ok(())
}

/// Loads the rows of all of them, for who goes through a whole log at once.
pub(crate) async fn load_whole(references: &[Reference]) -> Result<()> {
    for reference in references {
        reference.load().await.map_err(|error| reference.of_it(error))?;
    }
    Ok(())
}

/// Loads references again whenever their `refresh` has passed; until the tasks are dropped.
pub(crate) fn keep_fresh(references: Vec<Reference>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for reference in references {
        if let Some(every) = reference.refresh.filter(|_| reference.table.asked_by().is_none()) {
            tasks.spawn(reference.keep_fresh(every));
        }
    }
    tasks
}

/// Reads a file of the pipeline's folder.
async fn read_file(path: &Path, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    if is_csv(path) {
        return Ok(vec![read_csv(path, schema)?]);
    }
    let folder = open_folder(path.parent().unwrap_or(Path::new(".")))?;
    folder.read_reference(&path.file_name().unwrap_or_default().to_string_lossy(), schema).await
}

/// What `read` makes of a file that was not written to meanwhile: half a file would be taken for the whole, and an inner
/// join would drop what the other half holds. A writer that pauses for longer is not noticed: a new
/// file that is renamed into the old one's place always is whole.
async fn whole<T, F: Future<Output = Result<T>>>(path: &Path, read: impl Fn() -> F) -> Result<T> {
    let state = || std::fs::metadata(path).and_then(|file| Ok((file.len(), file.modified()?))).ok();
    for _ in 0..FILE_TRIES {
        let before = state();
        let rows = read().await;
        tokio::time::sleep(FILE_PAUSE).await;
        if state() == before {
            return rows;
        }
    }
    Err(Error::retry(format!(
        "{} is being written all the time: write a new file and rename it to the old one's name",
        path.display()
    )))
}

fn is_csv(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
}

/// The declared columns, by name and type: exactly as they are, or not at all.
pub(crate) fn declared(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| {
        let have = rows.column_by_name(field.name());
        let have = have.ok_or_else(|| Error::stop(format!("there is no column `{}`", field.name())))?;
        // A plan that was promised a value fails at a null, in the middle of a batch.
        if let Some(row) = (0..have.len()).find(|row| !field.is_nullable() && have.is_null(*row)) {
            let name = field.name();
            return Err(Error::stop(format!("row {} of column `{name}` is null, and declared `not null`", row + 1)));
        }
        exactly(have, field.data_type()).map_err(|row| {
            let (have, want) = (type_name(have.data_type()), type_name(field.data_type()));
            let row = row.map_or_else(String::new, |row| format!("row {} of ", row + 1));
            let (name, hint) = (field.name(), "declare a type that holds it, or change the value");
            Error::stop(format!("{row}column `{name}` is a {have} that is no {want}: {hint}"))
        })
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|error| Error::stop("internal: reference columns differ in length").caused_by(error))
}

/// The values as another type, if every one of them is that; else the first row that is not, or none when the types have
/// nothing to do with each other.
fn exactly(have: &ArrayRef, want: &DataType) -> Result<ArrayRef, Option<usize>> {
    let is = have.data_type();
    if is == want {
        return Ok(Arc::clone(have));
    }
    // Arrow makes a null of what can't be cast, and rounds what has too many digits: there and back tells both.
    let cast_to = |column: &ArrayRef, data_type: &DataType| cast(column, data_type).map_err(|_| None);
    let values = cast_to(have, want)?;
    let (number, approximate) = (|of: &DataType| of.is_numeric() || of.is_temporal(), |of: &DataType| of.is_floating());
    let differs: Box<dyn Fn(usize) -> bool> = if number(is) && number(want) && !(approximate(is) && approximate(want)) {
        let back = cast_to(&values, is)?;
        let changed = arrow::compute::kernels::cmp::distinct(have, &back).map_err(|_| None)?;
        Box::new(move |row| changed.value(row))
    } else {
        Box::new(|_| false)
    };
    match (0..have.len()).find(|row| (have.is_valid(*row) && values.is_null(*row)) || differs(*row)) {
        Some(row) => Err(Some(row)),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{AsArray as _, Decimal128Array, Float64Array, Int64Array, StringArray},
        datatypes::{Float32Type, Int32Type},
    };

    use super::*;

    #[test]
    fn a_null_in_a_column_that_has_none_is_refused() {
        let rows = RecordBatch::try_from_iter_with_nullable([(
            "v",
            Arc::new(Int64Array::from(vec![Some(1), None])) as _,
            true,
        )]);
        let schema = |nullable| Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, nullable)]));
        let rows = rows.unwrap();
        let refused = declared(&rows, &schema(false)).unwrap_err().to_string();
        assert_eq!(refused, "row 2 of column `v` is null, and declared `not null`");
        assert!(declared(&rows, &schema(true)).is_ok() && declared(&rows.slice(0, 1), &schema(false)).is_ok());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, "k,v\n1,1\n2,\n").unwrap();
        let refused = read_csv(&path, &schema(false)).unwrap_err().to_string();
        assert!(refused.ends_with("t.csv:3: field `v`: is empty, and declared `not null`"), "{refused}");
    }

    fn as_type(have: ArrayRef, want: DataType) -> Result<ArrayRef, String> {
        let rows = RecordBatch::try_from_iter([("v", have)]).unwrap();
        let schema = Arc::new(Schema::new(vec![Field::new("v", want, true)]));
        declared(&rows, &schema).map(|rows| rows.column(0).clone()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_file_that_is_being_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, schema) =
            (folder.path().join("t.csv"), Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, true)])));
        std::fs::write(&path, "n\n1\n").unwrap();
        let reads = std::cell::Cell::new(0);
        let rows = whole(&path, || async {
            let rows = read_file(&path, &schema).await;
            reads.set(reads.get() + 1);
            if reads.get() == 1 {
                std::fs::write(&path, "n\n1\n2\n").unwrap();
            }
            rows
        });
        assert_eq!(rows.await.unwrap()[0].num_rows(), 2, "the other half came while the first was read");
        assert_eq!(reads.get(), 2);
    }

    #[test]
    fn a_value_that_does_not_fit_is_told_with_its_column_and_row() {
        let large: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None, Some(3_000_000_000)]));
        let told = as_type(large.clone(), DataType::Int32).unwrap_err();
        assert!(told.contains("row 3 of column `v`") && told.contains("int"), "{told}");
        let mills: ArrayRef =
            Arc::new(Decimal128Array::from(vec![1_000, 1_005]).with_precision_and_scale(9, 3).unwrap());
        let told = as_type(mills, DataType::Decimal128(9, 2)).unwrap_err();
        assert!(told.contains("row 2 of column `v`") && told.contains("decimal(9,2)"), "{told}");
        let halves: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 1.5]));
        assert!(as_type(halves.clone(), DataType::Int64).unwrap_err().contains("row 2"));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["1", "x"]));
        assert!(as_type(texts, DataType::Int64).unwrap_err().contains("row 2"));

        let fits = as_type(large.slice(0, 2), DataType::Int32).unwrap();
        assert_eq!(fits.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [Some(7), None]);
        assert!(as_type(halves, DataType::Decimal128(18, 2)).is_ok());
        // A float is an approximation by its nature.
        let tenth: ArrayRef = Arc::new(Float64Array::from(vec![0.1]));
        assert_eq!(as_type(tenth, DataType::Float32).unwrap().as_primitive::<Float32Type>().value(0), 0.1);
    }
}
