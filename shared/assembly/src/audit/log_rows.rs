//! The topics of a pass as tables of the plain engine.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use arrow::array::RecordBatch;
use futures::{StreamExt as _, stream::BoxStream};
use millstream_core::Result;
use millstream_sql::{LogRows, ReadFailed};

use super::pass::{Pass, Place};

/// A topic of a pass.
pub(super) struct TopicRows {
    pub(super) pass: Arc<Pass>,
    pub(super) topic: String,
}

impl fmt::Debug for TopicRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicRows").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl LogRows for TopicRows {
    fn lanes(&self) -> usize {
        self.pass.lanes
    }

    fn rows(&self, lane: usize) -> BoxStream<'static, Result<RecordBatch, ReadFailed>> {
        let places = self.pass.lane(&self.topic, lane);
        let of_lane = (self.topic.clone(), lane);
        let is_first = {
            let mut seen = self.pass.seen();
            let is_first = !seen.left.contains_key(&of_lane);
            seen.left.entry(of_lane.clone()).or_insert_with(|| places.clone());
            is_first
        };
        read(Arc::clone(&self.pass), places, is_first.then_some(of_lane))
    }
}

/// The rows of `places`. They are counted if `counted` is the lane that they belong to.
fn read(
    pass: Arc<Pass>,
    places: Vec<Place>,
    counted: Option<(String, usize)>,
) -> BoxStream<'static, Result<RecordBatch, ReadFailed>> {
    let rows = futures::stream::unfold(places, move |mut places| {
        let (pass, counted) = (Arc::clone(&pass), counted.clone());
        async move {
            while places.last().is_some_and(|place| place.range.is_empty()) {
                places.pop();
            }
            let place = places.last_mut()?;
            match pass.next(place, counted.is_some()).await {
                Ok((rows, _)) => {
                    pass.given.fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
                    if let Some(lane) = counted {
                        pass.seen().left.insert(lane, places.clone());
                    }
                    Some((Ok(rows), places))
                }
                Err(error) => {
                    pass.seen().error.get_or_insert(error);
                    Some((Err(ReadFailed), Vec::new()))
                }
            }
        }
    });
    rows.boxed()
}

impl Pass {
    /// Reads what the statement has left unread, because it needs no row of a topic or no more of them: those records may
    /// still be lost.
    pub(crate) async fn finish(self: &Arc<Self>) {
        for topic in self.judges.decoders.keys() {
            for lane in 0..self.lanes {
                let of_lane = (topic.clone(), lane);
                let left = self.seen().left.get(&of_lane).cloned();
                let left = left.unwrap_or_else(|| self.lane(topic, lane));
                read(Arc::clone(self), left, Some(of_lane)).for_each(|_| std::future::ready(())).await;
            }
        }
    }

    /// The partitions of a lane, the first one last.
    fn lane(&self, topic: &str, lane: usize) -> Vec<Place> {
        let ranges = self.input.get().into_iter().flat_map(|input| &input.ranges);
        let own = ranges.filter(|(partition, _)| partition.topic == topic);
        let mut places: Vec<Place> = own.skip(lane).step_by(self.lanes).map(|place| self.place(place)).collect();
        places.reverse();
        places
    }
}
