use std::fmt;

use millstream_core::Result;
use millstream_pipeline::Pipeline;

use crate::Systems;

/// A topic whose number of partitions differs from the pipeline file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionsDiffer {
    /// The topic.
    pub topic: String,
    /// The number in the file.
    pub declared: i32,
    /// The number in the log.
    pub held: i32,
}

impl PartitionsDiffer {
    /// Can partitions be added to reach the declared number? They can't be removed.
    pub fn can_be_raised(&self) -> bool {
        self.held < self.declared
    }
}

impl fmt::Display for PartitionsDiffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, declared, held } = self;
        write!(f, "topic {topic}: the file declares {declared} partitions, the topic has {held}")?;
        if self.can_be_raised() {
            write!(f, "; `millstream up --raise-partitions` raises them (keys then move to other partitions)")
        } else {
            write!(
                f,
                ", and they can't be lowered: declare {held}, or delete the topic, re-create it and raise its \
                 `generation`"
            )
        }
    }
}

/// The topics of the pipeline whose number of partitions differs from the declared one. A missing topic is not
/// included.
///
/// # Errors
/// The errors of the log.
pub async fn partitions_differ(systems: &Systems, pipeline: &Pipeline) -> Result<Vec<PartitionsDiffer>> {
    let held = systems.topics().topics().await?.into_iter();
    let differing = held.filter_map(|info| {
        let declared = pipeline.topics.get(&info.name)?.partitions;
        let differ = PartitionsDiffer { topic: info.name, declared, held: info.partitions };
        (declared != info.partitions).then_some(differ)
    });
    Ok(differing.collect())
}
