//! Who fills a table, as the object `_owner.json` of its folder: see [`millstream_core::Owner`].

use futures::StreamExt as _;
use millstream_core::{Claim, Error, Holding, Owner, OwnerRecord, Result, Rows};
use object_store::{Error as StoreError, ObjectStoreExt as _, PutMode, UpdateVersion};
use serde::{Deserialize, Serialize};

use crate::{LakeSink, chain::other_owner, failure::not_there_after_all, names::Layout, store_error};

/// What is in the object.
#[derive(Serialize, Deserialize)]
struct OwnerObject {
    /// Where it has no time yet, its term began when the object was written.
    #[serde(flatten)]
    record: OwnerRecord,
    /// The records before it, the oldest first.
    #[serde(default)]
    changes: Vec<OwnerRecord>,
}

impl OwnerObject {
    /// Is it what `written` was written as? The time of a new term is only known from the object.
    fn is(mut self, written: &Self) -> bool {
        if written.record.since.is_empty() {
            self.record.since.clear();
        }
        self.record == written.record && self.changes == written.changes
    }
}

impl LakeSink {
    /// See [`millstream_core::Sink::holding`]. Fences lie in the table's own folder, so no other table can be the function's.
    pub(crate) async fn find_holding(&self) -> Result<Holding> {
        let record = self.owner_object().await?.map(|(object, _)| object.record);
        // Files first: their fences are then there too.
        let rows = self.rows().await?;
        let mut fences = Vec::new();
        for partition in self.partitions().await? {
            if let Some(chain) = self.look_at_chain(&partition).await? {
                fences.push((partition, chain.fence));
            }
        }
        let written = fences.iter().any(|(_, fence)| fence.rows > 0);
        // Rows may have come meanwhile.
        let rows = if rows == Rows::Empty && written { self.rows().await? } else { rows };
        Ok(Holding { record, others: Vec::new(), fences, rows })
    }

    /// Reads the listing up to the first file of rows.
    async fn rows(&self) -> Result<Rows> {
        let declared = [Layout::Current, Layout::Dated].map(|layout| self.names.declaration(layout));
        let mut objects = self.store.list(Some(self.names.table()));
        let mut rows = Rows::Missing;
        while let Some(object) = objects.next().await {
            let path = object.map_err(|error| store_error("listing", self.names.table(), error))?.location;
            if self.names.is_data(&path) {
                return Ok(Rows::Present);
            }
            if declared.contains(&path) {
                rows = Rows::Empty;
            }
        }
        Ok(rows)
    }

    /// See [`millstream_core::Sink::claim`]. A claim that ends in the middle is made again.
    pub(crate) async fn put_owner(&self, owner: &Owner, claim: &Claim) -> Result<Option<OwnerRecord>> {
        let found = self.owner_object().await?;
        let expected = claim.expected();
        if found.as_ref().map(|(object, _)| &object.record) != expected {
            return Ok(None);
        }
        if let Claim::Adopt(_) = claim {
            self.take_fences(found.as_ref().map(|(object, _)| object.record.owner.function.as_str())).await?;
        }
        let (mut changes, version) =
            found.map_or_else(|| (Vec::new(), None), |(object, version)| (object.changes, Some(version)));
        let (term, since) = match (claim, expected) {
            (Claim::Renew(record), _) => (record.term, record.since.clone()),
            (_, before) => {
                changes.extend(before.cloned());
                (before.map_or(0, |before| before.term) + 1, String::new())
            }
        };
        let table = self.table.public_name().to_owned();
        let record = OwnerRecord { table, owner: owner.clone(), term, since, adopted: claim.is_adopted() };
        let object = OwnerObject { record: record.clone(), changes };
        Ok(self.put_object(&object, version).await?.then_some(record))
    }

    /// False when another process has written the object meanwhile.
    async fn put_object(&self, object: &OwnerObject, version: Option<UpdateVersion>) -> Result<bool> {
        let path = self.names.owner();
        let bytes = serde_json::to_vec(object)
            .map_err(|error| Error::stop("lake: internal: an owner has no JSON form").caused_by(error))?;
        let mode = version.map_or(PutMode::Create, PutMode::Update);
        let mut put = self.store.put_opts(&path, bytes.clone().into(), mode.into()).await;
        if let Err(StoreError::NotImplemented { .. }) = put {
            put = self.store.put(&path, bytes.into()).await;
        }
        match put {
            Ok(_) => Ok(true),
            // The client repeats a put whose answer was lost, and then meets its own.
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => match self.owner_object().await?
            {
                Some((there, _)) => Ok(there.is(object)),
                None => Err(not_there_after_all(path)),
            },
            Err(error) => Err(store_error("recording the owner", path, error)),
        }
    }

    async fn owner_object(&self) -> Result<Option<(OwnerObject, UpdateVersion)>> {
        let path = self.names.owner();
        let found = match self.store.get(&path).await {
            Ok(found) => found,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(store_error("reading the owner", path, error)),
        };
        let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        let modified = found.meta.last_modified;
        let bytes = found.bytes().await.map_err(|error| store_error("reading the owner", &path, error))?;
        let mut object: OwnerObject = serde_json::from_slice(&bytes).map_err(|error| {
            Error::stop(format!("lake: {path} is damaged: put back its last good copy")).caused_by(error)
        })?;
        if object.record.since.is_empty() {
            object.record.since = modified.format("%Y-%m-%d %H:%M:%S UTC").to_string();
        }
        Ok(Some((object, version)))
    }

    /// Makes the fences of `before` those of this sink's function, without the rows that they have counted: each one at the end
    /// of its chain, since the files below carry the old name.
    async fn take_fences(&self, before: Option<&str>) -> Result<()> {
        let before = before.unwrap_or(&self.function);
        let old = self.of(before);
        let objects = self.list(&self.names.fences()).await?;
        for partition in objects.iter().filter_map(|path| self.names.partition_of_any_fence(path)) {
            let path = self.names.fence(&partition);
            let Some((object, _)) = self.any_fence_object(&partition).await? else { continue };
            // Those of an adoption that ended in the middle are this function's already.
            let of = if object.function == self.function { self } else { &old };
            let Some(mut chain) = of.read_chain(&partition).await? else {
                return Err(other_owner(&object.function, before, &path));
            };
            chain.fence.rows = 0;
            let put = self.store.put(&path, self.fence_bytes(&chain)?.into()).await;
            put.map_err(|error| store_error("moving the fence", path, error))?;
        }
        Ok(())
    }
}
