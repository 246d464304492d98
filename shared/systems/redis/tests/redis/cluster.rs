//! A cluster of three nodes: each key is on one of them.

use std::{process::Command, time::Duration};

use millstream_core::{Claim, Connect as _, Env, Error, Fence, Owner, TableStore as _};
use millstream_redis::Redis;

use crate::{
    server::Server,
    support::{Row, alerts, balances, held, moved, partition, ready, texts, write},
};

async fn start() -> (Vec<Server>, Redis) {
    let mut servers = Vec::new();
    for _ in 0..3 {
        // The bus has a port of its own, which is not the client's plus 10,000: that may be no port.
        let bus = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        servers.push(
            Server::start(&["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"])
                .await,
        );
    }
    let nodes: Vec<_> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
    let mut command = Command::new("redis-cli");
    command.arg("--cluster").arg("create").args(&nodes).args(["--cluster-yes", "--cluster-replicas", "0"]);
    let created = command.output().unwrap();
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
    for server in &servers {
        for _ in 0..200 {
            let info: String = server.database().ask("CLUSTER", &["INFO"]).await;
            if info.contains("cluster_state:ok") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let url = format!("redis+cluster://{},{}", nodes[0], nodes[1]);
    let redis = Redis::open(&Env::of([("MILLSTREAM_REDIS_URL", url)])).unwrap().unwrap();
    (servers, redis)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_spread_over_the_nodes() {
    let (servers, redis) = start().await;
    let names: Vec<_> = (0..300_i64).map(|number| (format!("a{number}"), number)).collect();
    let of: Vec<Row<'_>> = names.iter().map(|(name, offset)| (&**name, Some(*offset), None, *offset)).collect();
    for table in [balances(), alerts()] {
        let function = format!("test.{}", table.name);
        let sink = redis.sink(&function, table.clone()).unwrap();
        let start = ready(&*sink).await;
        let owner = Owner { function, fingerprint: "f".into(), declaration: "d".into() };
        let record = sink.claim(&owner, &Claim::First).await.unwrap().unwrap();
        sink.begin_term(record.term);
        let some = write(&*sink, &start, &of[..100]).await.unwrap();
        for server in &servers {
            server.database().ask::<()>("SCRIPT", &["FLUSH"]).await;
        }
        let all = write(&*sink, &some, &of[100..]).await.unwrap();
        assert_eq!(held(&*sink).await, texts(&of), "{}", table.name);
        let again = write(&*sink, &some, &of[100..]).await;
        assert!(matches!(again, Err(Error::Fenced { current: Some(300) })), "{again:?}");

        // A rename, whose keys are in other slots.
        let function = format!("test.other_{}", table.name);
        let renamed = redis.sink(&function, table.clone()).unwrap();
        let owner = Owner { function, ..owner };
        let claimed = renamed.claim(&owner, &Claim::Adopt(Some(record))).await.unwrap().unwrap();
        renamed.begin_term(claimed.term);
        assert_eq!(renamed.fence(&partition(0)).await.unwrap(), Some(all.clone()));
        assert_eq!(sink.holding().await.unwrap().fences, []);
        renamed.write(&partition(0), &all, &moved(&all, 301), &[]).await.unwrap();
        assert_eq!(held(&*renamed).await, texts(&of));
    }
    for server in &servers {
        let keys: i64 = server.database().ask("DBSIZE", &[]).await;
        assert!(keys > 50, "each node has its part: {keys}");
    }
    let mut refused = Vec::new();
    // Spoken to alone, the nodes that don't have the function's keys refuse them.
    for server in &servers {
        let created = server.database().sink(&balances()).create_fence(&partition(7), Fence::starting_at(0)).await;
        refused.extend(created.err());
    }
    assert!(refused.len() >= 2, "{refused:?}");
    for error in refused {
        assert!(matches!(&error, Error::Stop(_)) && error.to_string().contains("MILLSTREAM_REDIS_CLUSTER"), "{error}");
    }
}
