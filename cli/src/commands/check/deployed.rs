use millstream_assembly::Standing;
use millstream_pipeline::Pipeline;
use serde_json::{Value, json};

use crate::{Failure, context::Context};

/// What a start of a function would do.
pub(super) struct Start {
    name: String,
    pub(super) standing: Standing,
}

pub(super) async fn starts_of(context: &Context, pipeline: &Pipeline) -> Result<Vec<Start>, Failure> {
    let systems = context.open(pipeline)?;
    let mut starts = Vec::new();
    for (name, _, _) in pipeline.readers() {
        starts.push(Start { name: name.clone(), standing: systems.standing(pipeline, name).await? });
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
            Standing::Stops { misfit, changes, .. } => format!("{name}: would stop: {}", misfit.explain(name, changes)),
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
        json!({ "function": self.name, "would": does, "why": why, "changes": changes })
    }
}
