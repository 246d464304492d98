//! SIGKILL at random moments while records are being produced.

use std::{sync::atomic::AtomicBool, sync::atomic::Ordering, time::Duration};

use millstream_tests::{Child, Flow, PATIENCE, Scene, Setting, Store, say_goodbye, until};
use rand::{Rng, SeedableRng, rngs::StdRng};

const KILLS: usize = 30;
/// One portion of records per tick: some thousands a second.
const FLOW: Flow = Flow { portion: 200, every: Duration::from_millis(60), bad_every: 100 };

#[tokio::test(flavor = "multi_thread")]
async fn thirty_kills_under_load_on_kafka_and_postgres() {
    thirty_kills(Store::services("kills").await, 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_kills_under_load_with_everything_embedded() {
    thirty_kills(Store::Embedded, 41).await;
}

async fn thirty_kills(store: Store, seed: u64) {
    let scene = Scene::new(Setting { name: "kills", store, max_records: 400, ..Setting::default() }).await;
    let done = AtomicBool::new(false);
    let (written, mut child) = tokio::join!(scene.write_until(&done, seed, FLOW), async {
        let child = kill(&scene, seed).await;
        done.store(true, Ordering::Relaxed);
        child
    });
    scene.until_all_in("flow", &mut [&mut child]).await;
    child.drain().await;
    scene.assert_exact(&written, "after 30 kills").await;
}

/// Kills 30 processes, audits after each kill, and returns the process after the last one. One in five is killed while
/// it starts, the others while they work.
async fn kill(scene: &Scene, seed: u64) -> Child {
    let mut random = StdRng::seed_from_u64(seed);
    let function = scene.function("flow").await;
    for number in 0..KILLS {
        let before = scene.brought_in(&function).await;
        let mut child = Child::start("aggregate", scene, "flow", &[]);
        if number % 5 != 4 {
            let what = format!("the first records after kill {number}");
            until(PATIENCE, &what, async || {
                child.assert_runs();
                let now = scene.brought_in(&function).await;
                if now > before { Ok(()) } else { Err(format!("the fences are still at {now} in all")) }
            })
            .await;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..700))).await;
        child.assert_runs();
        child.kill().await;
        scene.assert_audited(&format!("after kill {number}")).await;
        if scene.has_kafka() {
            say_goodbye(scene.brokers(), &scene.group("flow")).await;
        }
    }
    Child::start("aggregate", scene, "flow", &[])
}
