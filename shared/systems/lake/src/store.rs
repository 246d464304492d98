use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use millstream_core::{Address, Connect, Env, Error, Result, Sink, Table, TableStore, TextRows};
use object_store::{ObjectStore, path::Path};

use crate::{LakeSink, file::widen, open, read_parquet};

/// Says where the lake is.
const ADDRESS: Address = Address { variable: "MILLSTREAM_LAKE_URL", example: "a folder" };

/// A folder of tables, as a store of tables.
pub struct Lake {
    store: Arc<dyn ObjectStore>,
    place: String,
}

impl Lake {
    /// The lake in `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// `Stop` when it can't be made or opened.
    pub fn at(folder: &str) -> Result<Self> {
        Ok(Self { store: open(folder)?, place: folder.to_owned() })
    }
}

impl Connect for Lake {
    const ADDRESS: Address = ADDRESS;

    fn check(env: &Env) -> Result<bool> {
        Ok(find_folder(env)?.is_some())
    }

    /// Makes the folder if it is missing.
    fn open(env: &Env) -> Result<Option<Self>> {
        find_folder(env)?.map(|folder| Self::at(&folder)).transpose()
    }
}

/// The folder that the address names.
fn find_folder(env: &Env) -> Result<Option<String>> {
    let Some(url) = env.find_path_address(ADDRESS)? else { return Ok(None) };
    let folder = url.strip_prefix("file://").unwrap_or(&url);
    match folder.split_once("://") {
        // The rest of the address is left out: it may hold a secret.
        Some((scheme, _)) => Err(Error::stop(format!(
            "{} begins with `{scheme}://`; a lake is a folder (file:///PATH) for now",
            ADDRESS.variable
        ))),
        None => Ok(Some(folder.to_owned())),
    }
}

#[async_trait]
impl TableStore for Lake {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn sink(&self, function: &str, table: Table) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(LakeSink::new(Arc::clone(&self.store), "", function, table)))
    }

    async fn read_reference(&self, name: &str, _schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        if name.to_ascii_lowercase().ends_with(".csv") {
            let hint = "put a CSV file into the pipeline's folder: `file: …`";
            return Err(Error::stop(format!("a reference in the lake is Parquet; {hint}")));
        }
        read_parquet(self.store.as_ref(), &Path::from(name)).await
    }

    async fn read_public(&self, table: &Table, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let folder = Path::from(table.public_name());
        let rows = read_parquet(self.store.as_ref(), &folder).await?;
        rows.iter().map(|rows| widen(rows, schema, &folder)).collect()
    }

    async fn newest_rows(&self, _table: &Table, _limit: usize) -> Result<Option<TextRows>> {
        Ok(None)
    }

    fn how_to_reset(&self, _function: &str, name: &str) -> String {
        format!("remove the folder {name} of the lake")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lake_is_a_folder_for_now() {
        let find = |value: &str| find_folder(&Env::of([(ADDRESS.variable, value)])).map_err(|error| error.to_string());
        assert_eq!(find_folder(&Env::default()).unwrap(), None);
        assert_eq!(find("embedded"), Ok(None));
        assert_eq!(find("file:///data/lake"), Ok(Some("/data/lake".to_owned())));
        assert_eq!(find("data/lake"), Ok(Some("data/lake".to_owned())));
        let expected = "MILLSTREAM_LAKE_URL begins with `s3://`; a lake is a folder (file:///PATH) for now";
        assert_eq!(find("s3://bucket/path").unwrap_err(), expected);
        assert!(find(" ").unwrap_err().starts_with("MILLSTREAM_LAKE_URL is set and empty"));
    }
}
