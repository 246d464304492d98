use std::{
    collections::VecDeque,
    future::pending,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use millstream_pipeline::{Pipeline, Topic};

use super::*;
use crate::testing::{Notes, TokioClock};

/// An API that answers by a script, and notes when it was asked and with which `etag`. After the script it never answers.
struct Script {
    clock: Arc<TokioClock>,
    answers: Mutex<VecDeque<Result<Answer, Failed>>>,
    asked: Mutex<Vec<(u64, Option<String>)>>,
}

#[async_trait]
impl Fetch for Script {
    async fn fetch(&self, etag: Option<&str>) -> Result<Answer, Failed> {
        self.asked.lock().unwrap().push((self.clock.elapsed_ms(), etag.map(str::to_owned)));
        let answer = self.answers.lock().unwrap().pop_front();
        match answer {
            Some(answer) => answer,
            None => pending().await,
        }
    }

    fn place(&self) -> String {
        "api".to_owned()
    }
}

fn body(text: &str) -> Result<Answer, Failed> {
    Ok(Answer { body: Some(text.as_bytes().to_vec()), etag: None })
}

fn topic(poll: &str) -> (Topic, millstream_pipeline::Poll) {
    let text = format!(
        "name: p\ntopics: {{ t: {{ partitions: 1, schema: {{ a: bigint }} }} }}\nfunctions:\n  f:\n    uses: ingest\n    \
         poll: {{ url: https://x.example, every: 5s, {poll} }}\n    into: topic.t\n"
    );
    let pipeline = Pipeline::parse(&text, "p.yaml".as_ref()).unwrap_or_else(|errors| panic!("{errors}"));
    (pipeline.topics["t"].clone(), pipeline.functions["f"].making().unwrap().poll().unwrap().clone())
}

struct Run {
    asked: Vec<(u64, Option<String>)>,
    polled: Polled,
    notes: Arc<Notes>,
}

/// Polls for `seconds`, every 5 s. The clock begins at a multiple of 5 s.
async fn run(settings: &str, answers: Vec<Result<Answer, Failed>>, seconds: u64) -> Run {
    let clock = TokioClock::new();
    let notes = Arc::new(Notes::new(&clock));
    let (asked, polled) = run_into(settings, answers, seconds, &clock, notes.clone()).await;
    Run { asked, polled: polled.unwrap(), notes }
}

async fn run_into(
    settings: &str,
    answers: Vec<Result<Answer, Failed>>,
    seconds: u64,
    clock: &Arc<TokioClock>,
    producer: Arc<dyn Producer>,
) -> (Vec<(u64, Option<String>)>, Result<Polled>) {
    let script =
        Arc::new(Script { clock: clock.clone(), answers: Mutex::new(answers.into()), asked: Mutex::default() });
    let (topic, declared) = topic(settings);
    let mut poller = Poller::new("f", &topic, &declared, None, script.clone(), 7).unwrap();
    let stopping = || clock.elapsed_ms() >= seconds * 1_000;
    let polled = poll(&mut poller, "t", producer, clock.clone(), stopping, |_| {}).await;
    let asked = script.asked.lock().unwrap().clone();
    (asked, polled)
}

fn times(asked: &[(u64, Option<String>)]) -> Vec<u64> {
    asked.iter().map(|(ms, _)| *ms).collect()
}

#[tokio::test(start_paused = true)]
async fn it_polls_once_per_multiple_of_the_interval() {
    let run = run("", vec![body("{\"a\":1}"), body("{\"a\":2}"), body("{\"a\":3}")], 12).await;
    assert_eq!(times(&run.asked), [0, 5_000, 10_000]);
    assert_eq!(run.polled, Polled { acknowledged: 3, answered: 3, failed: 0, refused: 0 });
    let records = run.notes.records();
    assert_eq!(records[1].value.as_deref(), Some(b"{\"a\":2}".as_slice()));
    assert_eq!(records[1].timestamp_ms, Some(TokioClock::START_US / 1_000 + 5_000), "when it came");
}

#[tokio::test(start_paused = true)]
async fn two_calls_poll_as_one_and_late_polls_are_left_out() {
    let clock = TokioClock::new();
    let answers: VecDeque<_> = (0..9).map(|a| body(&format!("{{\"a\":{a}}}"))).collect();
    let script = Arc::new(Script { clock: clock.clone(), answers: Mutex::new(answers), asked: Mutex::default() });
    let (topic, declared) = topic("");
    let mut poller = Poller::new("f", &topic, &declared, None, script.clone(), 7).unwrap();
    let notes = Arc::new(Notes { takes_ms: 12_000, ..Notes::new(&clock) });
    for until_ms in [2_000, 4_000] {
        let (stopping, notes) = (|| clock.elapsed_ms() >= until_ms, notes.clone());
        poll(&mut poller, "t", notes, clock.clone(), stopping, |_| {}).await.unwrap();
    }
    // Each send takes 12 s, also the first one, which the first call waits for.
    assert_eq!(times(&script.asked.lock().unwrap()), [0]);
    let stopping = || clock.elapsed_ms() >= 40_000;
    poll(&mut poller, "t", notes, clock.clone(), stopping, |_| {}).await.unwrap();
    assert_eq!(
        times(&script.asked.lock().unwrap()),
        [0, 12_000, 24_000, 36_000],
        "the polls of 5, 15, 20 s and so on are left out"
    );
}

#[tokio::test(start_paused = true)]
async fn after_failures_the_pauses_grow_and_retry_after_is_obeyed() {
    let throttled = Failed { retry_after: Some(Duration::from_secs(30)), ..Failed::passing("429") };
    let mut answers: Vec<_> = (0..8).map(|_| Err(Failed::passing("down"))).collect();
    answers.extend([body("{}"), Err(throttled), body("{}"), Err(Failed::lasting("404")), body("{}")]);
    let run = run("", answers, 400).await;
    let times = times(&run.asked);
    let pauses: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (pause, most) in pauses.iter().zip([1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]) {
        assert!((most / 2..=most + 100).contains(pause), "{pause} of {most}: {pauses:?}");
    }
    assert_eq!(times[9] % 5_000, 0, "after an answer, at the multiples again");
    assert!((30_000..30_200).contains(&pauses[9]), "{pauses:?}");
    assert!((30_000..=60_100).contains(&pauses[11]), "{pauses:?}");
    assert_eq!(run.polled, Polled { acknowledged: 3, answered: 3, failed: 10, refused: 0 });
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_asked_too_often_is_not_asked_more_often() {
    let throttled = || Err(Failed { is_throttled: true, ..Failed::passing("429") });
    let run = run("", vec![throttled(), throttled(), body("{}")], 30).await;
    let times = times(&run.asked);
    assert!(times[1] >= 5_000 && times[2] >= times[1] + 5_000, "{times:?}");
    assert_eq!(run.polled.answered, 1);
}

/// A topic that takes no value of more than 20 bytes.
struct Small(Notes);

#[async_trait]
impl Producer for Small {
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Result<Vec<Position>> {
        self.check_sizes(topic, &records).await?;
        self.0.send(topic, records).await
    }

    async fn check_sizes(&self, _topic: &str, records: &[NewRecord]) -> Result<()> {
        let is_large = |record: &NewRecord| record.value.as_ref().is_some_and(|value| value.len() > 20);
        if records.iter().any(is_large) { Err(Error::poison("a record is too large")) } else { Ok(()) }
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_that_is_too_large_does_not_keep_the_others_out() {
    let large = format!("{{\"a\":1,\"b\":\"{}\"}}", "x".repeat(20));
    let list = || body(&format!("[{{\"a\":1}},{large},{{\"a\":2}}]"));
    let clock = TokioClock::new();
    let topic = Arc::new(Small(Notes::new(&clock)));
    let (asked, polled) = run_into("records: .", vec![list(), list()], 8, &clock, topic.clone()).await;
    let polled = polled.unwrap();
    assert_eq!(polled, Polled { acknowledged: 4, answered: 2, failed: 0, refused: 2 });
    assert_eq!(times(&asked), [0, 5_000], "what is too large will not pass by waiting");
    let values: Vec<_> = topic.0.records().into_iter().filter_map(|record| record.value).collect();
    assert_eq!(values[..2], [b"{\"a\":1}".to_vec(), b"{\"a\":2}".to_vec()]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_json_is_counted_and_never_sent() {
    let run = run("", vec![body("<html>"), body("{\"a\":1} {"), body("{\"a\":1}")], 10).await;
    assert_eq!(run.polled, Polled { acknowledged: 1, answered: 1, failed: 2, refused: 0 });
    assert_eq!(run.notes.records().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_etag_is_sent_back_once_its_records_are_in_the_topic() {
    let tagged = |etag: &str| Ok(Answer { body: Some(b"{}".to_vec()), etag: Some(etag.to_owned()) });
    let unchanged = || Ok(Answer { body: None, etag: Some("one".to_owned()) });
    let down = || Err(Failed::passing("down"));
    // The last but one has no tag: it may say something else than the one before.
    let answers = || vec![tagged("one"), unchanged(), down(), tagged("two"), body("{}"), body("{}")];
    let etags = |asked: &[(u64, Option<String>)]| {
        asked.iter().map(|(_, etag)| etag.clone().unwrap_or_default()).collect::<Vec<_>>()
    };
    let with = run("etag: true", answers(), 22).await;
    assert_eq!(etags(&with.asked), ["", "one", "one", "one", "two", ""], "{:?}", with.asked);
    assert_eq!(
        with.polled,
        Polled { acknowledged: 4, answered: 5, failed: 1, refused: 0 },
        "unchanged is an answer without records"
    );
    assert_eq!(etags(&run("", answers(), 22).await.asked), [""; 6]);

    let clock = TokioClock::new();
    let (asked, polled) = run_into("etag: true", answers(), 130, &clock, Arc::new(Refusing)).await;
    assert_eq!(
        (etags(&asked)[1].as_str(), polled.unwrap().acknowledged),
        ("", 0),
        "it was not sent, so it must come again"
    );
}

/// A topic that refuses every record, such as one that is too large.
struct Refusing;

#[async_trait]
impl Producer for Refusing {
    async fn send(&self, _topic: &str, _records: Vec<NewRecord>) -> Result<Vec<Position>> {
        Err(Error::poison("it is too large"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_answer_is_a_failed_poll_and_a_missing_topic_the_end() {
    let clock = TokioClock::new();
    let (_, polled) = run_into("", vec![body("{}"), body("{}")], 100, &clock, Arc::new(Refusing)).await;
    assert_eq!(polled.unwrap().failed, 2);

    struct Missing;
    #[async_trait]
    impl Producer for Missing {
        async fn send(&self, _topic: &str, _records: Vec<NewRecord>) -> Result<Vec<Position>> {
            Err(Error::stop("no such topic"))
        }
    }
    let (_, polled) = run_into("", vec![body("{}")], 100, &TokioClock::new(), Arc::new(Missing)).await;
    assert!(polled.unwrap_err().to_string().contains("no such topic"));
}

#[tokio::test(start_paused = true)]
async fn a_request_to_stop_ends_a_poll_that_hangs_and_an_outage_of_the_topic() {
    let run = run("", Vec::new(), 3).await;
    assert_eq!((times(&run.asked), run.polled), (vec![0], Polled::default()));

    let (clock, stop) = (TokioClock::new(), AtomicBool::new(false));
    let notes = Arc::new(Notes::new(&clock));
    notes.failing.store(usize::MAX, Ordering::Relaxed);
    let script =
        Arc::new(Script { clock: clock.clone(), answers: Mutex::new([body("{}")].into()), asked: Mutex::default() });
    let (topic, declared) = topic("");
    let mut poller = Poller::new("f", &topic, &declared, None, script, 7).unwrap();
    let stopping = || stop.load(Ordering::Relaxed);
    let (polled, ()) = tokio::join!(poll(&mut poller, "t", notes, clock.clone(), stopping, |_| {}), async {
        sleep(Duration::from_secs(20)).await;
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(polled.unwrap(), Polled::default());
    assert!(clock.elapsed_ms() < 20_500);
}
