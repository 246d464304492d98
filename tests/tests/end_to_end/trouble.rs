//! Mistakes of producers and people: nothing panics, no other record is lost, and each error says what to do.

use millstream_assembly::dead_letter_topic;
use millstream_core::{Compression, Log};
use millstream_testkit::conformance::DeadLettersCheck;
use millstream_tests::{
    Child, PATIENCE, Record, Scene, Setting, Store, bank, delete_topic, kafka, postgres_client, until,
};

/// A text that every bad record contains, and that no message may show.
const PRIVATE: &str = "pr1vate";

/// Bad values, each with words that its reason must contain.
fn bad_values() -> Vec<(Option<Vec<u8>>, &'static str)> {
    let with = |fields: &str| Some(format!(r#"{{"note":"{PRIVATE}",{fields}}}"#).into_bytes());
    let amount = |amount: &str| {
        with(&format!(r#""branch":"Oslo","currency":"NOK","amount":{amount},"at":"2025-03-01T00:00:00Z""#))
    };
    let rest = r#""currency":"NOK","amount":1,"at":"2025-03-01T00:00:00Z""#;
    let deep = format!(r#""branch":"Oslo",{rest},"x":{}{}"#, "[".repeat(100_000), "]".repeat(100_000));
    vec![
        (None, "tombstone"),
        (Some(vec![]), "JSON"),
        (Some(b"null".to_vec()), "null"),
        (Some(b"\xff\xfepr1vate".to_vec()), "JSON"),
        (
            Some([br#"{"branch":"pr1vate"#.to_vec(), vec![0xc3, 0x28], br#"","currency":"NOK"}"#.to_vec()].concat()),
            "UTF-8",
        ),
        (with(&format!(r#""branch":"Oslo",{rest}"#)).map(|value| value[..60].to_vec()), "JSON"),
        (with(&format!(r#""branch":"Oslo",{rest}"#)).map(|value| [value, b"{}".to_vec()].concat()), "JSON"),
        (with(&format!(r#""branch":7,{rest}"#)), "`branch`"),
        (with(rest), "`branch`"),
        (with(r#""branch":"Oslo","currency":"NOK","amount":1,"at":"yesterday""#), "`at`"),
        (amount("null"), "`amount`"),
        (amount("[1]"), "`amount`"),
        (amount("99999999999999999.99"), "`amount`"),
        (amount("1e400"), "`amount`"),
        (amount("1.005"), "`amount`"),
        (amount("NaN"), "JSON"),
        (amount("-Infinity"), "JSON"),
        (with(&deep), "128"),
        (with(&format!(r#""x":"{}","branch":"Oslo",{rest}"#, "x".repeat(20 << 20))), "bytes"),
        // Valid in JSON but not in Postgres: found only when it is written.
        (with(&format!(r#""branch":"Os\u0000lo",{rest}"#)), ""),
    ]
}

/// Unusual but valid values; all of them mean the same.
fn odd_values() -> Vec<Vec<u8>> {
    let at = r#""at":"2025-02-28T23:59:59.5Z""#;
    [
        format!(r#"{{"branch":"Oslo","currency":"NOK","amount":1.25,{at},"more":{{"x":[1,{{}}]}}}}"#),
        format!(
            r#"{{"branch":"Rome","currency":"EUR","amount":7,{at},"amount":"1.25","currency":"NOK","branch":"Oslo"}}"#
        ),
        format!(" {{ \"\\u0062ranch\" :\t\"O\\u0073lo\", \"currency\":\"NOK\",\"amount\":125e-2,\r\n{at}}}\n"),
        r#"{"at":"2025-03-01T00:59:59.5+01:00","amount":1.250,"currency":"NOK","branch":"Oslo"}"#.to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec()
}

async fn keeps_dead_letters(check: DeadLettersCheck) {
    let store = Store::services("letters").await;
    let scene = Scene::new(Setting { name: "letters", store, ..Setting::default() }).await;
    check.run(scene.systems.dead_letters(&scene.pipeline).as_ref()).await;
}

mod dead_letters_in_kafka {
    millstream_testkit::dead_letter_tests!(super::keeps_dead_letters);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_records_become_dead_letters_and_their_neighbours_go_through() {
    let store = Store::services("bad").await;
    let scene = Scene::new(Setting { name: "bad", store, max_records: 1_000, ..Setting::default() }).await;
    let good = bank::transactions(60, 4_000);
    let mut records = Vec::new();
    let (mut bad, mut odd) = (bad_values().into_iter(), odd_values().into_iter());
    for (number, record) in good.into_iter().enumerate() {
        let beside = Record { means: None, ..record.clone() };
        records.push(record);
        if number % 100 == 0
            && let Some((value, _)) = bad.next()
        {
            records.push(Record { value, ..beside });
        } else if number % 100 == 50
            && let Some(value) = odd.next()
        {
            let means = bank::Transaction { branch: "Oslo", currency: "NOK", cents: 125, at_us: 1_740_787_199_500_000 };
            records.push(Record { value: Some(value), means: Some(means), ..beside });
        }
    }
    // Uncompressed, so that 20 MB are 20 MB on their way.
    let written = scene.write_by(&kafka(scene.brokers(), Compression::None), records).await;
    let expected = bad_values();
    assert_eq!(written.bad().len(), expected.len());
    let mut flow = Child::start("aggregate", &scene, "flow", &[]);
    let mut archive = Child::start("archive", &scene, "archive", &[]);
    scene.until_all_in("flow", &mut [&mut flow, &mut archive]).await;
    scene.until_all_in("archive", &mut [&mut flow, &mut archive]).await;
    flow.drain().await;
    archive.drain().await;
    bank::assert_same(&scene.table().await, &written.sums(), "good neighbours");
    // A file can hold the text that Postgres can't.
    assert_eq!(scene.archived().await.len(), written.transactions().len() + 1);
    assert_eq!(scene.dead_letters("archive").await.len(), expected.len() - 1);
    let letters = scene.dead_letters("flow").await;
    assert_eq!(letters.len(), expected.len());
    for letter in letters {
        let place = (letter.position.partition.partition, letter.position.offset);
        let value = written.bad()[&place].clone();
        let (_, words) = expected.iter().find(|(bad, _)| *bad == value).unwrap();
        assert!(letter.reason.contains(words), "`{}` should contain {words}", letter.reason);
        assert!(!letter.reason.is_empty() && !letter.reason.contains(PRIVATE), "{}", letter.reason);
        assert_eq!(letter.value_bytes, value.as_ref().map_or(0, Vec::len));
        // The letter of a long value has only its beginning.
        let kept = |kept: &Vec<u8>| value.as_ref().is_some_and(|value| value.starts_with(kept));
        assert!(letter.value.as_ref().map_or(value.is_none(), kept), "{place:?} has another value");
        assert_eq!(letter.timestamp_ms, written.records[&place].at_us / 1_000);
        assert_eq!(letter.key.as_deref(), Some(written.records[&place].key.as_bytes()));
    }
    for child in [&flow, &archive] {
        assert!(!child.stderr().contains(PRIVATE), "the log shows a record");
    }
}

/// Runs a function that can't work, and returns its stderr.
pub async fn refused(scene: &Scene) -> String {
    refused_with(scene, &[]).await
}

/// The same with additional environment variables.
async fn refused_with(scene: &Scene, env: &[(&str, String)]) -> String {
    let mut child = Child::start("aggregate", scene, "flow", env);
    let status = child.end().await;
    let said = child.stderr();
    assert_eq!(status.code(), Some(1), "it ended with {status}: {said}");
    // The password of the services.
    let secret = said.replace("a secret that did not mount", "").contains("secret");
    assert!(!said.contains("panicked") && !secret, "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_does_not_exist_is_named() {
    let store = Store::services("missing").await;
    let scene = Scene::new(Setting { name: "missing", store, create: false, ..Setting::default() }).await;
    let said = refused(&scene).await;
    assert!(said.contains(&scene.topic) && said.contains("millstream up"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_columns_do_not_fit_is_named() {
    let store = Store::services("misfit").await;
    let scene = Scene::new(Setting { name: "misfit", store, ..Setting::default() }).await;
    let table = format!("flow_{}", scene.name());
    let sql =
        format!("CREATE TABLE {table} (curr_time timestamptz, branch_name integer, currency_code text, total text)");
    postgres_client(scene.direct()).await.batch_execute(&sql).await.unwrap();
    let said = refused(&scene).await;
    assert!(said.contains(&table) && said.contains("branch_name"), "{said}");
}

/// An operator may have forgotten the dead-letter topic.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_of_dead_letters_is_named_or_created_at_start() {
    let store = Store::services("letters").await;
    let scene = Scene::new(Setting { name: "letters", store, ..Setting::default() }).await;
    scene.function("flow").await; // its table
    let letters = dead_letter_topic(&scene.pipeline);
    delete_topic(scene.brokers(), &letters).await;
    let said = refused_with(&scene, &[("MILLSTREAM_CREATE", "false".into())]).await;
    assert!(said.contains(&letters) && said.contains("millstream up"), "{said}");
    let mut child = Child::start("aggregate", &scene, "flow", &[]);
    let kafka = kafka(scene.brokers(), Compression::None);
    until(PATIENCE, "the topic of the dead letters", async || {
        child.assert_runs();
        kafka.partitions(&letters).await.map_err(|error| error.to_string())
    })
    .await;
    child.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_did_not_mount_is_named() {
    let store = Store::services("unmounted").await;
    let scene = Scene::new(Setting { name: "unmounted", store, ..Setting::default() }).await;
    for name in ["MILLSTREAM_POSTGRES_URL", "MILLSTREAM_KAFKA_BROKERS", "MILLSTREAM_FUNCTION", "MILLSTREAM_PIPELINE"] {
        let said = refused_with(&scene, &[(name, String::new())]).await;
        assert!(said.contains(&format!("{name} is set and empty")), "{said}");
    }
    assert!(!scene.folder().join("data").join("millstream.db").exists(), "nothing was embedded instead");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_argument_of_a_binary_is_refused_and_not_told() {
    let scene = Scene::new(Setting { name: "argument", ..Setting::default() }).await;
    let mut child = Child::run("aggregate", &["--function=flow"], &scene, &[]);
    assert!(!child.end().await.success());
    let said = child.stderr();
    assert!(said.contains("takes no arguments") && said.contains("MILLSTREAM_FUNCTION"), "{said}");
    assert!(!said.contains("--function"), "it may be a secret: {said}");
}

/// `dev` runs the pipeline on the same brokers as the function in production.
#[tokio::test(flavor = "multi_thread")]
async fn dev_does_not_join_the_group_of_the_function_in_production() {
    let store = Store::services("beside").await;
    let scene = Scene::new(Setting { name: "beside", store, ..Setting::default() }).await;
    let written = scene.write(bank::transactions(66, 3_000)).await;
    let folder = scene.environment()["MILLSTREAM_PIPELINE"].clone();
    let mut dev = Child::run(
        "millstream",
        &["dev", &folder, "--plain", "--into-postgres"],
        &scene,
        &[("USER", "ann".into()), ("HOSTNAME", "laptop.home".into())],
    );
    scene.until_all_in("flow", &mut [&mut dev]).await;
    scene.until_all_in("archive", &mut [&mut dev]).await;
    dev.drain().await;
    let said = dev.stderr();
    assert!(said.contains("consumer groups of its own (dev.ann-laptop-home.…)"), "{said}");
    let group = scene.group("flow");
    let of_group = async |group: &str| scene.systems.group_offsets(group, &scene.topic, 1).await.unwrap();
    assert_eq!(of_group(&group).await, [None; 3], "production's group has no offsets");
    let ends: Vec<_> = written.ends().into_values().map(Some).collect();
    assert_eq!(of_group(&format!("dev.ann-laptop-home.{group}")).await, ends);
}
