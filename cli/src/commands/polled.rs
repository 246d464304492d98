//! What `dev` says of the functions whose records come from outside.

use millstream_core::Env;
use millstream_ingest::KEYS_VARIABLE;
use millstream_pipeline::{Origin, Pipeline, Poll};

use crate::Failure;

fn polls(pipeline: &Pipeline) -> impl Iterator<Item = (&String, &Poll)> {
    pipeline.makers().filter_map(|(name, _, making)| Some((name, making.poll()?)))
}

/// An address must belong to one function.
pub(super) fn check_url(pipeline: &Pipeline, url: Option<&str>) -> Result<(), Failure> {
    match (url, polls(pipeline).count()) {
        (None, _) | (Some(_), 1) => Ok(()),
        (Some(_), polls) => {
            let name = &pipeline.name;
            Err(Failure::Usage(format!("--url is for a pipeline with one function that polls; {name} has {polls}")))
        }
    }
}

/// Says which functions poll a stand-in, so that what they send is not real, and where records are taken.
pub(super) fn tell(pipeline: &Pipeline, url: Option<&str>, env: &Env) {
    for (name, poll) in polls(pipeline).filter(|_| url.is_none()) {
        if let Some(file) = &poll.stand_in {
            let file = file.display();
            tracing::warn!(
                "`{name}` polls a stand-in on this machine, which replays {file}; --url URL polls a real API"
            );
        }
    }
    for (name, ..) in pipeline.makers().filter(|(_, _, making)| matches!(making.origin, Origin::Webhook(_))) {
        let listen = env.get("MILLSTREAM_LISTEN").unwrap_or_else(|| "127.0.0.1:8080".to_owned());
        let takes = format!("`{name}` takes records at http://{listen}/{name} (MILLSTREAM_LISTEN)");
        match env.get(KEYS_VARIABLE) {
            None => tracing::warn!("{takes} from anybody who reaches it: {KEYS_VARIABLE} is not set"),
            Some(keys) if keys == "none" => {
                tracing::warn!("{takes} from anybody who reaches it: {KEYS_VARIABLE} is `none`");
            }
            Some(_) => tracing::info!("{takes}"),
        }
    }
}
