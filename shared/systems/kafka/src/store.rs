use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use millstream_core::{Address, Compression, Connect, Env, LogStore, Producer, Result};

use crate::{Kafka, KafkaSettings, environment::ADDRESS, sender::Sender};

impl Connect for Kafka {
    const ADDRESS: Address = ADDRESS;

    fn check(env: &Env) -> Result<bool> {
        Ok(KafkaSettings::read(env)?.is_some())
    }

    fn open(env: &Env) -> Result<Option<Self>> {
        KafkaSettings::read(env)?.map(Self::new).transpose()
    }
}

#[async_trait]
impl LogStore for Kafka {
    fn place(&self) -> String {
        format!("Kafka at {}", self.settings.brokers)
    }

    fn producer(&self, compression: Compression) -> Result<Arc<dyn Producer>> {
        Ok(self.producer_of(compression, false))
    }

    fn ordered_producer(&self, compression: Compression) -> Result<Arc<dyn Producer>> {
        Ok(self.producer_of(compression, true))
    }

    /// A generation is the pipeline file's word: Kafka knows one topic of a name.
    async fn group_offsets(&self, group: &str, topic: &str, _generation: u32) -> Result<Vec<Option<i64>>> {
        self.committed(group, topic).await
    }
}

impl Kafka {
    fn producer_of(&self, compression: Compression, ordered: bool) -> Arc<dyn Producer> {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = senders.entry((compression, ordered)).or_insert_with(|| {
            let settings = KafkaSettings { compression, ..(*self.settings).clone() };
            Arc::new(Sender::new(Arc::new(settings), ordered))
        });
        Arc::new(Self { sender: Arc::clone(sender), ..self.clone() })
    }
}
