use std::{ops::Range, time::Duration};

use millstream_core::{BatchBuilder, Limits, Log, Watermarks};

use super::*;

/// A source that hands out these steps, and then looks again and again.
struct Steps(Vec<Step>);

enum Step {
    /// A batch of so many records.
    Batch(i64),
    /// All was seen.
    Seen,
    /// It can't be read.
    Away,
    /// Nothing comes for so long.
    Silence(Duration),
}

#[async_trait]
impl Log for Steps {
    async fn partitions(&self, _: &str) -> Result<i32> {
        Ok(1)
    }

    async fn watermarks(&self, _: &TopicPartition) -> Result<Watermarks> {
        Err(Error::retry("not asked"))
    }

    async fn first_since(&self, _: &TopicPartition, _: i64) -> Result<Option<i64>> {
        Ok(None)
    }

    async fn read(&self, _: &TopicPartition, _: Range<i64>, _: Limits) -> Result<Batch> {
        Err(Error::retry("not asked"))
    }
}

#[async_trait]
impl Source for Steps {
    async fn consume(&self, _: Subscription, handler: Arc<dyn Handler>) -> Result<()> {
        let (partition, mut next) = (TopicPartition::new("store.events", 1, 0), 0);
        handler.start(&partition).await?;
        for step in &self.0 {
            match step {
                Step::Batch(records) => {
                    let mut builder = BatchBuilder::new(partition.clone());
                    (next..next + records).for_each(|at| builder.push(at, 0, None, None, []));
                    handler.handle(builder.finish_read(next, next + records)).await?;
                    next += records;
                }
                Step::Seen => handler.looked("store.events", Ok(())),
                Step::Away => handler.looked("store.events", Err(&Error::retry("the store is away"))),
                Step::Silence(pause) => sleep(*pause).await,
            }
            if handler.stopping() {
                return Ok(());
            }
        }
        while !handler.stopping() {
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

struct Sums;

#[async_trait]
impl Process for Sums {
    fn function(&self) -> &str {
        "shop.revenue"
    }

    async fn start(&self, _: &TopicPartition) -> Result<i64> {
        Ok(0)
    }

    async fn process(&self, batch: Batch) -> Result<i64> {
        Ok(batch.range().end)
    }

    async fn next_offset(&self, _: &TopicPartition) -> Result<Option<i64>> {
        Ok(None)
    }
}

async fn answer(steps: Vec<Step>) -> Result<CaughtUp, String> {
    let subscription = Subscription {
        group: "shop.revenue".into(),
        topics: vec![("store.events".into(), 1)],
        limits: Limits { max_records: 10, max_bytes: 1 << 20, max_wait_ms: 10 },
        every_ms: None,
    };
    let event = ScheduledEvent { detail_type: "Scheduled Event".into() };
    let times = Times { work: Duration::from_secs(10), drain: Duration::from_secs(4) };
    let answered = answer_catch_up(&Steps(steps), &subscription, Arc::new(Sums), event, times).await;
    answered.map_err(|error| {
        assert!(error.is_retry(), "{error:?}");
        error.to_string()
    })
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_all_was_seen_and_says_how_many_records_that_were() {
    let caught_up = |records, caught_up| Ok(CaughtUp { records, caught_up });
    assert_eq!(answer(vec![Step::Batch(3), Step::Batch(4), Step::Seen]).await, caught_up(7, true));
    assert_eq!(answer(vec![Step::Seen]).await, caught_up(0, true));
    let slow = vec![Step::Batch(3), Step::Silence(Duration::from_secs(11)), Step::Batch(9)];
    assert_eq!(answer(slow).await, caught_up(3, false), "the next event goes on");
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_read_fails_the_invocation_whatever_came_before() {
    assert_eq!(answer(vec![Step::Away]).await.unwrap_err(), "shop.revenue: the store is away");
    assert_eq!(answer(vec![Step::Batch(3), Step::Away]).await.unwrap_err(), "shop.revenue: the store is away");
    let nothing = answer(vec![Step::Silence(Duration::from_secs(11))]).await.unwrap_err();
    assert!(nothing.contains("nothing was brought in within 10 s"), "{nothing}");
    let stuck = answer(vec![Step::Silence(Duration::from_secs(60))]).await.unwrap_err();
    assert!(stuck.contains("still under way shortly before the deadline"), "{stuck}");
}
