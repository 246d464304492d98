//! A function's statement as one query over the log.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arrow::array::RecordBatch;
use futures::StreamExt as _;
use millstream_core::{DeadLetters, Error, Position, Result, Role, Source};
use millstream_pipeline::{Function as Declared, Pipeline, Reading};
use millstream_sql::{Only, Whole, WholeLimits};

use super::{
    encoder::Encoder, input::Input, judges::Judges, pass::Pass, records::find_refused, report::AuditProgress,
    side::Side,
};
use crate::{FunctionPlan, plan::statement_of, systems::timeliness};

/// Memory for groups and joins; beyond it they go to temporary files.
const MEMORY_BYTES: usize = 128 << 20;
/// How many rows the engine computes at once.
const ROWS_AT_ONCE: usize = 8_192;
/// How often the progress is reported.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// What is needed to run it.
pub(crate) struct Query<'a> {
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) name: &'a str,
    pub(crate) plan: &'a FunctionPlan,
    pub(crate) reading: &'a Reading,
    pub(crate) source: &'a Arc<dyn Source>,
    pub(crate) dead_letters: &'a Arc<dyn DeadLetters>,
    /// Which rows are wanted.
    pub(crate) only: Only,
}

impl Query<'_> {
    /// A pass over the log that hasn't begun.
    pub(crate) fn pass(&self) -> Arc<Pass> {
        Arc::new(self.pass_by(false))
    }

    pub(super) fn pass_by(&self, reversed: bool) -> Pass {
        let threads = threads();
        let judges = Judges {
            decoders: self.plan.decoders.clone(),
            timeliness: timeliness(self.reading),
            hops: self.pipeline.hops(),
            transform: Arc::clone(&self.plan.planned.transform),
            table: self.plan.planned.table.clone(),
            dead_letters: Arc::clone(self.dead_letters),
            function: Declared::id(&self.pipeline.name, self.name),
        };
        let mut pass = Pass::new(Arc::clone(self.source), judges, self.reading.batch, threads);
        pass.reversed = reversed;
        pass
    }

    /// The statement over what `pass` will read.
    pub(crate) async fn planned(&self, pass: &Arc<Pass>) -> Result<Whole> {
        self.planned_for(pass, &Input::default()).await
    }

    /// The same, as [`Input::alone`] and [`Input::all_groups`] say.
    pub(super) async fn planned_for(&self, pass: &Arc<Pass>, input: &Input) -> Result<Whole> {
        let rows_at_once = if input.alone { 1 } else { ROWS_AT_ONCE };
        let only = if input.all_groups { Only::default() } else { self.only };
        let statement = statement_of(self.pipeline, self.name, self.plan)?;
        let limits = WholeLimits { memory_bytes: MEMORY_BYTES, threads: threads(), rows_at_once };
        let table = &self.plan.planned.table;
        let newest = table.entity().filter(|entity| entity.role == Role::Newest).map(|entity| entity.name.as_str());
        let whole = Whole::of(&statement, &pass.tables(), limits, only, newest).await;
        whole.map_err(|error| Error::stop(error.to_string()))
    }

    /// Runs it over `input`, and again in another way if an expression can't be computed: see [`Query::other_way`]. `pass` is
    /// then another one. Also returns what was read in the end.
    pub(crate) async fn run(
        &self,
        whole: Whole,
        pass: &mut Arc<Pass>,
        input: Input,
        encoder: &Arc<Encoder>,
        told: &mut (dyn FnMut(AuditProgress) + Send),
    ) -> Result<(Side, Input)> {
        let (mut whole, mut input, mut refused) = (whole, input, None);
        loop {
            let mut side = Side::new(encoder);
            match self.each(whole, pass, input.clone(), told, &mut |rows| side.add(&rows)).await {
                Err(Error::Poison(cause)) if !self.other_way(&mut input, &mut refused).await? => {
                    return Err(Error::Poison(cause));
                }
                Err(Error::Poison(_)) => {}
                ran => return ran.map(|()| (side, input)),
            }
            *pass = self.pass();
            whole = self.planned_for(pass, &input).await?;
            for (position, reason) in refused.iter().flatten() {
                pass.seen().lose(position.clone(), reason.clone());
            }
        }
    }

    /// After an expression couldn't be computed: the next way to run it; false after the last one. First all groups are
    /// computed. Then records are found that the function refuses and that are no dead letters: they are noted as lost, and left
    /// out. Where every record can be computed by itself, a neighbour is to blame: the function narrows down to single records,
    /// and so does this.
    async fn other_way(&self, input: &mut Input, refused: &mut Option<Vec<(Position, String)>>) -> Result<bool> {
        if !self.only.is_all() && !input.all_groups {
            input.all_groups = true;
        } else if refused.is_none() {
            let found = find_refused(self, input).await?;
            input.refused = found.iter().map(|(position, _)| position.clone()).collect();
            input.alone = found.is_empty();
            *refused = Some(found);
        } else if !input.alone {
            input.alone = true;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Runs it over `input` and gives the rows to `take`.
    pub(crate) async fn each(
        &self,
        whole: Whole,
        pass: &Arc<Pass>,
        input: Input,
        told: &mut (dyn FnMut(AuditProgress) + Send),
        take: &mut (dyn FnMut(RecordBatch) -> Result<()> + Send),
    ) -> Result<()> {
        pass.input.set(input).map_err(|_| Error::stop("internal: a pass was run twice"))?;
        let total = pass.total();
        told(AuditProgress { read: 0, total });
        let is_total = whole.is_total;
        let mut rows = whole.run()?;
        let mut held = Vec::new();
        let mut tick = tokio::time::interval(TELL_EVERY);
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => told(AuditProgress { read: pass.read.load(Ordering::Relaxed), total }),
                batch = rows.next() => match batch {
                    Some(Ok(batch)) if is_total => held.push(batch),
                    Some(Ok(batch)) => take(batch)?,
                    // The reader knows why.
                    Some(Err(error)) => return Err(pass.seen().error.take().unwrap_or(error)),
                    None => break,
                },
            }
        }
        pass.finish().await;
        if let Some(error) = pass.seen().error.take() {
            return Err(error);
        }
        // The row of a statement without groups is there without any record; the function writes nothing before its first.
        if pass.given.load(Ordering::Relaxed) > 0 {
            held.into_iter().try_for_each(take)?;
        }
        told(AuditProgress { read: total, total });
        Ok(())
    }
}

fn threads() -> usize {
    // A log is read by few readers at once.
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(4)
}
