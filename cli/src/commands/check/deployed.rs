use millstream_assembly::{Standing, Ways};
use millstream_pipeline::Pipeline;
use serde_json::{Value, json};

use crate::{Failure, context::Context};

/// What a start of a function would do.
pub(super) struct Start {
    name: String,
    pub(super) standing: Standing,
    /// The ways out, where it would stop.
    ways: Option<Ways>,
}

pub(super) async fn starts_of(context: &Context, pipeline: &Pipeline) -> Result<Vec<Start>, Failure> {
    let systems = context.open(pipeline)?;
    let mut starts = Vec::new();
    for (name, _, _) in pipeline.readers() {
        let standing = systems.standing(pipeline, name).await?;
        let ways = match standing {
            Standing::Stops { .. } => Some(systems.ways(pipeline, name).await?),
            _ => None,
        };
        starts.push(Start { name: name.clone(), standing, ways });
    }
    Ok(starts)
}

impl Start {
    pub(super) fn line(&self) -> String {
        let name = &self.name;
        match &self.standing {
            Standing::Begins => format!("{name}: would begin with a new table"),
            Standing::GoesOn { since: Some(since) } => format!("{name}: would go on; the same plan since {since}"),
            Standing::GoesOn { since: None } => format!("{name}: would go on, and take the table over"),
            Standing::Stops { misfit, changes, .. } => {
                let said = match &self.ways {
                    Some(ways) => misfit.explain(name, changes, ways),
                    None => misfit.describe(name, changes),
                };
                format!("{name}: would stop: {said}")
            }
        }
    }

    pub(super) fn json(&self) -> Value {
        let (does, why, changes) = match &self.standing {
            Standing::Begins => ("begin", None, &[][..]),
            Standing::GoesOn { .. } => ("go on", None, &[][..]),
            Standing::Stops { misfit, changes, .. } => {
                ("stop", Some(misfit.describe(&self.name, &[])), changes.as_slice())
            }
        };
        let ways = self.ways.as_ref().map_or_else(Vec::new, |ways| ways.commands(&self.name));
        json!({ "function": self.name, "would": does, "why": why, "changes": changes, "ways": ways })
    }
}
