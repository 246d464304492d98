use std::{path::Path as FilePath, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use millstream_core::{Address, Connect, Env, PartitionBy, Result, Sink, Table, TableStore, TextRows};
use object_store::path::Path;

use crate::{
    LakeSink, Opened,
    file::{read_bytes, widen},
    folder::open_folder,
    open,
    place::Place,
    read_parquet,
};

/// Says where the lake is.
pub(crate) const ADDRESS: Address =
    Address { variable: "MILLSTREAM_LAKE_URL", example: "a folder, s3://BUCKET/PREFIX or az://CONTAINER/PREFIX" };

/// A folder of tables, as a store of tables.
pub struct Lake {
    at: Opened,
}

impl Lake {
    /// The lake in `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// `Stop` when it can't be made or opened.
    pub fn at(folder: &FilePath) -> Result<Self> {
        let name = folder.display().to_string();
        Ok(Self { at: Opened { store: open_folder(folder)?, root: String::new(), name } })
    }

    fn table(&self, function: &str, table: Table) -> LakeSink {
        LakeSink::new(Arc::clone(&self.at.store), &self.at.root, function, table)
    }

    /// A file or folder beneath the lake's root.
    fn path(&self, name: &str) -> Path {
        Path::from(format!("{}/{name}", self.at.root))
    }
}

impl Connect for Lake {
    const ADDRESS: Address = ADDRESS;

    fn check(env: &Env) -> Result<bool> {
        let address = env.find_path_address(ADDRESS)?;
        Ok(address.map(|address| Place::parse(&address)).transpose()?.is_some())
    }

    /// Makes the folder if it is missing.
    fn open(env: &Env) -> Result<Option<Self>> {
        let address = env.find_path_address(ADDRESS)?;
        address.map(|address| Ok(Self { at: open(&address, env)? })).transpose()
    }
}

#[async_trait]
impl TableStore for Lake {
    fn place(&self) -> String {
        self.at.name.clone()
    }

    fn sink(&self, function: &str, table: Table) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(self.table(function, table)))
    }

    fn sink_in_folders(&self, function: &str, table: Table, by: PartitionBy) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(self.table(function, table).partition_by(by)))
    }

    async fn read_reference(&self, name: &str, _schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        read_parquet(self.at.store.as_ref(), &self.path(name)).await
    }

    async fn read_file(&self, name: &str) -> Result<Vec<u8>> {
        read_bytes(self.at.store.as_ref(), &self.path(name)).await
    }

    async fn read_public(&self, table: &Table, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let folder = self.path(table.public_name());
        let rows = read_parquet(self.at.store.as_ref(), &folder).await?;
        rows.iter().map(|rows| widen(rows, schema, &folder)).collect()
    }

    async fn newest_rows(&self, _table: &Table, _limit: usize) -> Result<Option<TextRows>> {
        Ok(None)
    }

    fn how_to_reset(&self, _function: &str, name: &str) -> String {
        format!("remove {name} of the lake, and all that is beneath it: {}/{name}", self.at.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_and_embedded_is_none() {
        let check = |value: &str| Lake::check(&Env::of([(ADDRESS.variable, value)])).map_err(|error| error.to_string());
        assert!(!Lake::check(&Env::default()).unwrap());
        assert_eq!(check("embedded"), Ok(false));
        assert_eq!(check("file:///data/lake"), Ok(true));
        assert_eq!(check("s3://bucket/path"), Ok(true));
        assert!(check("gs://bucket/path").unwrap_err().starts_with("MILLSTREAM_LAKE_URL begins with `gs://`"));
        assert!(check(" ").unwrap_err().starts_with("MILLSTREAM_LAKE_URL is set and empty"));
    }

    #[tokio::test]
    async fn tables_and_references_are_beneath_the_prefix() {
        let at = Opened {
            store: Arc::new(object_store::memory::InMemory::new()),
            root: "some/where".into(),
            name: "s3://bucket/some/where".into(),
        };
        let lake = Lake { at };
        assert_eq!(lake.path("rates.parquet").as_ref(), "some/where/rates.parquet");
        let said = lake.read_reference("rates.parquet", &SchemaRef::new(arrow::datatypes::Schema::empty())).await;
        let said = said.unwrap_err().to_string();
        assert!(said.contains("there is no Parquet file at some/where/rates.parquet"), "{said}");
        assert!(lake.how_to_reset("f", "t").ends_with("s3://bucket/some/where/t"));
    }
}
