//! SIGKILL at random moments of redrives and of the function, while records are produced of which many are late.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use millstream_tests::{Child, Flow, PATIENCE, Scene, Setting, Store, bank, number_of_kills};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::rebuilds::KILLS;

const FLOW: Flow = Flow { portion: 100, every: Duration::from_millis(60), bad_every: 50 };
const BEFORE: usize = 3_000;
/// How long a redrive may run before it is killed.
const LONGEST_MS: u64 = 2_500;

#[tokio::test(flavor = "multi_thread")]
async fn redrives_are_killed_under_load_through_pgbouncer() {
    killed(Store::through_pgbouncer("redrives").await, 70).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redrives_are_killed_under_load_with_everything_embedded() {
    killed(Store::Embedded, 71).await;
}

async fn killed(store: Store, seed: u64) {
    let setting = Setting { name: "redrives", store, max_records: 500, lateness: Some("4s"), ..Setting::default() };
    let scene = Scene::new(setting).await;
    let mut written = scene.write(bank::transactions_with_bad(seed, BEFORE, 50)).await;
    let (done, mut random) = (AtomicBool::new(false), StdRng::seed_from_u64(seed));
    let start = || Child::start("aggregate", &scene, "flow", &[]);
    let path = scene.folder().display().to_string();
    let redrive = || Child::run("millstream", &["dead-letters", "redrive", "flow", "-p", &path], &scene, &[]);
    let (more, mut function) = tokio::join!(scene.write_until(&done, seed, FLOW), async {
        let mut function = start();
        scene.until_all_in("flow", &mut [&mut function]).await;
        for _ in 0..number_of_kills(KILLS) {
            // Two at once: a command that was thought dead.
            let (mut first, mut second) = (redrive(), redrive());
            tokio::time::sleep(Duration::from_millis(random.random_range(0..LONGEST_MS))).await;
            first.kill().await;
            if random.random_range(0..2) == 0 {
                function.kill().await;
                function = start();
            }
            match random.random_range(0..2) {
                0 => second.kill().await,
                _ => {
                    let ended = tokio::time::timeout(PATIENCE, second.end()).await.unwrap();
                    assert!(ended.success(), "{}", second.stderr());
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        function
    });
    written.extend(more);
    scene.until_all_in("flow", &mut [&mut function]).await;
    function.drain().await;
    for point in ["before_decode", "before_dead_letters", "after_dead_letters", "after_write"] {
        let fault = ("MILLSTREAM_FAULT", format!("runner.{point}"));
        let mut killed = Child::run("millstream", &["dead-letters", "redrive", "flow", "-p", &path], &scene, &[fault]);
        assert!(!killed.end().await.success(), "it did not die at {point}: {}", killed.stderr());
    }
    let mut last = redrive();
    assert!(last.end().await.success(), "{}", last.stderr());
    let late = scene.dead_letters("flow").await.len() - written.bad().len();
    eprintln!("{late} late records of {} were redriven", written.records.len());
    assert!(late > 100, "there was little to redrive: {late}");
    bank::assert_same(&scene.table().await, &written.sums(), "after the redrives");
    scene.assert_audited("after the redrives").await;
}
