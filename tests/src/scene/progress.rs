use super::Scene;
use crate::{
    child::Child,
    wait::{PATIENCE, until},
};

impl Scene {
    /// Waits until a function's fences have reached the end of the log, while its processes run.
    pub async fn until_all_in(&self, name: &str, children: &mut [&mut Child]) {
        let function = self.function(name).await;
        let log = self.systems.source();
        let partitions = function.partitions(log.as_ref()).await.unwrap();
        let mut ends = Vec::new();
        for partition in partitions {
            let end = log.watermarks(&partition).await.unwrap().high;
            ends.push((partition, end));
        }
        let what = format!("all of {} in {name}", self.topic);
        until(PATIENCE, &what, async || {
            children.iter_mut().for_each(|child| child.assert_runs());
            for (partition, end) in &ends {
                // During an outage the fence can't be read either.
                let fence = function.runner.sink().fence(partition).await.map_err(|error| error.to_string())?;
                let next = fence.map_or(0, |fence| fence.next_offset);
                if next < *end {
                    return Err(format!("the fence of {partition} is at {next} of {end}"));
                }
            }
            Ok(())
        })
        .await;
    }
}
