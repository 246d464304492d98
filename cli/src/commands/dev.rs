use std::{sync::Arc, time::Duration};

use console::Term;
use millstream_assembly::{Making, Systems, partitions_differ};
use millstream_core::Error;
use millstream_host::Stop;
use millstream_pipeline::Pipeline;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use super::{check::check_plans, polled};
use crate::{
    DevArgs, Failure,
    context::Context,
    interrupt,
    live::{Phase, Screen, Seen, Sight, State, Watcher, view},
    patience::{Patience, time_is_up},
    running::{self, Running},
    summary::Summary,
};

/// How often the live view changes; plain lines are printed at every second update.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// `millstream dev`: the whole pipeline in this process.
pub(super) async fn dev(context: &Context, args: &DevArgs) -> Result<(), Failure> {
    let pipeline = Arc::new(context.load(args.path.as_deref())?);
    check_plans(&pipeline).await?;
    polled::check_url(&pipeline, args.url.as_deref())?;
    let interrupt = interrupt::listen()?;
    let started_us = context.clock.now_us();
    let deadline = args.for_s.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
    let patience = Patience::new(&interrupt, deadline);
    let mut connections = context.connections.clone();
    // A trial run must not take partitions away from a function in production, nor commit offsets in its group.
    connections.group_prefix = format!("dev.{}.", context.who);
    // It must not write its tables either.
    connections.embed_tables = !args.into_postgres;
    let systems = Arc::new(Systems::open(&pipeline, &connections, Arc::clone(&context.clock))?);
    let (clock, logs) = (Arc::clone(&context.clock), context.logs.clone());
    let mut watcher = Watcher::new(Arc::clone(&pipeline), Arc::clone(&systems), clock, logs, started_us);
    let mut display = Display::open(context, args)?;
    display.say_where(&systems);
    if !args.no_generate && !held_back(context, args) {
        polled::tell(&pipeline, args.url.as_deref(), &connections.env);
    }
    if held_back(context, args) && !running::names(&pipeline).0.is_empty() {
        tracing::warn!("no records are made up when a Kafka is configured; --generate makes them, in its topics");
    }
    let writes_topic = |name: &&String| pipeline.functions[*name].into.system.is_log();
    if let Some(name) =
        running::names(&pipeline).1.into_iter().find(writes_topic).filter(|_| writes_no_topic(context, args))
    {
        tracing::warn!(
            "`{name}` isn't run, since it would write to a topic of the Kafka that is configured; --generate runs it"
        );
    }
    let mut running = Running::default();
    let starting = start(context, args, &pipeline, &systems, &patience, &mut running);
    let started = show_start(starting, &mut watcher, &mut display).await;
    started.inspect_err(|_| context.logs.release())?;
    watcher.watch(&running);
    let sight = Sight::new(Arc::clone(&pipeline), Arc::clone(&systems), &running);
    let (looking, mut states) = watch::channel(State::default());
    let (telling, seen) = watch::channel(Seen::default());
    let asking = tokio::spawn(sight.look_on(telling));
    look_on(watcher, seen, looking)?;
    let failed = watch_over(&mut running, &interrupt, deadline, &mut states, &mut display).await;

    let drained = drain(&mut running, &mut states, &mut display).await;
    let elapsed_ms = (context.clock.now_us() - started_us) / 1_000;
    display.end(&mut states, elapsed_ms).await;
    asking.abort();
    drop(display);
    context.logs.release();
    let summary = Summary::of(&running, &systems, elapsed_ms).await;
    if context.json {
        context.say_json(&summary.json())?;
    } else {
        summary.lines(&again(context, args)).iter().try_for_each(|line| context.say(line))?;
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(drained?),
    }
}

/// Is this a trial that writes to no topic of a Kafka?
fn writes_no_topic(context: &Context, args: &DevArgs) -> bool {
    context.connections.log_is_connected() && !args.generate
}

/// Are there no generators because a Kafka is configured and --generate is missing?
fn held_back(context: &Context, args: &DevArgs) -> bool {
    writes_no_topic(context, args) && !args.no_generate
}

/// Shows that the start waits for a system that can't be reached.
async fn show_start(
    starting: impl Future<Output = millstream_core::Result<()>>,
    watcher: &mut Watcher,
    display: &mut Display,
) -> millstream_core::Result<()> {
    tokio::pin!(starting);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            started = &mut starting => return started,
            _ = looks.tick() => display.show(&watcher.state(&Seen::default()), Phase::Starting),
        }
    }
}

/// Creates topics and tables and starts all functions.
async fn start(
    context: &Context,
    args: &DevArgs,
    pipeline: &Pipeline,
    systems: &Systems,
    patience: &Patience,
    running: &mut Running,
) -> millstream_core::Result<()> {
    if context.connections.create {
        patience.wait_for("topics", || systems.create_topics(pipeline)).await?;
    }
    for differ in patience.wait_for("topics", || partitions_differ(systems, pipeline)).await? {
        tracing::warn!("{differ}");
    }
    let (making, reading) = running::names(pipeline);
    let made = making.into_iter().filter(|_| !args.no_generate && !held_back(context, args));
    let (rate_per_s, url) = (args.rate, args.url.clone());
    let how = Making { rate_per_s, url, stand_in: true, ..Making::new(Arc::clone(&context.clock)) };
    let is_kept = |name: &&String| !(writes_no_topic(context, args) && pipeline.functions[*name].into.system.is_log());
    for name in reading.into_iter().filter(is_kept).chain(made) {
        running.start(systems, pipeline, name, &how, patience).await?;
    }
    Ok(())
}

/// Sends the state twice a second until the receiver is dropped. It runs on its own thread: with a large backlog, the
/// functions keep all threads of the runtime busy.
fn look_on(
    mut watcher: Watcher,
    seen: watch::Receiver<Seen>,
    states: watch::Sender<State>,
) -> millstream_core::Result<()> {
    let no_thread = |error| Error::stop("can't start a thread for the live view").caused_by(error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(no_thread)?;
    let look = async move {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !states.is_closed() {
            looks.tick().await;
            states.send_replace(watcher.state(&seen.borrow()));
        }
    };
    let thread = std::thread::Builder::new().name("view".to_owned());
    thread.spawn(move || runtime.block_on(look)).map_err(no_thread).map(drop)
}

/// Shows the state until the run must end; returns the error if that is the reason.
async fn watch_over(
    running: &mut Running,
    interrupt: &Stop,
    deadline: Option<Instant>,
    states: &mut watch::Receiver<State>,
    display: &mut Display,
) -> Option<Error> {
    let time_is_up = time_is_up(deadline);
    tokio::pin!(time_is_up);
    loop {
        tokio::select! {
            () = interrupt.wait() => return None,
            () = &mut time_is_up => return None,
            error = running.ended() => return Some(error),
            Ok(()) = states.changed() => {
                let state = states.borrow_and_update();
                display.show(&state, state.phase);
            }
        }
    }
}

async fn drain(
    running: &mut Running,
    states: &mut watch::Receiver<State>,
    display: &mut Display,
) -> millstream_core::Result<()> {
    display.show(&states.borrow_and_update(), Phase::Draining);
    let drained = running.drain();
    tokio::pin!(drained);
    loop {
        tokio::select! {
            outcome = &mut drained => return outcome,
            Ok(()) = states.changed() => display.show(&states.borrow_and_update(), Phase::Draining),
        }
    }
}

fn again(context: &Context, args: &DevArgs) -> String {
    let file = context.file(args.path.as_deref());
    let folder = file.parent().filter(|_| file.ends_with("pipeline.yaml")).unwrap_or(&file).display().to_string();
    if folder.is_empty() { "millstream dev".to_owned() } else { format!("millstream dev {folder}") }
}

/// The live view, or plain lines if there is no terminal.
enum Display {
    Live(Screen),
    Plain { looks: u32 },
}

impl Display {
    fn open(context: &Context, args: &DevArgs) -> Result<Self, Failure> {
        let person = Term::stderr().is_term() && Term::stdout().is_term() && !console::is_dumb();
        if !person || args.plain || context.json {
            return Ok(Self::Plain { looks: 0 });
        }
        context.logs.keep();
        Ok(Self::Live(Screen::open()?))
    }

    /// Shows one last state, if it comes soon: the view stays on the screen, and should be current and agree with the
    /// summary.
    async fn end(&mut self, states: &mut watch::Receiver<State>, elapsed_ms: i64) {
        for _ in 0..2 {
            // The first update may have been under way when the last function ended.
            let _ = tokio::time::timeout(2 * LOOK_EVERY, states.changed()).await;
            states.mark_unchanged();
        }
        let state = State { elapsed_ms, ..states.borrow().clone() };
        self.show(&state, Phase::Ended);
    }

    /// Prints where each system is; the live view always shows it.
    fn say_where(&self, systems: &Systems) {
        if let Self::Plain { .. } = self {
            systems.describe().iter().for_each(|(what, place)| eprintln!("{what}: {place}"));
        }
    }

    /// Errors of drawing on the terminal don't end the run.
    fn show(&mut self, state: &State, phase: Phase) {
        if state.pipeline.is_empty() {
            return; // no state yet
        }
        let state = State { phase, ..state.clone() };
        match self {
            Self::Live(screen) => {
                let (width, height) = screen.size();
                let _ = screen.draw(&view::lines(&state, width, height));
            }
            Self::Plain { looks } => {
                if looks.is_multiple_of(2) || phase == Phase::Ended {
                    eprintln!("{}", view::plain(&state));
                }
                *looks += 1;
            }
        }
    }
}
