use millstream_core::TopicPartition;
use millstream_testkit::MemoryLog;

use super::*;
use crate::testing::{Notes, TokioClock};

fn records(times_ms: &[i64]) -> Vec<Result<NewRecord>> {
    let record = |ms: &i64| NewRecord { value: Some(b"{}".to_vec()), timestamp_ms: Some(*ms), ..NewRecord::default() };
    times_ms.iter().map(|ms| Ok(record(ms))).collect()
}

/// Produces, and returns for each record the milliseconds until it was sent.
async fn sent_ms(records: Vec<Result<NewRecord>>, tempo: Tempo, takes_ms: u64) -> Vec<u64> {
    let clock = TokioClock::new();
    let notes = Arc::new(Notes { takes_ms, ..Notes::new(&clock) });
    let total = records.len() as u64;
    let count = produce(records.into_iter(), tempo, "t", notes.clone(), clock, || false, |_| Ok(())).await.unwrap();
    assert_eq!(count, total);
    let sends = notes.sends.lock().unwrap();
    sends.iter().flat_map(|(ms, records)| records.iter().map(|_| *ms)).collect()
}

/// Sent when due, or with the next tick (and the timer's millisecond).
fn assert_due(sent_ms: &[u64], due_ms: &[u64]) {
    assert_eq!(sent_ms.len(), due_ms.len());
    let on_time = sent_ms.iter().zip(due_ms).all(|(sent, due)| (*due..=due + 22).contains(sent));
    assert!(on_time, "sent {sent_ms:?}, due {due_ms:?}");
}

#[tokio::test(start_paused = true)]
async fn records_keep_their_distances_at_any_speed() {
    let times = [7_000, 7_000, 8_500, 8_000, 67_000, 67_100];
    let pace = |speed| Tempo::EventTime { speed };
    assert_due(&sent_ms(records(&times), pace(1.0), 0).await, &[0, 0, 1_500, 1_500, 60_000, 60_100]);
    assert_due(&sent_ms(records(&times), pace(60.0), 0).await, &[0, 0, 25, 25, 1_000, 1_001]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept() {
    let sent = sent_ms(records(&[5; 1_001]), Tempo::PerSecond(100.0), 0).await;
    assert_due(&sent, &(0..1_001).map(|at| at * 10).collect::<Vec<_>>());
    assert_eq!(sent_ms(records(&[5; 50_000]), Tempo::Unpaced, 0).await, [0; 50_000]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_topic_moves_everything_later() {
    let sent = sent_ms(records(&[0, 100, 200, 300, 30_000]), Tempo::EventTime { speed: 1.0 }, 10_000).await;
    // The second to fourth are sent at 10 s, of which 1 s is made up for: the rest comes 8.9 s later than it would.
    assert_eq!(sent[..4], [10_000, 20_000, 20_000, 20_000]);
    assert!((48_700..49_200).contains(&sent[4]), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_bad_record_ends_it_behind_the_good_ones() {
    let mut records = records(&[1, 2, 3]);
    records.insert(2, Err(Error::poison("orders.csv:4: it is not UTF-8")));
    let log = MemoryLog::with_topic("t", 1);
    let producer = Arc::new(log.clone());
    let mut told = 0;
    let sent = |outcome: Outcome<'_>| match outcome {
        Outcome::Sent(positions) => {
            told += positions.len();
            Ok(())
        }
        Outcome::Refused(error) => Err(error),
    };
    let done = produce(records.into_iter(), Tempo::Unpaced, "t", producer, TokioClock::new(), || false, sent).await;
    let error = done.unwrap_err();
    assert_eq!(error.to_string(), "orders.csv:4: it is not UTF-8");
    assert!(matches!(error, Error::Poison(_)));
    assert_eq!((log.all(&TopicPartition::new("t", 1, 0)).len(), told), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn it_stops_between_records_that_are_far_apart() {
    let clock = TokioClock::new();
    let notes = Arc::new(Notes::new(&clock));
    let stopping = || clock.elapsed_ms() > 2_000;
    let records = records(&[0, 86_400_000]).into_iter();
    let tempo = Tempo::EventTime { speed: 1.0 };
    let count = produce(records, tempo, "t", notes.clone(), clock.clone(), stopping, |_| Ok(())).await.unwrap();
    assert_eq!((count, notes.records().len()), (1, 1));
    assert!(clock.elapsed_ms() < 2_100);
}

#[tokio::test(start_paused = true)]
async fn without_timestamps_there_is_no_pace_of_theirs() {
    let clock = TokioClock::new();
    let records = [Ok(NewRecord::default())].into_iter();
    let tempo = Tempo::EventTime { speed: 1.0 };
    let done = produce(records, tempo, "t", Arc::new(Notes::new(&clock)), clock, || false, |_| Ok(())).await;
    assert!(matches!(done, Err(Error::Stop(_))), "{done:?}");
}

/// A topic that takes no record above a limit, nor the send that holds it; the send's other records may be written or not.
struct Limited(MemoryLog);

#[async_trait::async_trait]
impl Producer for Limited {
    async fn send(&self, topic: &str, mut records: Vec<NewRecord>) -> Result<Vec<Position>> {
        let large = |record: &NewRecord| record.value.as_ref().is_some_and(|value| value.len() > 1_000_000);
        let Some(at) = records.iter().position(large) else { return self.0.send(topic, records).await };
        records.truncate(at);
        self.0.send(topic, records).await?;
        Err(Error::poison("a record is larger than topic t takes"))
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_before_a_refused_record_is_sent_and_counted_once() {
    let of_bytes = |bytes: usize| Ok(NewRecord { value: Some(vec![b'x'; bytes]), ..NewRecord::default() });
    let sizes = [1, 2, 100_000, 3, 2_000_000, 4, 5, 3_000_000, 70_000, 6];
    for pass in [false, true] {
        let log = MemoryLog::with_topic("t", 1);
        let (mut told, mut passed) = (0, Vec::new());
        let done = {
            let told = |outcome: Outcome<'_>| match outcome {
                Outcome::Sent(positions) => {
                    told += positions.len();
                    Ok(())
                }
                Outcome::Refused(error) => {
                    passed.push(error.to_string());
                    if pass { Ok(()) } else { Err(error) }
                }
            };
            let (producer, clock) = (Arc::new(Limited(log.clone())), TokioClock::new());
            let records = sizes.map(of_bytes).into_iter();
            produce(records, Tempo::Unpaced, "t", producer, clock, || false, told).await
        };
        let batch = log.all(&TopicPartition::new("t", 1, 0));
        let kept: Vec<usize> = (0..batch.len()).map(|row| batch.values().value(row).len()).collect();
        match pass {
            false => assert_eq!((done.is_err(), kept, passed.len()), (true, sizes[..4].to_vec(), 1)),
            true => {
                assert_eq!((done.unwrap(), passed.len()), (8, 2));
                assert_eq!(kept, sizes.iter().copied().filter(|size| *size < 1_000_000).collect::<Vec<_>>());
            }
        }
        assert_eq!(told, batch.len());
    }
}
