use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{RecordBatch, new_null_array},
    compute::cast,
    datatypes::{Schema, SchemaRef},
};
use futures::TryStreamExt;
use millstream_core::{Error, Result};
use object_store::{GetResult, ObjectStore, ObjectStoreExt, UpdateVersion, path::Path};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder, parquet_to_arrow_schema},
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::{KeyValue, ParquetMetaDataReader},
        properties::WriterProperties,
    },
};

use crate::store_error;

/// The most bytes of Parquet that [`read_parquet`] takes: what it reads is held in memory, uncompressed.
pub const MAX_READ_BYTES: u64 = 256 * 1024 * 1024;

/// How many bytes at the end of a file are read first; footers of ordinary tables fit.
const FOOTER_BYTES: u64 = 16 * 1024;

/// Who writes the files, in the form of the format. There are readers that distrust the statistics of a file, and don't use
/// them, unless they can read the version and the build.
const CREATED_BY: &str =
    concat!("millstream version ", env!("CARGO_PKG_VERSION"), " (build ", env!("CARGO_PKG_VERSION"), ")");

/// The metadata of a file.
pub(crate) struct Footer {
    /// Its key-value metadata.
    pub(crate) marks: HashMap<String, String>,
    /// Its columns.
    pub(crate) schema: Schema,
    /// Its version, or an earlier one.
    pub(crate) version: UpdateVersion,
}

/// A Parquet file of `rows`, which have `schema`, with `marks` in its footer.
pub(crate) async fn encode(
    schema: &SchemaRef,
    rows: &[RecordBatch],
    marks: Vec<(&'static str, String)>,
) -> Result<Vec<u8>> {
    let (schema, rows) = (schema.clone(), rows.to_vec());
    let bytes = tokio::task::spawn_blocking(move || encode_now(schema, &rows, marks)).await;
    bytes
        .map_err(|error| Error::retry("lake: writing Parquet was interrupted").caused_by(error))?
        .map_err(|error| Error::stop("lake: these columns can't be written as Parquet").caused_by(error))
}

fn encode_now(
    schema: SchemaRef,
    rows: &[RecordBatch],
    marks: Vec<(&'static str, String)>,
) -> Result<Vec<u8>, ParquetError> {
    let marks = marks.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect();
    let properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_key_value_metadata(Some(marks))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
    for batch in rows {
        writer.write(batch)?;
    }
    writer.into_inner()
}

/// The footer of the object at `path`; `None` when there is no such object.
pub(crate) async fn read_footer(store: &dyn ObjectStore, path: &Path) -> Result<Option<Footer>> {
    let (size, version) = match store.head(path).await {
        Ok(object) => (object.size, UpdateVersion { e_tag: object.e_tag, version: object.version }),
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(store_error("reading", path, error)),
    };
    let mut reader = ParquetMetaDataReader::new();
    let mut tail_bytes = FOOTER_BYTES.min(size);
    // At most three rounds: the tail, then the footer whose length the tail contains, then all of it.
    for _ in 0..3 {
        let tail = store.get_range(path, size - tail_bytes..size).await;
        let tail = tail.map_err(|error| store_error("reading", path, error))?;
        match reader.try_parse_sized(&tail, size) {
            Ok(()) => break,
            Err(ParquetError::NeedMoreData(needed)) => tail_bytes = (needed as u64).min(size),
            Err(error) => return Err(not_parquet(path, error)),
        }
    }
    let metadata = reader.finish().map_err(|error| not_parquet(path, error))?;
    let file = metadata.file_metadata();
    let schema = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata());
    let marks = file.key_value_metadata().into_iter().flatten();
    Ok(Some(Footer {
        version,
        marks: marks.filter_map(|mark| Some((mark.key.clone(), mark.value.clone()?))).collect(),
        schema: schema.map_err(|error| not_parquet(path, error))?,
    }))
}

/// Reads a Parquet file, or all `*.parquet` beneath a folder but for the hidden ones (a part of the path that begins with
/// `_` or `.`), in order of their names: what a reference table is loaded from.
///
/// # Errors
/// `Stop` when there is nothing at `path`, when it is more than [`MAX_READ_BYTES`], or is not Parquet; `Retry` when the
/// store fails.
pub async fn read_parquet(store: &dyn ObjectStore, path: &Path) -> Result<Vec<RecordBatch>> {
    let mut files = match store.head(path).await {
        Ok(file) => vec![file],
        Err(object_store::Error::NotFound { .. }) => {
            let listed = store.list(Some(path)).try_collect().await;
            let mut listed: Vec<_> = listed.map_err(|error| store_error("listing", path, error))?;
            // An empty object that a console makes for a folder has the folder's own path.
            listed.retain(|file| file.location != *path);
            listed
        }
        Err(error) => return Err(store_error("reading", path, error)),
    };
    files.retain(|file| file.location == *path || is_visible(&file.location, path));
    files.sort_by(|a, b| a.location.cmp(&b.location));
    let bytes: u64 = files.iter().map(|file| file.size).sum();
    if files.is_empty() {
        return Err(Error::stop(format!("lake: there is no Parquet file at {path}")));
    }
    if bytes > MAX_READ_BYTES {
        return Err(Error::stop(format!(
            "lake: {path} holds {bytes} bytes of Parquet; what is held in memory, as a reference, may have {MAX_READ_BYTES}"
        )));
    }
    let mut rows = Vec::new();
    for file in files {
        rows.extend(read_file(store, &file.location).await?);
    }
    Ok(rows)
}

/// The bytes of one object, whatever it holds.
///
/// # Errors
/// `Stop` when there is none, or it is more than [`MAX_READ_BYTES`]; `Retry` when the store fails.
pub(crate) async fn read_bytes(store: &dyn ObjectStore, path: &Path) -> Result<Vec<u8>> {
    let object = match store.get(path).await {
        Ok(object) => object,
        Err(object_store::Error::NotFound { .. }) => {
            return Err(Error::stop(format!("lake: there is no file at {path}")));
        }
        Err(error) => return Err(store_error("reading", path, error)),
    };
    let bytes = object.meta.size;
    if bytes > MAX_READ_BYTES {
        return Err(Error::stop(format!(
            "lake: {path} has {bytes} bytes; what is held in memory, as a reference, may have {MAX_READ_BYTES}"
        )));
    }
    Ok(object.bytes().await.map_err(|error| store_error("reading", path, error))?.to_vec())
}

fn is_visible(path: &Path, folder: &Path) -> bool {
    let hidden = |part: &str| part.starts_with(['_', '.']);
    path.as_ref().ends_with(".parquet")
        && path.prefix_match(folder).is_some_and(|mut parts| !parts.any(|part| hidden(part.as_ref())))
}

/// The rows of one file.
pub(crate) async fn read_file(store: &dyn ObjectStore, path: &Path) -> Result<Vec<RecordBatch>> {
    let bytes = async { store.get(path).await.map(GetResult::bytes)?.await };
    let bytes = bytes.await.map_err(|error| store_error("reading", path, error))?;
    let rows = tokio::task::spawn_blocking(move || {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()?;
        reader.collect::<Result<Vec<_>, _>>().map_err(ParquetError::from)
    });
    rows.await
        .map_err(|error| Error::retry(format!("lake: reading {path} was interrupted")).caused_by(error))?
        .map_err(|error| not_parquet(path, error))
}

/// `rows` with the columns of `schema`: columns that an older file does not have are null.
pub(crate) fn widen(rows: &RecordBatch, schema: &SchemaRef, path: &Path) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| match rows.column_by_name(field.name()) {
        // A column may have got a wider type, and a part of it may have become nullable, since this file was written.
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
    });
    columns
        .collect::<Result<_, _>>()
        .and_then(|columns| RecordBatch::try_new(Arc::clone(schema), columns))
        .map_err(|error| Error::stop(format!("lake: the columns of {path} don't fit the table")).caused_by(error))
}

fn not_parquet(path: &Path, error: ParquetError) -> Error {
    Error::stop(format!("lake: {path} is not a readable Parquet file")).caused_by(error)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_says_which_version_has_written_it() {
        let bytes = encode_now(Arc::new(Schema::empty()), &[], vec![]).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let by = reader.metadata().file_metadata().created_by().unwrap();
        // What the oldest readers look for: `(.+) version (.*) \(build (.*)\)`.
        let (application, rest) = by.split_once(" version ").unwrap();
        let (version, build) = rest.split_once(" (build ").unwrap();
        assert_eq!((application, version), ("millstream", env!("CARGO_PKG_VERSION")));
        assert!(build.strip_suffix(')').is_some_and(|build| !build.is_empty()), "{by}");
    }
}
