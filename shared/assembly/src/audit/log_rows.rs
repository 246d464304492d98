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
        let pass = Arc::clone(&self.pass);
        let ranges = pass.input.get().into_iter().flat_map(|input| &input.ranges);
        let own = ranges.filter(|(partition, _)| partition.topic == self.topic);
        let mut places: Vec<Place> = own.skip(lane).step_by(pass.lanes).map(|place| pass.place(place)).collect();
        places.reverse();
        let counts = pass.seen().counted.insert((self.topic.clone(), lane));
        let rows = futures::stream::unfold(places, move |mut places| {
            let pass = Arc::clone(&pass);
            async move {
                while places.last().is_some_and(|place| place.range.is_empty()) {
                    places.pop();
                }
                let place = places.last_mut()?;
                match pass.next(place, counts).await {
                    Ok((rows, _)) => {
                        pass.given.fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
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
}

impl Pass {
    /// Reads the lanes that the statement didn't ask for, because it reads no row of their topic: their records may still be
    /// lost.
    pub(crate) async fn finish(self: &Arc<Self>) {
        for (topic, rows) in self.tables() {
            for lane in 0..self.lanes {
                if !self.seen().counted.contains(&(topic.clone(), lane)) {
                    rows.rows(lane).for_each(|_| std::future::ready(())).await;
                }
            }
        }
    }
}
