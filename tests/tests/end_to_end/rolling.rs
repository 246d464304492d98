//! A rolling deployment: two versions of a function run at once.

use millstream_tests::{Child, PATIENCE, Scene, Setting, Store, bank, until};

/// A folder with the scene's pipeline file, changed.
fn version(scene: &Scene, name: &str, from: &str, to: &str) -> [(&'static str, String); 1] {
    let text = std::fs::read_to_string(scene.folder().join("pipeline.yaml")).unwrap();
    assert!(text.contains(from), "{from} is not in\n{text}");
    let folder = scene.folder().join(name);
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("pipeline.yaml"), text.replace(from, to)).unwrap();
    [("MILLSTREAM_PIPELINE", folder.display().to_string())]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_plan_shares_the_work_and_another_plan_stops() {
    let store = Store::services("rolling").await;
    let scene = Scene::new(Setting { name: "rolling", store, max_records: 500, ..Setting::default() }).await;
    let mut written = scene.write(bank::transactions(61, 4_000)).await;
    let mut old = Child::start("aggregate", &scene, "flow", &[]);
    scene.until_all_in("flow", &mut [&mut old]).await;

    // Other words and other batches are the same plan: both versions work, and nothing is lost or doubled.
    let same = version(&scene, "same", "sum(amount)", "SUM( amount )");
    let mut new = Child::start("aggregate", &scene, "flow", &same);
    until(PATIENCE, "the new version gets a partition", async || {
        new.assert_runs();
        if new.stderr().contains("partition taken") { Ok(()) } else { Err(new.stderr()) }
    })
    .await;
    written.extend(scene.write(bank::transactions(62, 20_000)).await);
    scene.until_all_in("flow", &mut [&mut old, &mut new]).await;
    old.drain().await;
    written.extend(scene.write(bank::transactions(63, 4_000)).await);
    scene.until_all_in("flow", &mut [&mut new]).await;

    // Another plan stops at its start, and says what has changed; the one that is there goes on.
    let other = version(&scene, "other", "sum(amount)", "sum(amount * 2)");
    let mut wrong = Child::start("aggregate", &scene, "flow", &other);
    let status = wrong.end().await;
    let said = wrong.stderr();
    assert!(!status.success() && said.contains("was filled by another plan"), "{status}: {said}");
    assert!(said.contains("sum(amount * 2)") && said.contains("millstream adopt flow"), "{said}");
    written.extend(scene.write(bank::transactions(64, 4_000)).await);
    scene.until_all_in("flow", &mut [&mut new]).await;
    new.drain().await;
    scene.assert_exact(&written, "after a rolling deployment").await;
}
