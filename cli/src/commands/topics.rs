mod peek;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::future::join_all;
use millstream_assembly::{Systems, dead_letter_topic};
use millstream_core::{Fence, Result, TopicPartition, Watermarks};
use millstream_pipeline::{Function, Pipeline};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{Failure, TopicsCommand, context::Context, grid::Grid, numbers::count};

/// The state of a topic.
struct Standing {
    name: String,
    /// By partition; `None` if the topic doesn't exist.
    held: Option<Vec<Watermarks>>,
    groups: Vec<Group>,
}

/// A function's consumer group on the topic.
struct Group {
    name: String,
    /// By partition.
    committed: Vec<Option<i64>>,
    /// The fences of the function, by partition: how far it has really come. None if its store doesn't tell them now.
    fences: Option<Vec<Option<i64>>>,
}

/// `millstream topics …`
pub(super) async fn topics(context: &Context, command: Option<TopicsCommand>, all: bool) -> Result<(), Failure> {
    match command {
        Some(_) if all => Err(Failure::Usage("--all is for the list of topics: leave it out".to_owned())),
        Some(TopicsCommand::Peek(args)) => peek::peek(context, args).await,
        None => list(context, all).await,
    }
}

async fn list(context: &Context, all: bool) -> Result<(), Failure> {
    let pipeline = context.load(None)?;
    let systems = context.open(&pipeline)?;
    let there: BTreeMap<String, i32> =
        systems.topics().topics().await?.into_iter().map(|topic| (topic.name, topic.partitions)).collect();
    let dead_letters = dead_letter_topic(&pipeline);
    let of_log = there.keys().filter(|name| all || **name == dead_letters);
    let names: BTreeSet<&String> = pipeline.log_topics().map(|(name, _)| name).chain(of_log).collect();
    let (fences, mut standings) = (fences(&pipeline, &systems).await, Vec::new());
    for name in names {
        standings.push(standing(&pipeline, &systems, &fences, name, there.contains_key(name)).await?);
    }
    if context.json {
        return context.say_json(&Value::Array(standings.iter().map(Standing::json).collect()));
    }
    let mut grid = Grid::new(&["topic", ">partitions", ">records", "group", ">committed", ">fence", ">lag"]);
    standings.iter().for_each(|standing| standing.rows(&mut grid));
    grid.lines("", false).iter().try_for_each(|line| context.say(line))
}

type Fences = Vec<(TopicPartition, Fence)>;

/// The fences of each function. A store that doesn't answer soon is named, and its fences are left out.
async fn fences<'a>(pipeline: &'a Pipeline, systems: &Systems) -> BTreeMap<&'a str, Fences> {
    let of = async |name: &'a str| match timeout(STORE_LIMIT, systems.fences(pipeline, name)).await {
        Ok(Ok(fences)) => Some((name, fences)),
        Ok(Err(error)) => {
            eprintln!("warning: the fences of `{name}` are not known: {error}");
            None
        }
        Err(_) => {
            eprintln!("warning: the fences of `{name}` are not known: its store doesn't answer");
            None
        }
    };
    let all = pipeline.readers().map(|(name, ..)| of(name));
    join_all(all).await.into_iter().flatten().collect()
}

/// How long a store may take to tell its fences.
const STORE_LIMIT: Duration = Duration::from_secs(5);

async fn standing(
    pipeline: &Pipeline,
    systems: &Systems,
    fences: &BTreeMap<&str, Fences>,
    name: &str,
    there: bool,
) -> Result<Standing> {
    if !there {
        return Ok(Standing { name: name.to_owned(), held: None, groups: Vec::new() });
    }
    let generation = pipeline.topics.get(name).map_or(1, |topic| topic.generation);
    let log = systems.source();
    let mut held = Vec::new();
    for partition in 0..log.partitions(name).await? {
        held.push(log.watermarks(&TopicPartition::new(name, generation, partition)).await?);
    }
    let mut groups = Vec::new();
    for (function, ..) in pipeline.readers().filter(|(_, _, reading)| reading.topics().any(|topic| topic == name)) {
        let id = Function::id(&pipeline.name, function);
        let committed = systems.group_offsets(&id, name, generation).await?;
        let fences = fences.get(function.as_str()).map(|fences| {
            let next = |partition: usize| {
                let of = |(at, _): &&(TopicPartition, Fence)| {
                    at.topic == name && at.generation == generation && usize::try_from(at.partition) == Ok(partition)
                };
                fences.iter().find(of).map(|(_, fence)| fence.next_offset)
            };
            (0..held.len()).map(next).collect()
        });
        groups.push(Group { name: id, committed, fences });
    }
    Ok(Standing { name: name.to_owned(), held: Some(held), groups })
}

impl Group {
    /// How many records are above the fences, without those that retention has deleted. Where the fences are not known, the
    /// committed offsets decide, which are only for people to look at.
    fn lag(&self, held: &[Watermarks]) -> i64 {
        let next = self.fences.as_ref().unwrap_or(&self.committed);
        let lag = |(at, held): (usize, &Watermarks)| {
            let next = next.get(at).copied().flatten().unwrap_or(held.low);
            held.high - next.clamp(held.low, held.high)
        };
        held.iter().enumerate().map(lag).sum()
    }
}

impl Standing {
    fn rows(&self, grid: &mut Grid) {
        let Some(held) = &self.held else {
            let missing = "missing: `millstream up` creates it".to_owned();
            return grid.row([self.name.clone(), "-".into(), "-".into(), missing]);
        };
        let records: i64 = held.iter().map(|held| held.high - held.low).sum();
        let mut head = [self.name.clone(), count(held.len() as u64), count(records)];
        if self.groups.is_empty() {
            grid.row(head);
            return;
        }
        for group in &self.groups {
            let shown = |offsets: &[Option<i64>]| sum(offsets).map_or_else(|| "-".to_owned(), count);
            let (committed, fence) = (shown(&group.committed), group.fences.as_deref().map_or("?".to_owned(), shown));
            grid.row(head.into_iter().chain([group.name.clone(), committed, fence, count(group.lag(held))]));
            head = Default::default();
        }
    }

    fn json(&self) -> Value {
        let held = self.held.as_deref().unwrap_or_default();
        let partition = |(at, held): (usize, &Watermarks)| {
            let of = |offsets: &dyn Fn(&Group) -> Option<i64>| {
                let by_group = self.groups.iter().map(|group| (group.name.clone(), json!(offsets(group))));
                by_group.collect::<serde_json::Map<_, _>>()
            };
            let committed = of(&|group| group.committed.get(at).copied().flatten());
            let fence = of(&|group| group.fences.as_ref()?.get(at).copied().flatten());
            json!({ "partition": at, "low": held.low, "high": held.high, "committed": committed, "fence": fence })
        };
        let lag: serde_json::Map<_, _> =
            self.groups.iter().map(|group| (group.name.clone(), json!(group.lag(held)))).collect();
        json!({
            "name": self.name,
            "missing": self.held.is_none(),
            "records": held.iter().map(|held| held.high - held.low).sum::<i64>(),
            "partitions": held.iter().enumerate().map(partition).collect::<Vec<_>>(),
            "lag": lag,
        })
    }
}

/// The sum of the offsets that are known.
fn sum(offsets: &[Option<i64>]) -> Option<i64> {
    offsets.iter().flatten().copied().reduce(|sum, offset| sum + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_counts_only_records_that_the_log_still_holds() {
        let held = [Watermarks { low: 0, high: 10 }, Watermarks { low: 5, high: 9 }, Watermarks { low: 0, high: 3 }];
        let group = Group { name: "bank.flow".into(), committed: vec![Some(7), Some(2), None], fences: None };
        assert_eq!((group.lag(&held), sum(&group.committed)), (3 + 4 + 3, Some(9)));
        assert_eq!(sum(&[]), None);
        let known = Group { fences: Some(vec![Some(9), Some(9), None]), ..group };
        assert_eq!(known.lag(&held), 1 + 3, "a commit may be older, or of a plan before");
    }
}
