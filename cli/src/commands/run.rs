use millstream_assembly::require_said;

use crate::{
    Failure,
    context::{Context, named},
    interrupt::Interrupt,
    patience::Patience,
    running::Running,
    summary::Summary,
};

/// `millstream run FUNCTION`: what its container does, with a summary at the end.
pub(super) async fn run(context: &Context, function: &str) -> Result<(), Failure> {
    let pipeline = context.load(None)?;
    let (name, declared) = named(&pipeline, function)?;
    if declared.reading().is_none() {
        return Err(Failure::Usage(format!("`{name}` makes records and reads none: `millstream generate {name}`")));
    }
    if context.connections.kafka_brokers.is_some() {
        require_said(&context.connections, &pipeline, name).await?;
    }
    let mut interrupt = Interrupt::listen()?;
    let patience = Patience::new(&interrupt, None);
    let started_us = context.clock.now_us();
    let systems = context.open(&pipeline)?;
    if context.connections.create {
        patience.wait_for("topics", || systems.create_topics(&pipeline)).await?;
    }
    let mut running = Running::new();
    running.start_function(&systems, &pipeline, name, &patience).await?;
    tracing::info!(function = name.as_str(), into = %declared.into, "started");
    let failed = tokio::select! {
        () = interrupt.wait() => None,
        error = running.ended() => Some(error),
    };
    let drained = running.drain().await;
    let summary = Summary::of(&running, &systems, (context.clock.now_us() - started_us) / 1_000).await;
    match context.json {
        true => context.say_json(&summary.json())?,
        false => summary.lines(&format!("millstream run {name}")).iter().try_for_each(|line| context.say(line))?,
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(drained?),
    }
}
