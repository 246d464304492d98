//! Unavailable services: at start, and under load.

use std::time::Duration;

use millstream_tests::{Child, OwnServices, PATIENCE, Scene, Setting, Store, bank, new_database, until};

/// How long PostgreSQL is unavailable under load: longer than every timeout of a statement and a connection.
const OUTAGE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn unavailable_services_are_retried() {
    let services = OwnServices::start(&["kafka", "postgres"]).await;
    let postgres = new_database(&services.postgres(), "outage").await;
    let store = Store::Services { kafka: services.kafka(), postgres: postgres.clone(), direct: postgres };
    let scene = Scene::new(Setting { name: "outage", store, max_records: 500, ..Setting::default() }).await;
    let function = scene.function("flow").await;
    let mut written = scene.write(bank::transactions_with_bad(70, 5_000, 100)).await;

    services.take_away("kafka").await;
    let mut child = Child::start("aggregate", &scene, "flow", &[]);
    says(&mut child, "Kafka").await;
    services.bring_back("kafka").await;
    scene.until_all_in("flow", &mut [&mut child]).await;

    for (number, service) in ["postgres", "kafka"].into_iter().enumerate() {
        written.extend(scene.write(bank::transactions_with_bad(71 + number as u64, 30_000, 100)).await);
        let before = scene.brought_in(&function).await;
        until(PATIENCE, "progress", async || {
            child.assert_runs();
            if scene.brought_in(&function).await > before { Ok(()) } else { Err("no record is in".into()) }
        })
        .await;
        let said = child.stderr().len();
        services.take_away(service).await;
        says_after(&mut child, said, if service == "kafka" { "Kafka" } else { "Postgres" }).await;
        if service == "postgres" {
            tokio::time::sleep(OUTAGE).await;
            child.assert_runs();
        }
        services.bring_back(service).await;
        scene.until_all_in("flow", &mut [&mut child]).await;
    }
    child.drain().await;
    scene.assert_exact(&written, "after outages").await;

    services.take_away("postgres").await;
    let mut child = Child::start("aggregate", &scene, "flow", &[]);
    says(&mut child, "Postgres").await;
    services.bring_back("postgres").await;
    written.extend(scene.write(bank::transactions(75, 5_000)).await);
    scene.until_all_in("flow", &mut [&mut child]).await;
    child.drain().await;
    scene.assert_exact(&written, "after a start without Postgres").await;
}

/// Waits until a process has reported an outage, and checks that it still runs.
async fn says(child: &mut Child, words: &str) {
    says_after(child, 0, words).await;
}

/// The same, ignoring the first `said` bytes of its stderr.
async fn says_after(child: &mut Child, said: usize, words: &str) {
    until(PATIENCE, "a report of the outage", async || {
        child.assert_runs();
        let said = child.stderr().split_off(said);
        if said.contains(words) { Ok(()) } else { Err(format!("{words} is not in: {said}")) }
    })
    .await;
}
