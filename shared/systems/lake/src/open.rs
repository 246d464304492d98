use std::{fmt, sync::Arc};

use millstream_core::{Env, Result};
use object_store::{ObjectStore, path::Path};

use crate::{bucket::Bucket, clouds, folder::open_folder, place::Place};

/// A store of objects that is open, and where a lake is in it.
#[derive(Clone)]
pub struct Opened {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The folder or prefix in it that the tables are beneath; empty for its top.
    pub root: Path,
    /// What to call the place in front of a person.
    pub name: String,
}

/// Opens the lake at `address`: a folder, as a path or as `file:///PATH`, which is created if it is missing;
/// `s3://BUCKET/PREFIX`; `az://CONTAINER/PREFIX` or `abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX`. Credentials,
/// region and endpoint of the latter are in the clouds' own variables, `AWS_…` and `AZURE_…` of `env`. Nothing is sent yet.
///
/// # Errors
/// `Stop` for an address or a setting that can't be used, and when a folder can't be created.
pub fn open(address: &str, env: &Env) -> Result<Opened> {
    let place = Place::parse(address)?;
    let bucket = |store| Arc::new(Bucket::new(store, place.name())) as Arc<dyn ObjectStore>;
    let store = match &place {
        Place::Folder(folder) => open_folder(folder)?,
        Place::S3 { bucket: name, .. } => bucket(clouds::s3(env, name)?),
        Place::Azure { container, account, .. } => bucket(clouds::azure(env, container, account.as_ref())?),
    };
    let root = place.root();
    let name = if root.as_ref().is_empty() { place.name() } else { format!("{}/{root}", place.name()) };
    Ok(Opened { store, root, name })
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opened({})", self.name)
    }
}
