//! The event with which a schedule of EventBridge calls a function, and the answer to it.
//!
//! It is described in <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-run-lambda-schedule.html>.

use std::time::Duration;

use millstream_core::{Error, Result};
use serde::{Deserialize, Serialize};
use tokio::{
    pin, select,
    time::{sleep, timeout},
};

use crate::{Made, Make, Stop};

/// What is left of an invocation for what is under way when it stops to begin new things; a fifth of it is for the answer.
const DRAIN: Duration = Duration::from_secs(5);

/// How an invocation spends its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long it begins new things.
    pub work: Duration,
    /// How long it waits for those that are under way then: Lambda must not end the sandbox first, which says nothing of the
    /// reason.
    pub drain: Duration,
}

/// What a rule or a schedule of EventBridge hands over, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ScheduledEvent {
    /// `Scheduled Event`.
    #[serde(rename = "detail-type", default)]
    pub detail_type: String,
}

impl ScheduledEvent {
    /// # Errors
    /// `Stop` when the event is not of a schedule.
    pub fn check(&self, function: &str) -> Result<()> {
        if self.detail_type == "Scheduled Event" {
            return Ok(());
        }
        Err(Error::stop(format!(
            "{function} takes events of a schedule (detail-type \"Scheduled Event\"), not {:?}: correct what calls it, such as a \
             rule of EventBridge with its own input",
            self.detail_type
        )))
    }
}

/// The answer to an event of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Acknowledged {
    /// Records of this invocation that the topic has acknowledged.
    pub acknowledged: u64,
}

/// How long an invocation makes records: the schedule's `period`, or until shortly before the deadline (5 s, but at most a
/// quarter of the time that is left), whichever comes first. Both times are milliseconds since 1970.
pub fn times(period: Duration, deadline_ms: u64, now_ms: i64) -> Times {
    let left = Duration::from_millis(deadline_ms.saturating_sub(now_ms.max(0).unsigned_abs()));
    let kept = DRAIN.min(left / 4);
    Times { work: period.min(left - kept), drain: kept * 4 / 5 }
}

/// Makes records for as long as `times` says, and waits for those that are under way.
///
/// # Errors
/// `Stop` when the event is not of a schedule; `Retry` when no record was acknowledged though there should have been some; what
/// [`Make::make`] returns.
pub async fn answer_schedule(maker: &dyn Make, event: ScheduledEvent, times: Times) -> Result<Acknowledged> {
    event.check(maker.function())?;
    let stop = Stop::default();
    let making = maker.make(&stop);
    pin!(making);
    let Made { acknowledged, .. } = select! {
        made = &mut making => made?,
        () = sleep(times.work) => {
            stop.request();
            // A send may not end before Lambda ends the sandbox, which says nothing of the reason.
            let Ok(made) = timeout(times.drain, making).await else {
                let function = maker.function();
                return Err(Error::retry(format!("{function}: records were still under way shortly before the deadline")));
            };
            match made? {
                // Lambda must count this as a failure: the alarms and the on-failure destination depend on it.
                Made { acknowledged: 0, none_because: Some(why) } => {
                    let (function, seconds) = (maker.function(), times.work.as_secs());
                    return Err(Error::retry(format!("{function}: no record was acknowledged in {seconds} s: {why}")));
                }
                made => made,
            }
        }
    };
    tracing::info!(function = maker.function(), acknowledged, "made records");
    Ok(Acknowledged { acknowledged })
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokio::time::Instant;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn the_period_or_the_deadline_ends_it() {
        let now_ms = 1_700_000_000_000;
        let deadline = |in_ms: u64| 1_700_000_000_000 + in_ms;
        let of = |work_s, drain_ms| Times { work: S(work_s), drain: Duration::from_millis(drain_ms) };
        assert_eq!(times(S(60), deadline(900_000), now_ms), of(60, 4_000));
        assert_eq!(times(S(60), deadline(60_000), now_ms), of(55, 4_000));
        assert_eq!(times(S(60), deadline(4_000), now_ms), of(3, 800), "a quarter is kept of a short one");
        assert_eq!(times(S(60), deadline(0), now_ms), of(0, 0));
        assert_eq!(times(S(60), 0, now_ms), of(0, 0), "a deadline that has passed");
    }

    fn working(work: Duration) -> Times {
        Times { work, drain: S(4) }
    }

    /// One record a second, and one more that is under way at the end.
    struct Ticking;

    #[async_trait]
    impl Make for Ticking {
        fn function(&self) -> &str {
            "bank.make"
        }

        async fn make(&self, stop: &Stop) -> Result<Made> {
            let mut made = 0;
            while stop.sleep(S(1)).await {
                made += 1;
            }
            sleep(S(2)).await;
            Ok(Made { acknowledged: made + 1, none_because: None })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_makes_records_for_its_time_and_waits_for_the_last() {
        let (event, began) = (ScheduledEvent { detail_type: "Scheduled Event".into() }, Instant::now());
        let made = answer_schedule(&Ticking, event, working(Duration::from_millis(10_500))).await.unwrap();
        assert_eq!((made, began.elapsed().as_millis() / 100), (Acknowledged { acknowledged: 11 }, 125));
    }

    /// Makes nothing, for this reason.
    struct Idle(Option<&'static str>);

    #[async_trait]
    impl Make for Idle {
        fn function(&self) -> &str {
            "bank.make"
        }

        async fn make(&self, stop: &Stop) -> Result<Made> {
            stop.wait().await;
            Ok(Made { acknowledged: 0, none_because: self.0.map(str::to_owned) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_records_are_a_failure_unless_there_was_nothing_new() {
        let event = || ScheduledEvent { detail_type: "Scheduled Event".into() };
        let error = answer_schedule(&Idle(Some("the API is down")), event(), working(S(60))).await.unwrap_err();
        assert!(error.is_retry() && error.to_string().contains("in 60 s: the API is down"), "{error}");
        let made = answer_schedule(&Idle(None), event(), working(S(60))).await.unwrap();
        assert_eq!(made, Acknowledged { acknowledged: 0 });
    }

    #[tokio::test]
    async fn an_event_of_something_else_is_refused() {
        let event = serde_json::from_str(r#"{"eventSource": "aws:kafka", "records": {}}"#).unwrap();
        let error = answer_schedule(&Ticking, event, working(S(1))).await.unwrap_err().to_string();
        assert!(error.contains("bank.make") && error.contains("Scheduled Event"), "{error}");
    }
}
