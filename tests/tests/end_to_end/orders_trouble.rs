//! The pipeline `orders` while its stores fail under load: after each trouble, all of them hold what was sent.

use std::time::Duration;

use futures::future::join_all;
use millstream_tests::{Child, OwnServices};

use super::orders::{FUNCTIONS, Sent, Shop, send};

/// What happens to the stores.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// The cache forgets its scripts.
    ScriptsFlushed,
    /// The cache is emptied.
    Emptied,
    /// The process of a store is killed and comes back with its data.
    Killed(&'static str),
    /// The processes of these functions stand still while others take over, and then go on.
    Zombies,
}

const TROUBLES: [Trouble; 5] = [
    Trouble::ScriptsFlushed,
    Trouble::Emptied,
    Trouble::Killed("redis"),
    Trouble::Killed("cassandra"),
    Trouble::Zombies,
];

#[tokio::test(flavor = "multi_thread")]
async fn after_each_trouble_of_a_store_all_of_them_hold_what_was_sent() {
    let services = OwnServices::start(&["cassandra", "redis"]).await;
    let redis = services.setting("MILLSTREAM_TEST_REDIS");
    let shop = Shop::open(services.setting("MILLSTREAM_TEST_CASSANDRA"), redis.clone()).await;
    let mut children: Vec<Child> =
        FUNCTIONS.iter().map(|(binary, name)| Child::start(binary, &shop.scene, name, &[])).collect();
    let mut sent = Sent::new();
    for (number, trouble) in (0..).zip(TROUBLES) {
        let sending = async {
            let mut sent = Sent::new();
            for portion in 0..8 {
                sent.extend(send(&shop.scene, number * 100 + portion).await);
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            sent
        };
        let (more, ()) = tokio::join!(sending, make(trouble, &services, &redis, &shop, &children));
        sent.extend(more);
        for ((_, name), child) in FUNCTIONS.iter().zip(&mut children) {
            shop.scene.until_all_in(name, &mut [child]).await;
        }
        eprintln!("after {trouble:?}:");
        shop.assert_holds(&sent).await;
    }
    for child in &mut children {
        child.drain().await;
    }
}

async fn make(trouble: Trouble, services: &OwnServices, redis: &str, shop: &Shop, children: &[Child]) {
    tokio::time::sleep(Duration::from_millis(700)).await;
    let command = async |command: &str| {
        let mut redis = redis::Client::open(redis).unwrap().get_multiplexed_async_connection().await.unwrap();
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>());
        command.query_async::<()>(&mut redis).await.unwrap();
    };
    match trouble {
        Trouble::ScriptsFlushed => command("SCRIPT FLUSH").await,
        Trouble::Emptied => command("FLUSHALL").await,
        Trouble::Killed(name) => {
            services.take_away(name).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            services.bring_back(name).await;
        }
        Trouble::Zombies => {
            children.iter().for_each(Child::freeze);
            let start = |(binary, name): &(&str, &str)| Child::start(binary, &shop.scene, name, &[]);
            let mut others: Vec<Child> = FUNCTIONS.iter().map(start).collect();
            // The group gives the partitions of the frozen ones away after its session timeout; feeds have no group.
            tokio::time::sleep(Duration::from_secs(12)).await;
            children.iter().for_each(Child::thaw);
            tokio::time::sleep(Duration::from_secs(2)).await;
            join_all(others.iter_mut().map(Child::kill)).await;
        }
    }
}
