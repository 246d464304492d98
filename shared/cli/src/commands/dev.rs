use std::{sync::Arc, time::Duration};

use console::Term;
use millstream_assembly::Systems;
use millstream_core::Error;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use crate::{
    DevArgs, Failure,
    context::Context,
    interrupt::Interrupt,
    live::{Phase, Screen, State, Watcher, view},
    patience::patiently,
    running::{self, Running},
    summary::Summary,
};

/// How often the live view changes; the plain lines come at every other look.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// `millstream dev`: the whole pipeline in this process.
pub(super) async fn dev(context: &Context, args: &DevArgs) -> Result<(), Failure> {
    let pipeline = Arc::new(context.load(args.path.as_deref())?);
    let mut interrupt = Interrupt::listen()?;
    let started_us = context.clock.now_us();
    let deadline = args.for_s.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
    let mut connections = context.connections.clone();
    // A trial run takes no partition away from a function in production, and commits nothing in its name.
    connections.group_prefix = format!("dev.{}.", context.who);
    let systems = Arc::new(Systems::open(&pipeline, &connections, Arc::clone(&context.clock))?);
    if context.connections.create {
        patiently("topics", || interrupt.asked(), || systems.create_topics(&pipeline)).await?;
    }
    let mut running = Running::new();
    let (making, reading) = running::names(&pipeline);
    for name in reading {
        running.start_function(&systems, &pipeline, name, || interrupt.asked()).await?;
    }
    for name in making.into_iter().filter(|_| !args.no_generate) {
        running.start_generator(context, &systems, &pipeline, name, args.rate, |_| {})?;
    }

    let mut display = Display::open(context, args)?;
    display.say_where(&systems);
    let watcher = Watcher::new(
        Arc::clone(&pipeline),
        Arc::clone(&systems),
        Arc::clone(&context.clock),
        context.logs.clone(),
        &running,
    );
    let (looking, mut states) = watch::channel(State::default());
    let looker = tokio::spawn(look_on(watcher, looking));
    let failed = watch_over(&mut running, &mut interrupt, deadline, &mut states, &mut display).await;

    let drained = drain(&mut running, &mut states, &mut display).await;
    looker.abort();
    drop(display);
    context.logs.release();
    let summary = Summary::of(&running, &systems, (context.clock.now_us() - started_us) / 1_000).await;
    match context.json {
        true => context.say_json(&summary.json())?,
        false => summary.lines(&again(context, args)).iter().try_for_each(|line| context.say(line))?,
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(drained?),
    }
}

/// Looks until nobody wants to know. A system that can't be asked now is asked again; the functions tell of it.
async fn look_on(mut watcher: Watcher, states: watch::Sender<State>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        match watcher.look().await {
            Ok(state) => {
                if states.send(state).is_err() {
                    return;
                }
            }
            Err(error) => tracing::debug!(%error, "the live view can't see the log now"),
        }
    }
}

/// Shows how it goes until it is time to end; the error, if that is why.
async fn watch_over(
    running: &mut Running,
    interrupt: &mut Interrupt,
    deadline: Option<Instant>,
    states: &mut watch::Receiver<State>,
    display: &mut Display,
) -> Option<Error> {
    let time_is_up = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(time_is_up);
    loop {
        tokio::select! {
            () = interrupt.wait() => return None,
            () = &mut time_is_up => return None,
            error = running.ended() => return Some(error),
            Ok(()) = states.changed() => display.show(&states.borrow_and_update(), Phase::Running),
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
    let outcome = loop {
        tokio::select! {
            outcome = &mut drained => break outcome,
            Ok(()) = states.changed() => display.show(&states.borrow_and_update(), Phase::Draining),
        }
    };
    // One last look, if it comes soon: the view stays on the screen, and it should be true.
    let _ = tokio::time::timeout(2 * LOOK_EVERY, states.changed()).await;
    display.show(&states.borrow_and_update(), Phase::Ended);
    outcome
}

fn again(context: &Context, args: &DevArgs) -> String {
    let file = context.file(args.path.as_deref());
    let folder = file.parent().filter(|_| file.ends_with("pipeline.yaml")).unwrap_or(&file).display().to_string();
    if folder.is_empty() { "millstream dev".to_owned() } else { format!("millstream dev {folder}") }
}

/// The live view, or plain lines where that is no terminal.
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

    /// What is where; the live view shows it all the time.
    fn say_where(&self, systems: &Systems) {
        if let Self::Plain { .. } = self {
            systems.describe().iter().for_each(|(what, place)| eprintln!("{what}: {place}"));
        }
    }

    /// A terminal that can't be drawn on is no reason to end the work.
    fn show(&mut self, state: &State, phase: Phase) {
        if state.pipeline.is_empty() {
            return; // nothing was seen yet
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
