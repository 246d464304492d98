//! Changes of a topic that a function doesn't make: it is deleted and re-created, or retention deletes unread records.

use millstream_tests::{Child, Record, Scene, Setting, Store, bank, delete_records, delete_topic, postgres_client};

use crate::trouble::refused;

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_re_created_needs_a_new_generation() {
    let store = Store::services("recreated").await;
    let scene = Scene::new(Setting { name: "recreated", store: store.clone(), ..Setting::default() }).await;
    let mut written = scene.write(bank::transactions(61, 3_000)).await;
    let mut child = Child::start("aggregate", &scene, "flow", &[]);
    scene.until_all_in("flow", &mut [&mut child]).await;
    child.drain().await;
    scene.assert_exact(&written, "before").await;
    // The new topic is shorter than the fence's offset; longer; and longer with the same records and times at its
    // beginning.
    for (seed, count, later_us) in [(62, 300, 3_600_000_000), (62, 9_000, 3_600_000_000), (61, 3_000, 0)] {
        delete_topic(scene.brokers(), &scene.topic).await;
        scene.systems.create_topics(&scene.pipeline).await.unwrap();
        let later = |record: Record| Record { at_us: record.at_us + later_us, ..record };
        written = scene.write(bank::transactions(seed, count).into_iter().map(later).collect()).await;
        if later_us == 0 {
            written.extend(scene.write(bank::transactions(63, 500)).await);
        }
        let said = refused(&scene).await;
        assert!(said.contains("re-created") && said.contains("generation") && said.contains(&scene.topic), "{said}");
    }
    // As the message says: with a higher generation, the function reads the whole new topic.
    let raised =
        Setting { name: "recreated", store, topic: Some(scene.topic.clone()), generation: 2, ..Setting::default() };
    let scene = Scene::new(raised).await;
    let mut child = Child::start("aggregate", &scene, "flow", &[]);
    scene.until_all_in("flow", &mut [&mut child]).await;
    child.drain().await;
    scene.assert_exact(&written, "of generation 2").await;
}

/// The SQL statement in the message works: only the deleted records are missing.
#[tokio::test(flavor = "multi_thread")]
async fn after_records_deleted_by_retention_a_person_moves_the_fence() {
    let store = Store::services("retention").await;
    let scene = Scene::new(Setting { name: "retention", store, ..Setting::default() }).await;
    let mut written = scene.write(bank::transactions(64, 3_000)).await;
    let mut child = Child::start("aggregate", &scene, "flow", &[]);
    scene.until_all_in("flow", &mut [&mut child]).await;
    child.drain().await;
    let fence = written.ends()[&0];
    written.extend(scene.write(bank::transactions(65, 3_000)).await);
    let low = (fence + written.ends()[&0]) / 2;
    delete_records(scene.brokers(), &scene.topic, 0, low).await;
    let said = refused(&scene).await;
    assert!(said.contains(&format!("offsets {fence}..{low} were deleted by retention")), "{said}");
    let statement =
        said.split_once("UPDATE millstream_fences").unwrap().1.split_once(" (pipeline.function)").unwrap().0;
    let statement = format!("UPDATE millstream_fences{}", statement.replace('…', &scene.group("flow")));
    assert_eq!(postgres_client(scene.direct()).await.execute(&statement, &[]).await.unwrap(), 1, "{statement}");
    let mut child = Child::start("aggregate", &scene, "flow", &[]);
    scene.until_all_in("flow", &mut [&mut child]).await;
    child.drain().await;
    written.records.retain(|(partition, offset), _| *partition != 0 || !(fence..low).contains(offset));
    bank::assert_same(&scene.table().await, &written.sums(), "all records but the deleted ones");
}
