use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{child::Child, group::say_goodbye, scene::Scene};

/// Kills a function at random moments and starts it again, `kills` times; some kills are at a point between two steps of
/// its sink. Returns the process that runs then.
pub async fn kill_often(scene: &Scene, (binary, name): (&str, &str), kills: usize, seed: u64) -> Child {
    let mut random = StdRng::seed_from_u64(seed);
    let mut child = Child::start(binary, scene, name, &[]);
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(random.random_range(50..600))).await;
        child.kill().await;
        if scene.has_kafka() {
            say_goodbye(scene.brokers(), &scene.group(name)).await;
        }
        child = Child::start(binary, scene, name, &[]);
    }
    child
}
