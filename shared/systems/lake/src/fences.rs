//! The fence objects: where a reader of a partition's chain starts.

use millstream_core::{Error, Result, TopicPartition};
use object_store::{Error as StoreError, ObjectStoreExt as _, PutMode, UpdateVersion};
use serde::{Deserialize, Serialize};

use crate::{LakeSink, chain::Chain, store_error};

/// How many times a fence object is moved while others move it too. Giving up is harmless: the chain is the truth.
const MAX_MOVES: usize = 5;

/// What is in a fence object.
#[derive(Serialize, Deserialize)]
pub(crate) struct FenceObject {
    pub(crate) function: String,
    #[serde(flatten)]
    pub(crate) chain: Chain,
}

impl LakeSink {
    /// What the fence object holds: some boundary of the chain. `None` when there is none, or it is another function's.
    pub(crate) async fn fence_object(&self, partition: &TopicPartition) -> Result<Option<(Chain, UpdateVersion)>> {
        let found = self.any_fence_object(partition).await?;
        let own = found.filter(|(object, _)| object.function == self.function);
        Ok(own.map(|(object, version)| (object.chain, version)))
    }

    pub(crate) async fn any_fence_object(
        &self,
        partition: &TopicPartition,
    ) -> Result<Option<(FenceObject, UpdateVersion)>> {
        let path = self.names.fence(partition);
        let object = match self.store.get(&path).await {
            Ok(object) => object,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(store_error("reading the fence", path, error)),
        };
        let version = UpdateVersion { e_tag: object.meta.e_tag.clone(), version: object.meta.version.clone() };
        let bytes = object.bytes().await.map_err(|error| store_error("reading the fence", &path, error))?;
        let object = serde_json::from_slice(&bytes).map_err(|error| {
            Error::stop(format!("lake: the fence {path} is damaged: put back its last good copy")).caused_by(error)
        })?;
        Ok(Some((object, version)))
    }

    /// Moves the fence object to `chain` unless it is there or further: by compare-and-swap where the store has it. Without
    /// that, two movers may leave the lower boundary, from which the names lead to the same end.
    pub(crate) async fn move_fence(&self, partition: &TopicPartition, chain: &Chain) -> Result<()> {
        let path = self.names.fence(partition);
        for _ in 0..MAX_MOVES {
            let Some((there, version)) = self.fence_object(partition).await? else {
                self.cache().remove(partition);
                return Err(Error::stop(format!(
                    "lake: the fence {path} is gone, or another function's: it was removed while this process wrote, and the \
                     last file of it may lie in the table. Stop all processes of {}; if it was reset, reset it once more, so \
                     that those files go too; then start it again",
                    self.function
                )));
            };
            if there.fence.next_offset >= chain.fence.next_offset {
                return Ok(());
            }
            let bytes = self.fence_bytes(chain)?;
            let mut put = self.store.put_opts(&path, bytes.clone().into(), PutMode::Update(version).into()).await;
            if let Err(StoreError::NotImplemented { .. }) = put {
                put = self.store.put(&path, bytes.into()).await;
            }
            match put {
                Ok(_) => return Ok(()),
                Err(StoreError::Precondition { .. }) => {}
                Err(error) => return Err(store_error("moving the fence", path, error)),
            }
        }
        Ok(())
    }

    pub(crate) fn fence_bytes(&self, chain: &Chain) -> Result<Vec<u8>> {
        let object = FenceObject { function: self.function.clone(), chain: chain.clone() };
        serde_json::to_vec(&object)
            .map_err(|error| Error::stop("lake: internal: a fence has no JSON form").caused_by(error))
    }

    /// The partitions that have a fence object.
    pub(crate) async fn partitions(&self) -> Result<Vec<TopicPartition>> {
        let objects = self.list(&self.names.fences()).await?;
        Ok(objects.iter().filter_map(|path| self.names.partition_of_fence(path)).collect())
    }
}
