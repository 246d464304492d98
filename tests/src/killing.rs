use std::{ops::Range, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{child::Child, group::say_goodbye, scene::Scene};

/// How long a process lives before its kill, unless its test gives other times.
const LIFE_MS: Range<u64> = 50..600;

/// How many kills a test makes: `default`, or what `MILLSTREAM_TEST_KILLS` says for a thorough run.
#[expect(clippy::disallowed_methods, reason = "the edge: a longer run is asked for by the environment")]
pub fn number_of_kills(default: usize) -> usize {
    std::env::var("MILLSTREAM_TEST_KILLS").map_or(default, |kills| kills.parse().unwrap())
}

/// How many records a test sends at least while it kills: `default`, or what `MILLSTREAM_TEST_RECORDS` says for a thorough run.
#[expect(clippy::disallowed_methods, reason = "the edge: a longer run is asked for by the environment")]
pub fn number_of_records(default: usize) -> usize {
    std::env::var("MILLSTREAM_TEST_RECORDS").map_or(default, |records| records.parse().unwrap())
}

/// Kills a function at random moments and starts it again, `kills` times. Returns the process that runs then.
pub async fn kill_often(scene: &Scene, function: (&str, &str), kills: usize, seed: u64) -> Child {
    kill_within(LIFE_MS, scene, function, kills, seed).await
}

/// The same with other lengths of the processes' lives.
pub async fn kill_within(
    life_ms: Range<u64>,
    scene: &Scene,
    (binary, name): (&str, &str),
    kills: usize,
    seed: u64,
) -> Child {
    let mut random = StdRng::seed_from_u64(seed);
    let mut child = Child::start(binary, scene, name, &[]);
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(random.random_range(life_ms.clone()))).await;
        child.kill().await;
        if scene.has_kafka() {
            say_goodbye(scene.brokers(), &scene.group(name)).await;
        }
        child = Child::start(binary, scene, name, &[]);
    }
    child
}
