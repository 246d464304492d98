//! The archive on S3: killed again and again while records are being produced, frozen while another process takes over, and
//! read back by readers that are not ours.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use millstream_tests::{
    Child, Flow, Lake, PATIENCE, Reader, Scene, Setting, Store, Written, number_of_kills, say_goodbye, setting, until,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

const FLOW: Flow = Flow { portion: 150, every: Duration::from_millis(60), bad_every: 100 };

const KILLS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn kills_under_load_on_kafka_and_s3() {
    killed(Store::services("lake").await, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_under_load_on_the_embedded_log_and_s3() {
    killed(Store::Embedded, 51).await;
}

async fn killed(store: Store, seed: u64) {
    let setting = Setting { name: "lake", store, max_records: 300, lake: Lake::S3, ..Setting::default() };
    let scene = Scene::new(setting).await;
    let done = AtomicBool::new(false);
    let (written, mut child) = tokio::join!(scene.write_until(&done, seed, FLOW), async {
        let child = kill(&scene, seed).await;
        done.store(true, Ordering::Relaxed);
        child
    });
    scene.until_all_in("archive", &mut [&mut child]).await;
    child.drain().await;
    assert_exact(&scene, &written, "after the kills").await;
}

/// Kills processes, one in four while it starts, and returns the one after the last. Every third is not killed but frozen:
/// it wakes up when the next one has gone on from its fence, and must write nothing a second time.
async fn kill(scene: &Scene, seed: u64) -> Child {
    let mut random = StdRng::seed_from_u64(seed);
    let function = scene.function("archive").await;
    let mut frozen: Option<Child> = None;
    for number in 0..number_of_kills(KILLS) {
        let before = scene.brought_in(&function).await;
        let mut child = Child::start("archive", scene, "archive", &[]);
        if number % 4 != 3 {
            let what = format!("the first records after kill {number}");
            until(PATIENCE, &what, async || {
                child.assert_runs();
                let now = scene.brought_in(&function).await;
                if now > before { Ok(()) } else { Err(format!("the fences are still at {now} in all")) }
            })
            .await;
        }
        if let Some(mut zombie) = frozen.take() {
            zombie.thaw();
            tokio::time::sleep(Duration::from_millis(300)).await;
            zombie.kill().await;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..500))).await;
        if number % 3 == 2 {
            child.freeze();
            frozen = Some(child);
        } else {
            child.kill().await;
        }
        if scene.has_kafka() {
            say_goodbye(scene.brokers(), &scene.group("archive")).await;
        }
    }
    scene.assert_audited_of("archive", "before the last process").await;
    Child::start("archive", scene, "archive", &[])
}

/// By the function's own audit, by the command, and by two other readers: over S3, and in the files that it keeps.
async fn assert_exact(scene: &Scene, written: &Written, what: &str) {
    scene.assert_audited_of("archive", what).await;
    scene.assert_letters("archive", written, what).await;
    let address = format!("{}/transactions", scene.environment()["MILLSTREAM_LAKE_URL"]);
    scene.assert_archived_by(Reader::Pyarrow, &address, written, what);
    let objects = format!("{}/versitygw/data", setting("MILLSTREAM_SERVICES_DIR"));
    let folder = address.replace("s3:/", &objects);
    scene.assert_archived_by(Reader::Duckdb, &folder, written, what);
    let path = scene.folder().display().to_string();
    for args in [
        &["audit", "archive", "-p", &path][..],
        &["check", &path, "--deployed"],
        &["topics", "-p", &path],
        &["query", "SELECT count(*) FROM transactions", "-p", &path],
        &["dead-letters", "list", "-p", &path],
    ] {
        let mut command = Child::run("millstream", args, scene, &[]);
        let status = command.end().await;
        assert!(status.success(), "{args:?}: {status}: {}", command.stderr());
    }
}

/// The same readers on a folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_read_by_other_readers() {
    let scene = Scene::new(Setting { name: "readers", ..Setting::default() }).await;
    let written = scene.write(millstream_tests::bank::transactions(7, 5_000)).await;
    let mut child = Child::start("archive", &scene, "archive", &[]);
    scene.until_all_in("archive", &mut [&mut child]).await;
    child.drain().await;
    let folder = scene.folder().join("lake/transactions").display().to_string();
    scene.assert_archived_by(Reader::Pyarrow, &folder, &written, "a folder");
    scene.assert_archived_by(Reader::Duckdb, &folder, &written, "a folder");
}

/// A bucket that is not there, and a key that is not taken, stop the function when it starts, with the reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_bucket_or_key_stops_the_start() {
    let scene = Scene::new(Setting { name: "refused", lake: Lake::S3, ..Setting::default() }).await;
    for (name, value, said) in [
        ("MILLSTREAM_LAKE_URL", "s3://no-such-bucket/x", "s3://no-such-bucket does not exist"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2", "the credentials are not accepted"),
    ] {
        let mut child = Child::start("archive", &scene, "archive", &[(name, value.to_owned())]);
        let status = child.end().await;
        let told = child.stderr();
        assert!(!status.success() && told.contains(said) && !told.contains("hunter2"), "{status}: {told}");
    }
}
