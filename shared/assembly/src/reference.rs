use std::{path::Path, sync::Arc, time::Duration};

use arrow::{
    array::RecordBatch,
    compute::cast,
    datatypes::{Schema, SchemaRef},
};
use millstream_core::{Error, Result};
use millstream_pipeline::{Pipeline, ReferenceFrom};
use millstream_sql::ReferenceTable;
use tokio::task::JoinSet;

use crate::{Systems, read_csv, systems::TableSystem};

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
            loop {
                tokio::time::sleep(Duration::from_millis(refresh_ms.unsigned_abs())).await;
                match load(&systems, &pipeline, &from, &table.schema).await {
                    Ok(rows) => table.set(rows),
                    Err(error) => {
                        tracing::warn!(reference = table.name, %error, "not refreshed; the rows of before stay")
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
            if is_csv(&path) {
                vec![read_csv(&path, schema)?]
            } else {
                let folder = path.parent().unwrap_or(Path::new(".")).display().to_string();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let store = millstream_lake::open(&folder)?;
                millstream_lake::read_parquet(store.as_ref(), &millstream_lake::Path::from(name)).await?
            }
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
        ReferenceFrom::Postgres(table) => match systems.tables() {
            TableSystem::Postgres(pool) => millstream_postgres::read_table(pool, table, schema).await?,
            TableSystem::Embedded(embedded) => embedded.read_table(table, Arc::clone(schema)).await?,
        },
    };
    rows.iter().map(|rows| declared(rows, schema)).collect()
}

fn is_csv(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
}

/// The declared columns, by name and type.
fn declared(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &Arc<arrow::datatypes::Field>| {
        let have = rows.column_by_name(field.name());
        let have = have.ok_or_else(|| Error::stop(format!("there is no column `{}`", field.name())))?;
        cast(have, field.data_type()).map_err(|error| {
            Error::stop(format!("column `{}` is not {}", field.name(), field.data_type())).caused_by(error)
        })
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|error| Error::stop("internal: reference columns differ in length").caused_by(error))
}
