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
        Ok(Self { at: Opened { store: open_folder(folder)?, root: Path::default(), name } })
    }

    fn table(&self, function: &str, table: Table) -> LakeSink {
        LakeSink::new(Arc::clone(&self.at.store), self.at.root.clone(), function, table)
    }

    /// A file or folder beneath the lake's root.
    fn path(&self, name: &str) -> Path {
        self.at.root.parts().chain(Path::from(name).parts()).collect()
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
    use arrow::datatypes::DataType;
    use futures::TryStreamExt as _;
    use millstream_core::{Column, Role};
    use object_store::{ObjectMeta, ObjectStore as _};

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

    fn lake_at(address: &str) -> Lake {
        let place = Place::parse(address).unwrap();
        let store = Arc::new(object_store::memory::InMemory::new());
        Lake { at: Opened { store, root: place.root(), name: address.to_owned() } }
    }

    /// Keys are what the address says, byte for byte, as other tools take it.
    #[tokio::test]
    async fn no_prefix_is_encoded() {
        let column = Column { name: "a".into(), data_type: DataType::Int64, nullable: true, role: Role::Value };
        let table = Table { name: "t".into(), columns: vec![column], combine: None, view: None };
        for prefix in ["a~b/c%20d", "größe [1]", "plain"] {
            let lake = lake_at(&format!("s3://bucket/{prefix}"));
            lake.sink("p.f", table.clone()).unwrap().prepare(true).await.unwrap();
            let objects: Vec<ObjectMeta> = lake.at.store.list(None).try_collect().await.unwrap();
            let keys: Vec<&str> = objects.iter().map(|object| object.location.as_ref()).collect();
            assert_eq!(keys, [format!("{prefix}/t/_table.columns")]);
            assert_eq!(lake.path("t/x.csv").as_ref(), format!("{prefix}/t/x.csv"));
        }
    }

    #[tokio::test]
    async fn tables_and_references_are_beneath_the_prefix() {
        let lake = lake_at("s3://bucket/some/where");
        assert_eq!(lake.path("rates.parquet").as_ref(), "some/where/rates.parquet");
        let said = lake.read_reference("rates.parquet", &SchemaRef::new(arrow::datatypes::Schema::empty())).await;
        let said = said.unwrap_err().to_string();
        assert!(said.contains("there is no Parquet file at some/where/rates.parquet"), "{said}");
        assert!(lake.how_to_reset("f", "t").ends_with("s3://bucket/some/where/t"));
    }
}
