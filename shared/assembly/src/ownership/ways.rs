use std::fmt::Write;

use millstream_core::{Error, Result, Sink};
use millstream_pipeline::Pipeline;

use super::{Misfit, Ownership, Unclaimed};
use crate::Systems;

/// What the commands that lead out of a misfit would do, as the store and the log are now. What can't be found out now is taken
/// to work: the command says it then.
#[derive(Clone, Debug, PartialEq)]
pub struct Ways {
    /// What `millstream adopt` would refuse; none when it would go through.
    pub adopt: Vec<String>,
    /// What `millstream rebuild` would do.
    pub rebuild: Rebuilding,
}

/// What `millstream rebuild` would do.
#[derive(Clone, Debug, PartialEq)]
pub enum Rebuilding {
    /// Fill the whole table.
    Whole,
    /// The same by `--partial` only: the log no longer has the table's first records.
    Partial,
    /// Refuse, and say this.
    Refused(String),
}

impl Ways {
    /// The commands that work, for function `name`.
    pub fn commands(&self, name: &str) -> Vec<String> {
        let rebuild = match self.rebuild {
            Rebuilding::Whole => Some(format!("millstream rebuild {name}")),
            Rebuilding::Partial => Some(format!("millstream rebuild {name} --partial")),
            Rebuilding::Refused(_) => None,
        };
        rebuild.into_iter().chain(self.adopt.is_empty().then(|| format!("millstream adopt {name}"))).collect()
    }

    /// For a person: each command with what it means, and why the others are none.
    pub(super) fn explain(&self, name: &str, misfit: &Misfit) -> String {
        let mut text = "Nothing was changed. Undo the change".to_owned();
        let commands = self.commands(name);
        text += if commands.is_empty() { "." } else { "; or choose:" };
        for command in commands {
            let means = match (command.contains(" adopt "), &self.rebuild) {
                (true, _) => misfit.adopting(),
                (_, Rebuilding::Partial) => {
                    "a new table is filled by the plan as it is now, and takes the place of this one. It begins with the oldest \
                     records that the log still has: the first ones of this table are gone"
                }
                _ => "a new table is filled from the log by the plan as it is now, and takes the place of this one",
            };
            let _ = write!(text, "\n  - `{command}`: {means}");
        }
        if let Rebuilding::Refused(why) = &self.rebuild {
            let _ = write!(text, "\n`millstream rebuild {name}` would refuse it: {why}");
        }
        if !self.adopt.is_empty() {
            let _ = write!(text, "\n`millstream adopt {name}` would refuse it: {}", self.adopt.join("; "));
        }
        text
    }
}

async fn misfits(ownership: &Ownership<'_>, sink: &dyn Sink) -> Result<Vec<String>> {
    ownership.misfits(sink, sink.holding().await?.record.as_ref()).await
}

impl Systems {
    /// The ways out for a function that would stop. Changes nothing.
    ///
    /// # Errors
    /// `Stop` when the pipeline file is wrong.
    pub async fn ways(&self, pipeline: &Pipeline, name: &str) -> Result<Ways> {
        let plan = crate::plan_function(pipeline, name).await.map_err(|wrong| Error::stop(wrong.to_string()))?;
        let sink = self.sink_of(pipeline, name, &plan)?;
        let adopt = match misfits(&Ownership::of(pipeline, name, &plan), sink.as_ref()).await {
            Ok(misfits) => misfits,
            Err(Error::Stop(cause)) => vec![cause.to_string()],
            Err(_) => Vec::new(),
        };
        let rebuild = match self.rebuild(pipeline, name).await {
            Ok(rebuild) if rebuild.check_log().is_err() => Rebuilding::Partial,
            Err(Error::Stop(cause)) => Rebuilding::Refused(cause.to_string()),
            _ => Rebuilding::Whole,
        };
        Ok(Ways { adopt, rebuild })
    }

    /// Makes a function the owner of its table: see [`Ownership::claim`].
    ///
    /// # Errors
    /// `Stop` when the table is not what this plan has filled, with what has changed and what to do; those of the store.
    pub(crate) async fn claim(
        &self,
        pipeline: &Pipeline,
        name: &str,
        ownership: &Ownership<'_>,
        sink: &dyn Sink,
    ) -> Result<()> {
        let trial = self.trial(pipeline.functions[name].into.system)?;
        match ownership.claim(sink, self.creates()).await {
            Ok(()) => Ok(()),
            Err(Unclaimed::Failed(error)) => Err(error),
            Err(Unclaimed::Misfit { misfit, changes }) => Err(Error::stop(match trial {
                Some(trial) => misfit.explain_in_trial(name, &changes, trial),
                None => misfit.explain(name, &changes, &self.ways(pipeline, name).await?),
            })),
        }
    }
}
