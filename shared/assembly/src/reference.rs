use std::{path::Path, sync::Arc, time::Duration};

use arrow::{
    array::{Array, ArrayRef, RecordBatch},
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use millstream_core::{Error, Result};
use millstream_pipeline::{Pipeline, ReferenceFrom};
use millstream_sql::ReferenceTable;
use tokio::{task::JoinSet, time::Instant};

use crate::{Systems, read_csv, systems::TableSystem, type_name};

/// How often a file that changes while it is read is read again, and how long it must have been still.
const FILE_TRIES: usize = 20;
const FILE_PAUSE: Duration = Duration::from_millis(100);

/// Loads the rows of the references that a function joins.
pub async fn load_all(systems: &Systems, pipeline: &Pipeline, references: &[Arc<ReferenceTable>]) -> Result<()> {
    for table in references {
        let Some(declared) = pipeline.references.get(&table.name) else { continue };
        let rows = load(systems, pipeline, &declared.from, &table.schema).await;
        table.set(rows.map_err(|error| error.context(format_args!("reference `{}`", table.name)))?);
    }
    Ok(())
}

/// Loads references again whenever their `refresh` has passed. When that fails, the rows of before stay, with a warning:
/// a reference that is away for a while must not stop a stream.
pub fn keep_fresh(systems: &Systems, pipeline: &Pipeline, references: &[Arc<ReferenceTable>]) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for table in references {
        let Some(declared) = pipeline.references.get(&table.name) else { continue };
        let Some(refresh_ms) = declared.refresh_ms else { continue };
        let (systems, pipeline, table, from) =
            (systems.clone(), pipeline.clone(), Arc::clone(table), declared.from.clone());
        tasks.spawn(async move {
            let mut loaded = Instant::now();
            loop {
                tokio::time::sleep(Duration::from_millis(refresh_ms.unsigned_abs())).await;
                match load(&systems, &pipeline, &from, &table.schema).await {
                    Ok(rows) => {
                        table.set(rows);
                        loaded = Instant::now();
                    }
                    Err(error) => {
                        let age_s = loaded.elapsed().as_secs();
                        tracing::warn!(reference = table.name, age_s, %error, "not refreshed; the rows of {age_s} s ago stay")
                    }
                }
            }
        });
    }
    tasks
}

async fn load(
    systems: &Systems,
    pipeline: &Pipeline,
    from: &ReferenceFrom,
    schema: &SchemaRef,
) -> Result<Vec<RecordBatch>> {
    let rows = match from {
        ReferenceFrom::File(path) => {
            let path = pipeline.path(path);
            whole(&path, || read_file(&path, schema)).await?
        }
        ReferenceFrom::Lake(path) if is_csv(path) => {
            return Err(Error::stop(
                "a reference in the lake is Parquet; put a CSV file beside the pipeline: `file: …`",
            ));
        }
        ReferenceFrom::Lake(path) => {
            let path = millstream_lake::Path::from(path.display().to_string());
            millstream_lake::read_parquet(systems.lake().as_ref(), &path).await?
        }
        ReferenceFrom::Postgres(table) => match systems.references() {
            TableSystem::Postgres(pool) => millstream_postgres::read_table(pool, table, schema).await?,
            TableSystem::Embedded(embedded) => embedded.read_table(table, Arc::clone(schema)).await?,
        },
    };
    rows.iter().map(|rows| declared(rows, schema)).collect()
}

async fn read_file(path: &Path, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    if is_csv(path) {
        return Ok(vec![read_csv(path, schema)?]);
    }
    let folder = path.parent().unwrap_or(Path::new(".")).display().to_string();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let store = millstream_lake::open(&folder)?;
    millstream_lake::read_parquet(store.as_ref(), &millstream_lake::Path::from(name)).await
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
fn declared(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| {
        let have = rows.column_by_name(field.name());
        let have = have.ok_or_else(|| Error::stop(format!("there is no column `{}`", field.name())))?;
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
    let differs: Box<dyn Fn(usize) -> bool> =
        match number(is) && number(want) && !(approximate(is) && approximate(want)) {
            true => {
                let back = cast_to(&values, is)?;
                let changed = arrow::compute::kernels::cmp::distinct(have, &back).map_err(|_| None)?;
                Box::new(move |row| changed.value(row))
            }
            false => Box::new(|_| false),
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
