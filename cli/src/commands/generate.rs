use std::{sync::Arc, time::Duration};

use millstream_assembly::{Acknowledged, Making};
use millstream_core::{Position, TopicPartition};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    Failure, GenerateArgs,
    context::{Context, named},
    interrupt,
    numbers::counted,
    patience::{Patience, time_is_up},
    running::Running,
};

/// `millstream generate FUNCTION`
pub(super) async fn generate(context: &Context, args: &GenerateArgs) -> Result<(), Failure> {
    let pipeline = context.load(None)?;
    let (name, declared) = named(&pipeline, &args.function)?;
    if declared.making().is_none() {
        return Err(Failure::Usage(format!(
            "`{name}` reads a topic and makes no records: run it with `millstream run {name}`"
        )));
    }
    let interrupt = interrupt::listen()?;
    let deadline = args.for_s.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
    let topic_name = &declared.into.name;
    let patience = Patience::new(&interrupt, deadline);
    let systems = context.open_for(&pipeline, topic_name, &patience).await?;
    let json = context.json;
    let print: Acknowledged = Arc::new(move |positions| print_positions(positions, json));
    let making = Making {
        rate_per_s: args.rate,
        url: args.url.clone(),
        acknowledged: (!args.quiet).then_some(print),
        ..Making::new(Arc::clone(&context.clock))
    };
    let mut running = Running::default();
    running.start(&systems, &pipeline, name, &making, &patience).await?;
    let failed = tokio::select! {
        () = interrupt.wait() => None,
        () = time_is_up(deadline) => None,
        error = running.ended() => Some(error),
    };
    let drained = running.drain().await;
    let sent: u64 = running.generators.iter().map(|generating| generating.sent()).sum();
    if context.json {
        context.say(json!({ "topic": topic_name, "sent": sent }).to_string())?;
    } else {
        eprintln!("{} sent to {topic_name}", counted(sent, "record"));
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(drained?),
    }
}

/// Prints the positions of acknowledged records. If stdout is closed, the process ends, like `yes | head`.
pub(super) fn print_positions(positions: &[Position], json: bool) {
    use std::io::Write as _;
    let mut text = String::new();
    for Position { partition: TopicPartition { topic, partition, .. }, offset } in positions {
        let line: Value = json!({ "topic": topic, "partition": partition, "offset": offset });
        if json {
            text += &line.to_string();
        } else {
            text += &format!("{topic} partition {partition} offset {offset}");
        }
        text.push('\n');
    }
    if std::io::stdout().lock().write_all(text.as_bytes()).is_err() {
        std::process::exit(0);
    }
}
