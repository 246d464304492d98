use std::ops::Range;

use millstream_core::{Error, Result, Start, TopicPartition, WHOLE_TOPIC};

use super::Rebuild;
use crate::patience::patiently;

/// What a rebuild reads of a partition.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadRange {
    /// The partition.
    pub partition: TopicPartition,
    /// Where the old table began, or would begin.
    pub from: i64,
    /// The oldest offset that the log still has.
    pub low: i64,
    /// One past its newest record.
    pub high: i64,
    /// Up to where an earlier run of the rebuild has filled the new table, which this one goes on with.
    pub filled: Option<i64>,
}

impl ReadRange {
    /// The offsets that the log has no longer, and the new table neither.
    pub fn gone(&self) -> Option<Range<i64>> {
        let start = self.start();
        (self.low > start).then_some(start..self.low)
    }

    /// The offsets that are read.
    pub fn read(&self) -> Range<i64> {
        let start = self.start().max(self.low);
        start..self.high.max(start)
    }

    fn start(&self) -> i64 {
        self.filled.unwrap_or(self.from).max(self.from)
    }
}

impl Rebuild {
    /// As the log is now.
    pub(super) async fn find_ranges(&self) -> Result<Vec<ReadRange>> {
        let log = self.systems.source();
        let earlier = patiently(|| self.sink().holding()).await?;
        let earlier = if self.resumes(&earlier) { earlier.fences } else { Vec::new() };
        let (mut ranges, mut has_lost_its_place) = (Vec::new(), false);
        for partition in patiently(|| self.function.partitions(log.as_ref())).await? {
            let held = patiently(|| log.watermarks(&partition)).await?;
            let of_it = earlier.iter().find(|(at, _)| *at == partition);
            has_lost_its_place |= of_it.is_some_and(|(_, fence)| fence.next_offset < held.low);
            let known = self.old_start(&partition);
            let from = known.unwrap_or(if self.begins_at_the_end(&partition) { held.high } else { held.low });
            // An earlier run that was `partial` may lack what comes before.
            let filled = of_it.filter(|(_, fence)| fence.start_offset <= from);
            let filled = filled.map(|(_, fence)| fence.next_offset);
            ranges.push(ReadRange { partition, from, low: held.low, high: held.high, filled });
        }
        if has_lost_its_place {
            // Then it starts over, with all partitions.
            ranges.iter_mut().for_each(|range| range.filled = None);
        }
        Ok(ranges)
    }

    /// Where the old table began.
    pub(super) fn old_start(&self, partition: &TopicPartition) -> Option<i64> {
        self.old.iter().find(|(at, _)| at == partition).map(|(_, fence)| fence.start_offset)
    }

    /// Of a partition without a fence: only what the topic had at the first start begins at its end.
    fn begins_at_the_end(&self, partition: &TopicPartition) -> bool {
        let whole = TopicPartition { partition: WHOLE_TOPIC, ..partition.clone() };
        let first = self.old_start(&whole);
        let reading = self.pipeline.functions[&self.name].reading();
        reading.is_some_and(|reading| reading.start == Start::Latest)
            && first.is_none_or(|first| i64::from(partition.partition) < first)
    }

    /// What went into the table from topics that have been re-created since.
    fn earlier_generations(&self) -> impl Iterator<Item = (&TopicPartition, Range<i64>)> {
        let is_earlier = |at: &TopicPartition| {
            !at.is_redrive()
                && self
                    .replacement
                    .topics
                    .iter()
                    .any(|(topic, generation)| *topic == at.topic && *generation != at.generation)
        };
        let read = self.old.iter().filter(move |(at, fence)| is_earlier(at) && fence.next_offset > fence.start_offset);
        read.map(|(at, fence)| (at, fence.start_offset..fence.next_offset))
    }

    /// Fails when the log no longer reaches back to where the table began.
    ///
    /// # Errors
    /// `Stop` that names the offsets and the ways out.
    pub fn check_log(&self) -> Result<()> {
        let line = |partition: &TopicPartition, gone: Range<i64>| {
            format!("\n  - {partition}: offsets {}..{}", gone.start, gone.end)
        };
        let gone = self.ranges.iter().filter_map(|range| Some(line(&range.partition, range.gone()?)));
        let earlier = self.earlier_generations().map(|(at, read)| line(at, read) + ", of an earlier generation");
        let gone: Vec<String> = gone.chain(earlier).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let (name, into) = (&self.name, &self.into);
        let adopt =
            format!("\n  - `millstream adopt {name}`: the table stays as it is, and new records follow the new plan");
        let adopt = if self.can_be_adopted { adopt.as_str() } else { "" };
        Err(Error::stop(format!(
            "the log no longer reaches back to where {into} began, and a rebuilt table would lack these \
             records:{}\nNothing was changed. Choose:\n  - `millstream rebuild {name} --partial`: the new table begins with the \
             oldest records that the log still has{adopt}",
            gone.concat()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_log_no_longer_has_is_not_read() {
        let range = |from, low, high| {
            let partition = TopicPartition::new("t", 1, 0);
            ReadRange { partition, from, low, high, filled: None }
        };
        assert_eq!((range(3, 0, 9).gone(), range(3, 0, 9).read()), (None, 3..9));
        assert_eq!((range(3, 5, 9).gone(), range(3, 5, 9).read()), (Some(3..5), 5..9));
        let resumed = |filled| ReadRange { filled: Some(filled), ..range(3, 5, 9) };
        assert_eq!((resumed(7).gone(), resumed(7).read()), (None, 7..9));
        assert_eq!((resumed(5).gone(), resumed(5).read()), (None, 5..9));
        assert_eq!(range(9, 0, 4).read(), 9..9, "a log that ends below the fence is the runner's to judge");
    }
}
