use std::fmt;

use millstream_core::Result;
use millstream_pipeline::Pipeline;

use crate::Systems;

/// A topic that has another number of partitions than the pipeline file declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionsDiffer {
    /// The topic.
    pub topic: String,
    /// What the file says.
    pub declared: i32,
    /// What the log has.
    pub held: i32,
}

impl PartitionsDiffer {
    /// Can the topic be given what it lacks? Partitions can't be taken away.
    pub fn can_be_raised(&self) -> bool {
        self.held < self.declared
    }
}

impl fmt::Display for PartitionsDiffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, declared, held } = self;
        write!(f, "topic {topic}: the file declares {declared} partitions, the topic has {held}")?;
        match self.can_be_raised() {
            true => write!(f, "; `millstream up --raise-partitions` raises them (keys then move to other partitions)"),
            false => write!(
                f,
                ", and they can't be lowered: declare {held}, or delete the topic, make it anew and raise its `generation`"
            ),
        }
    }
}

/// The topics of the pipeline that have another number of partitions than it declares; one that is missing has not.
///
/// # Errors
/// Those of the log.
pub async fn partitions_differ(systems: &Systems, pipeline: &Pipeline) -> Result<Vec<PartitionsDiffer>> {
    let held = systems.topics().topics().await?.into_iter();
    let differing = held.filter_map(|info| {
        let declared = pipeline.topics.get(&info.name)?.partitions;
        let differ = PartitionsDiffer { topic: info.name, declared, held: info.partitions };
        (declared != info.partitions).then_some(differ)
    });
    Ok(differing.collect())
}
