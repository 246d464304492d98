//! An audit of the newer rows, on a real log: it finds what is wrong with them, and reads no more than they are made of.

use std::sync::Arc;

use millstream_assembly::{AuditOptions, AuditReport, Connections, Systems, audit_part};
use millstream_core::{Clock as _, Env, NewRecord, SystemClock};
use millstream_pipeline::Pipeline;
use millstream_tests::{Store, unique};

const HOUR_MS: i64 = 3_600_000;

struct Hours {
    pipeline: Pipeline,
    systems: Systems,
    postgres: tokio_postgres::Client,
    _folder: tempfile::TempDir,
}

impl Hours {
    async fn new() -> Self {
        let Store::Services { kafka, direct, .. } = Store::services("audit_since").await else {
            unreachable!("services were asked for")
        };
        let topic = unique("audited");
        let text = format!(
            r#"
name: {topic}
topics:
  {topic}: {{ partitions: 2, schema: {{ shop: string, n: bigint, at: timestamp(ms) not null }}, event_time: at }}
functions:
  hours:
    uses: aggregate
    from: {topic}
    ahead: 1h
    sql: SELECT tumble(at, INTERVAL '1 hour') AS hour, shop, sum(n) AS n FROM {topic} GROUP BY 1, 2
    into: postgres.hours
  kept: {{ uses: aggregate, from: {topic}, ahead: 1h, sql: "SELECT shop, at, n FROM {topic}", into: postgres.kept }}
"#
        );
        let folder = tempfile::tempdir().unwrap();
        let pipeline = Pipeline::parse(&text, &folder.path().join("pipeline.yaml")).unwrap();
        let settings = [("MILLSTREAM_KAFKA_BROKERS", kafka), ("MILLSTREAM_POSTGRES_URL", direct.clone())];
        let mut connections = Connections::read(&Env::of(settings)).unwrap();
        connections.data_dir = folder.path().to_owned();
        let systems = Systems::open(&pipeline, &connections, Arc::new(SystemClock)).unwrap();
        systems.create_topics(&pipeline).await.unwrap();
        let (postgres, connection) = tokio_postgres::connect(&direct, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        Self { pipeline, systems, postgres, _folder: folder }
    }

    /// Twelve hours from `from_ms` on: each has a record dated an hour ahead, one dated two hours back, and one in time, whose
    /// timestamp is a minute before that of the others.
    async fn fill(&self, from_ms: i64) {
        let topic = &self.pipeline.topics[&self.pipeline.name];
        let hour = |hour: i64| {
            let own_ms = from_ms + hour * HOUR_MS;
            [
                ("ahead", own_ms, own_ms + HOUR_MS),
                ("late", own_ms, own_ms - 2 * HOUR_MS),
                ("own", own_ms - 60_000, own_ms),
            ]
        };
        let record = |(shop, timestamp_ms, at_ms): (&str, i64, i64)| NewRecord {
            value: Some(format!(r#"{{"shop":"{shop}","n":1,"at":{at_ms}}}"#).into_bytes()),
            timestamp_ms: Some(timestamp_ms),
            ..NewRecord::default()
        };
        let both =
            |partition| (0..12).flat_map(hour).map(move |of| NewRecord { partition: Some(partition), ..record(of) });
        let records = both(0).chain(both(1)).collect();
        self.systems.producer(topic).unwrap().send(&self.pipeline.name, records).await.unwrap();
        for name in ["hours", "kept"] {
            let function = self.systems.function(&self.pipeline, name).await.unwrap();
            function.drain(self.systems.source().as_ref()).await.unwrap();
        }
    }

    async fn since(&self, name: &str, since_ms: i64) -> AuditReport {
        let options = AuditOptions { since_ms: Some(since_ms), ..AuditOptions::default() };
        audit_part(&self.systems, &self.pipeline, name, options, &mut |_| ()).await.unwrap()
    }

    async fn execute(&self, sql: &str) {
        assert!(self.postgres.execute(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}")) > 0, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_newer_rows_is_found_and_one_of_older_rows_is_not_compared() {
    let hours = Hours::new().await;
    // Retention goes by the records' timestamps: they are of yesterday.
    let from_ms = (SystemClock.now_us() / 1_000 / HOUR_MS - 30) * HOUR_MS;
    hours.fill(from_ms).await;
    // Records from two hours and a half before the end on: those of the last three hours but the first one's own.
    let since_ms = from_ms + 9 * HOUR_MS + HOUR_MS / 2;
    for (name, compared) in [("hours", 2 + 3), ("kept", 4 + 6)] {
        let report = hours.since(name, since_ms).await;
        assert!(report.is_clean() && report.compared == compared, "{name}: {report:?}");
        assert!(report.ranges.iter().all(|(_, range)| *range == (27..36)), "{report:?}");
        assert_eq!(report.records, 18, "{report:?}");
    }
    let change = async |shop: &str, hour: i64, by: i64| {
        let at = (from_ms + hour * HOUR_MS) / 1_000;
        hours
            .execute(&format!("UPDATE hours SET n = n + {by} WHERE shop = '{shop}' AND hour = to_timestamp({at})"))
            .await;
    };
    change("own", 9, 1).await;
    assert!(hours.since("hours", since_ms).await.is_clean(), "that row begins before");
    let report = hours.since("hours", since_ms - HOUR_MS / 2).await;
    assert!(report.differences.len() == 1 && report.differences[0].to_string().contains("shop='own'"), "{report:?}");
    change("ahead", 10, 1).await;
    let report = hours.since("hours", since_ms).await;
    assert!(report.differences.len() == 1 && report.differences[0].to_string().contains("shop='ahead'"), "{report:?}");

    // A time that no function stores.
    let row = format!("shop = 'own' AND at = to_timestamp({})", (from_ms + 10 * HOUR_MS) / 1_000);
    hours.execute(&format!("UPDATE kept SET at = 'infinity' WHERE {row}")).await;
    let report = hours.since("kept", since_ms).await;
    let found: Vec<String> = report.differences.iter().map(ToString::to_string).collect();
    assert!(found.len() == 3 && found[0].starts_with("missing in the sink: shop='own', at="), "{found:?}");
    assert!(found[0].ends_with("(2 times)"), "{found:?}");
    // A time that can't be read may be after any other.
    assert_eq!(found[1..], ["not from the log: shop='own', at=infinity, n=1"; 2]);
    let report = millstream_assembly::audit(&hours.systems, &hours.pipeline, "kept").await.unwrap();
    let found: Vec<String> = report.differences.iter().map(ToString::to_string).collect();
    let unreadable = found.iter().filter(|found| *found == "not from the log: shop='own', at=infinity, n=1").count();
    assert_eq!((unreadable, report.total_differences), (2, 3), "{found:?}");
}

/// What a function has sent again looks newer than it is, if the broker stamps it: without what was sent before, nobody can tell.
#[tokio::test(flavor = "multi_thread")]
async fn records_that_the_broker_stamps_are_not_audited_since_a_time_where_they_may_have_been_sent_again() {
    for by_broker in [false, true] {
        let Store::Services { kafka, direct, .. } = Store::services("audit_resent").await else {
            unreachable!("services were asked for")
        };
        let topic = unique("resent");
        let text = format!(
            r#"
name: {topic}
topics:
  {topic}: {{ partitions: 1, schema: {{ n: bigint }} }}
  {topic}.made: {{ partitions: 1, schema: {{ n: bigint }} }}
functions:
  make: {{ uses: transform, from: {topic}, sql: "SELECT n FROM {topic}", into: topic.{topic}.made }}
  kept: {{ uses: aggregate, from: {topic}.made, sql: 'SELECT _timestamp, n FROM "{topic}.made"', into: postgres.kept }}
"#
        );
        let folder = tempfile::tempdir().unwrap();
        let pipeline = Pipeline::parse(&text, &folder.path().join("pipeline.yaml")).unwrap();
        let settings = [("MILLSTREAM_KAFKA_BROKERS", kafka), ("MILLSTREAM_POSTGRES_URL", direct)];
        let mut connections = Connections::read(&Env::of(settings)).unwrap();
        connections.data_dir = folder.path().to_owned();
        let systems = Systems::open(&pipeline, &connections, Arc::new(SystemClock)).unwrap();
        let made = format!("{topic}.made");
        let config = if by_broker { "LogAppendTime" } else { "CreateTime" };
        systems.topics().create_topic(&made, 1, &[("message.timestamp.type", config)]).await.unwrap();
        systems.create_topics(&pipeline).await.unwrap();
        let began_ms = SystemClock.now_us() / 1_000;
        // Each record has the time of the one that it was made of.
        let send = async |offset: i64| {
            let record = NewRecord {
                value: Some(format!(r#"{{"n":{offset}}}"#).into_bytes()),
                timestamp_ms: Some(began_ms + offset * 10),
                headers: vec![("millstream-source".to_owned(), format!("{topic}/1/0/{offset}/0").into_bytes())],
                ..NewRecord::default()
            };
            systems.producer(&pipeline.topics[&made]).unwrap().send(&made, vec![record]).await.unwrap();
        };
        send(0).await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let since_ms = if by_broker { SystemClock.now_us() / 1_000 } else { began_ms + 5 };
        send(1).await;
        send(0).await;
        send(1).await;
        send(2).await;
        let function = systems.function(&pipeline, "kept").await.unwrap();
        function.drain(systems.source().as_ref()).await.unwrap();
        assert!(millstream_assembly::audit(&systems, &pipeline, "kept").await.unwrap().is_clean());
        let options = AuditOptions { since_ms: Some(since_ms), ..AuditOptions::default() };
        let report = audit_part(&systems, &pipeline, "kept", options, &mut |_| ()).await;
        if by_broker {
            let refused = report.unwrap_err().to_string();
            assert!(refused.contains("LogAppendTime") && refused.contains("--sample 5%"), "{refused}");
        } else {
            let report = report.unwrap();
            assert!(report.is_clean() && report.compared == 2, "{report:?}");
        }
    }
}
