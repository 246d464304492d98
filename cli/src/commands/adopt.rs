use millstream_assembly::Standing;
use millstream_core::Error;
use serde_json::json;

use crate::{
    Failure,
    context::{Context, named},
};

/// `millstream adopt`: the table of a function goes on under the pipeline file as it is now.
pub(super) async fn adopt(context: &Context, function: &str, yes: bool) -> Result<(), Failure> {
    let pipeline = context.load(None)?;
    let (name, declared) = named(&pipeline, function)?;
    let systems = context.open(&pipeline)?;
    let before = systems.standing(&pipeline, name).await?;
    let Standing::Stops { misfit, changes, record } = &before else {
        if context.json {
            return context.say_json(&json!({ "adopted": false, "table": declared.into.to_string() }));
        }
        return context.say(format!("nothing to adopt: `{name}` would start with {} as it is", declared.into));
    };
    if !context.json {
        context.say(misfit.describe(name, changes))?;
    }
    if !yes {
        let place = systems.store(declared.into.system).map_or_else(String::new, |store| store.place());
        let question = format!(
            "This means: {}. Processes that still run the old plan should have ended.\nAdopt it in {place}?",
            misfit.adopting()
        );
        context.confirm(&question, "nothing was adopted")?;
    }
    let adopted = systems.adopt(&pipeline, name, record.as_deref().cloned()).await.map_err(|error| match error {
        Error::Stop(cause) => Error::Stop(cause).context("it can't be adopted"),
        other => other,
    })?;
    if context.json {
        context.say_json(&json!({
            "adopted": true, "table": declared.into.to_string(), "function": adopted.owner.function, "term": adopted.term,
            "fingerprint": adopted.owner.fingerprint, "changes": changes,
        }))
    } else {
        context.say(format!("adopted: {} goes on under `{}`. Start it again", declared.into, adopted.owner.function))
    }
}
