use std::time::Duration;

use millstream_assembly::Systems;
use millstream_core::{Result, TopicPartition};
use serde_json::{Value, json};

use crate::{
    numbers::{count, counted, duration},
    running::{Consuming, Running},
};

/// How many partitions of a function are shown.
const SHOWN_PARTITIONS: usize = 6;

/// How long a system may take to report a function's state.
const ASK: Duration = Duration::from_secs(2);

/// What a run has done, printed at its end.
#[derive(Debug)]
pub(crate) struct Summary {
    pub elapsed_ms: i64,
    pub generators: Vec<Made>,
    pub functions: Vec<Done>,
    pub systems: Vec<(&'static str, String)>,
}

/// What a generator has made.
#[derive(Debug)]
pub(crate) struct Made {
    pub name: String,
    pub into: String,
    pub sent: u64,
}

/// What a function has done.
#[derive(Debug)]
pub(crate) struct Done {
    pub name: String,
    pub from: Vec<String>,
    pub into: String,
    pub records: u64,
    pub rows: u64,
    pub dead_letters: u64,
    pub healed: u64,
    pub fences: Vec<(TopicPartition, Option<i64>, i64)>,
}

impl Summary {
    /// Asks the sinks and the log for the final state. Systems that don't answer are left out: the run is over anyway.
    pub async fn of(running: &Running, systems: &Systems, elapsed_ms: i64) -> Self {
        let made = |generating: &crate::running::Generating| Made {
            name: generating.name.clone(),
            into: generating.into.to_string(),
            sent: generating.sent(),
        };
        let mut functions = Vec::new();
        for consuming in &running.functions {
            let asked = tokio::time::timeout(ASK, fences(consuming, systems)).await;
            let fences = asked.map_or_else(|_| Vec::new(), Result::unwrap_or_default);
            let stats = consuming.function.runner.stats();
            functions.push(Done {
                name: consuming.name.clone(),
                from: consuming.topics().map(str::to_owned).collect(),
                into: consuming.into.to_string(),
                records: stats.records(),
                rows: stats.rows(),
                dead_letters: stats.dead_letters(),
                healed: stats.healed_records(),
                fences,
            });
        }
        let generators = running.generators.iter().map(made).collect();
        Self { elapsed_ms, generators, functions, systems: systems.describe() }
    }

    /// The text for people; `again` is the command that continues from here.
    pub fn lines(&self, again: &str) -> Vec<String> {
        let mut lines = vec![format!("Ran {}.", duration(self.elapsed_ms))];
        for made in &self.generators {
            lines.push(format!("  {}: {} sent to {}", made.name, counted(made.sent, "record"), made.into));
        }
        for done in &self.functions {
            let (records, rows) = (counted(done.records, "record"), counted(done.rows, "row"));
            let mut line = format!("  {}: {records} in, {rows} written to {}", done.name, done.into);
            if done.healed > 0 {
                line += &format!(", {} healed", count(done.healed));
            }
            if done.dead_letters > 0 {
                line += &format!(", {} (`millstream dead-letters list`)", counted(done.dead_letters, "dead letter"));
            }
            lines.push(line);
            lines.extend(done.fence_line());
        }
        lines.push(self.systems.iter().map(|(what, place)| format!("{what}: {place}")).collect::<Vec<_>>().join(" · "));
        lines.push(format!("`{again}` continues from here."));
        lines
    }

    /// The JSON for machines.
    pub fn json(&self) -> Value {
        let fence = |(partition, fence, high): &(TopicPartition, Option<i64>, i64)| {
            json!({ "topic": partition.topic, "generation": partition.generation, "partition": partition.partition,
                    "fence": fence, "log_end": high })
        };
        let functions = self.functions.iter().map(|done| {
            json!({ "name": done.name, "from": done.from, "into": done.into, "records": done.records,
                    "records_per_s": done.records as f64 * 1e3 / self.elapsed_ms.max(1) as f64,
                    "lag": done.lag(), "rows": done.rows, "dead_letters": done.dead_letters, "healed": done.healed,
                    "partitions": done.fences.iter().map(fence).collect::<Vec<_>>() })
        });
        let made = |made: &Made| json!({ "name": made.name, "into": made.into, "sent": made.sent });
        json!({
            "elapsed_ms": self.elapsed_ms,
            "generators": self.generators.iter().map(made).collect::<Vec<_>>(),
            "functions": functions.collect::<Vec<_>>(),
        })
    }
}

impl Done {
    /// Records that are in the log and not yet in the sink; `None` where a fence isn't known.
    fn lag(&self) -> Option<i64> {
        let lag = |(_, fence, high): &(TopicPartition, Option<i64>, i64)| Some((high - (*fence)?).max(0));
        if self.fences.is_empty() { None } else { self.fences.iter().map(lag).sum() }
    }

    fn fence_line(&self) -> Option<String> {
        let shown = |(partition, fence, high): &(TopicPartition, Option<i64>, i64)| {
            let place = format!("{}/{}", partition.topic, partition.partition);
            match fence {
                Some(fence) if fence == high => format!("{place} at {}", count(*fence)),
                Some(fence) => format!("{place} at {} of {}", count(*fence), count(*high)),
                None => format!("{place} not started"),
            }
        };
        if self.fences.is_empty() {
            return None;
        }
        let mut parts: Vec<_> = self.fences.iter().take(SHOWN_PARTITIONS).map(shown).collect();
        let more = self.fences.len().saturating_sub(SHOWN_PARTITIONS);
        parts.extend((more > 0).then(|| format!("{more} more")));
        Some(format!("    fences: {}", parts.join(", ")))
    }
}

async fn fences(consuming: &Consuming, systems: &Systems) -> Result<Vec<(TopicPartition, Option<i64>, i64)>> {
    let log = systems.source();
    let mut fences = Vec::new();
    for partition in consuming.function.partitions(log.as_ref()).await? {
        let fence = consuming.function.runner.sink().fence(&partition).await?;
        let high = log.watermarks(&partition).await?.high;
        fences.push((partition, fence.map(|fence| fence.next_offset), high));
    }
    Ok(fences)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shows_what_was_done_and_how_to_continue() {
        let partition = |number| TopicPartition::new("transaction", 1, number);
        let summary = Summary {
            elapsed_ms: 12_345,
            generators: vec![Made { name: "generate".into(), into: "topic.transaction".into(), sent: 1_234 }],
            functions: vec![Done {
                name: "flow".into(),
                from: vec!["transaction".into()],
                into: "postgres.transaction_flow".into(),
                records: 1_234,
                rows: 1,
                dead_letters: 2,
                healed: 0,
                fences: vec![(partition(0), Some(1_000), 1_000), (partition(1), Some(5), 9), (partition(2), None, 0)],
            }],
            systems: vec![("log", "a".into()), ("tables", "b".into()), ("lake", "c".into())],
        };
        let expected = [
            "Ran 12 s.",
            "  generate: 1,234 records sent to topic.transaction",
            "  flow: 1,234 records in, 1 row written to postgres.transaction_flow, 2 dead letters (`millstream dead-letters list`)",
            "    fences: transaction/0 at 1,000, transaction/1 at 5 of 9, transaction/2 not started",
            "log: a · tables: b · lake: c",
            "`millstream dev` continues from here.",
        ];
        assert_eq!(summary.lines("millstream dev"), expected);
        let flow = &summary.json()["functions"][0];
        assert_eq!((&flow["partitions"][1]["log_end"], &flow["lag"]), (&json!(9), &Value::Null));
        assert!(
            (flow["records_per_s"].as_f64().unwrap() - 99.96).abs() < 0.1 && flow["from"] == json!(["transaction"])
        );
    }
}
