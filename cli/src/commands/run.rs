use std::sync::Arc;

use millstream_assembly::{Making, require_said};

use crate::{
    Failure,
    context::{Context, named},
    interrupt,
    patience::Patience,
    running::Running,
    summary::Summary,
};

/// `millstream run FUNCTION`: the same as the function's container, with a summary at the end.
pub(super) async fn run(context: &Context, function: &str) -> Result<(), Failure> {
    let pipeline = context.load(None)?;
    let (name, declared) = named(&pipeline, function)?;
    if context.connections.log_is_connected() {
        require_said(&context.connections, &pipeline, name)?;
    }
    let interrupt = interrupt::listen()?;
    let patience = Patience::new(&interrupt, None);
    let started_us = context.clock.now_us();
    let systems = context.open(&pipeline)?;
    if context.connections.create {
        patience.wait_for("topics", || systems.create_topics(&pipeline)).await?;
    }
    let mut running = Running::default();
    running.start(&systems, &pipeline, name, &Making::new(Arc::clone(&context.clock)), &patience).await?;
    tracing::info!(function = name.as_str(), into = %declared.into, "started");
    let failed = tokio::select! {
        () = interrupt.wait() => None,
        error = running.ended() => Some(error),
    };
    let drained = running.drain().await;
    let summary = Summary::of(&running, &systems, (context.clock.now_us() - started_us) / 1_000).await;
    if context.json {
        context.say_json(&summary.json())?;
    } else {
        summary.lines(&format!("millstream run {name}")).iter().try_for_each(|line| context.say(line))?;
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(drained?),
    }
}
