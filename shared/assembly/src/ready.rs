use std::sync::Arc;

use millstream_core::Result;
use millstream_host::Work;
use millstream_pipeline::Pipeline;

use crate::{Function, Maker, Making, Systems};

/// A function of a pipeline, ready to be run by a host.
#[derive(Clone)]
pub enum Ready {
    /// It reads topics.
    Reader(Arc<Function>),
    /// It makes records.
    Maker(Arc<Maker>),
}

impl Ready {
    /// What a host runs. Keep `self` as long as the host runs it: it also keeps a reader's references fresh.
    pub fn work(&self, systems: &Systems) -> Work {
        match self {
            Self::Reader(function) if function.is_fed => Work::CatchUp {
                source: systems.source(),
                subscription: function.subscription.clone(),
                process: function.runner.clone(),
                clock: Arc::clone(systems.clock()),
            },
            Self::Reader(function) => Work::Read {
                source: systems.source(),
                subscription: function.subscription.clone(),
                process: function.runner.clone(),
            },
            Self::Maker(maker) => maker.work(),
        }
    }
}

impl Systems {
    /// A function of the pipeline, ready to be run by a host: one that reads topics is planned, its references are loaded and
    /// its table is there; one that makes records has its topic. `making` is for the latter.
    ///
    /// # Errors
    /// `Stop` when the pipeline file, a table or a setting is wrong; those of the systems.
    pub async fn ready(&self, pipeline: &Pipeline, name: &str, making: &Making) -> Result<Ready> {
        let maker = match pipeline.functions.get(name) {
            Some(declared) if declared.making().is_some() => declared,
            _ => return Ok(Ready::Reader(Arc::new(self.function(pipeline, name).await?))),
        };
        if self.creates() {
            let topic = &maker.into.name;
            self.topics().create_topic(topic, pipeline.topics[topic].partitions, &[]).await?;
        }
        Ok(Ready::Maker(Arc::new(Maker::new(self, pipeline, name, making).await?)))
    }
}
