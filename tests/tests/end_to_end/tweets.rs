//! The pipeline `tweets` on Kafka, PostgreSQL and S3, each of its functions killed again and again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use arrow::{array::AsArray as _, datatypes::Int64Type};
use millstream_assembly::audit;
use millstream_tests::{
    Child, Lake, Scene, Shipped, Store, kill_often, number_of_kills, postgres_client,
    posts::{Counts, Post, counts, posts},
    unique,
};
use serde_json::Value;
use tokio_postgres::SimpleQueryMessage;

const FUNCTIONS: [(&str, &str); 3] = [("transform", "filter"), ("aggregate", "counts"), ("archive", "archive")];
const KILLS: usize = 15;

/// Posts by partition and offset.
type Sent = BTreeMap<(i32, i64), Post>;

#[tokio::test(flavor = "multi_thread")]
async fn every_post_counts_once_while_each_function_is_killed() {
    let scene = scene().await;
    let done = AtomicBool::new(false);
    let killing = async {
        let of = |at: usize| kill_often(&scene, FUNCTIONS[at], number_of_kills(KILLS), 80 + at as u64);
        let ended = tokio::join!(of(0), of(1), of(2));
        done.store(true, Ordering::Relaxed);
        ended
    };
    let (sent, (mut filter, mut count, mut archive)) = tokio::join!(send_until(&scene, &done), killing);
    for ((_, name), child) in FUNCTIONS.iter().zip([&mut filter, &mut count, &mut archive]) {
        scene.until_all_in(name, &mut [child]).await;
        child.drain().await;
    }
    assert_exact(&scene, &sent).await;
    assert_peeked(&scene, &sent).await;
}

/// The pipeline that ships, with topics of its own and small batches.
async fn scene() -> Scene {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/tweets/pipeline.yaml");
    let mut text = std::fs::read_to_string(shipped).unwrap();
    text.truncate(text.find("\ntests:").unwrap() + 1);
    let name = unique("tweets");
    let topic = format!("{name}_posts");
    let mut change = |from: &str, to: &str| {
        assert!(text.contains(from), "the pipeline has no {from:?}");
        text = text.replace(from, to);
    };
    change("name: tweets\n", &format!("name: {name}\n"));
    for place in ["\n  posts:", "topic.posts", "from: posts", "FROM posts"] {
        change(place, &place.replace("posts", &topic));
    }
    change("Twitter", &format!("{name}_Twitter"));
    let batch = "\n    batch: { max_records: 40, max_wait: 20ms }";
    for into in
        [format!("into: topic.{name}_Twitter"), "into: postgres.keyword_counts".into(), "into: lake.tweets".into()]
    {
        change(&into, &format!("{into}{batch}"));
    }
    let store = Store::services("tweets").await;
    Scene::of(Shipped { store, lake: Lake::S3, topic, text: &text, files: &[], variables: &[] }).await
}

async fn send_until(scene: &Scene, done: &AtomicBool) -> Sent {
    let producer = scene.systems.producer(&scene.pipeline.topics[&scene.topic]).unwrap();
    let (mut sent, mut portion) = (Sent::new(), 90 << 32);
    while !done.load(Ordering::Relaxed) {
        portion += 1;
        let posts = posts(portion, 40, 13);
        let positions = producer.send(&scene.topic, posts.iter().map(Post::record).collect()).await.unwrap();
        sent.extend(positions.iter().map(|position| (position.partition.partition, position.offset)).zip(posts));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    sent
}

async fn assert_exact(scene: &Scene, sent: &Sent) {
    assert_eq!(counted(scene).await, counts(sent.values()));

    let (_, files) = scene.systems.whole_table(&scene.pipeline, "archive").await.unwrap();
    let ids = |rows: &arrow::array::RecordBatch| {
        rows.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec()
    };
    let mut kept: Vec<i64> = files.iter().flat_map(ids).collect();
    let mut chosen: Vec<i64> = sent.values().filter(|post| post.is_chosen()).map(|post| post.id).collect();
    kept.sort_unstable();
    chosen.sort_unstable();
    assert!(kept == chosen, "{} posts in the files, {} chosen", kept.len(), chosen.len());

    let letters = scene.dead_letters("filter").await;
    let places: BTreeSet<_> =
        letters.iter().map(|letter| (letter.position.partition.partition, letter.position.offset)).collect();
    let broken: BTreeSet<_> = sent.iter().filter(|(_, post)| !post.is_good()).map(|(place, _)| *place).collect();
    assert_eq!(places, broken);

    for (_, name) in FUNCTIONS {
        let report = audit(&scene.systems, &scene.pipeline, name).await.unwrap();
        assert!(report.is_clean(), "{name}: {report:?}");
    }
}

async fn counted(scene: &Scene) -> Counts {
    let sql = "SELECT extract(epoch FROM minute)::bigint, keyword, posts, retweets FROM keyword_counts";
    let messages = postgres_client(scene.direct()).await.simple_query(sql).await.unwrap();
    let mut counts = Counts::new();
    for message in messages {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let number = |column: usize| row.get(column).unwrap().parse::<i64>().unwrap();
        let key = (number(0), row.get(1).unwrap().to_owned());
        assert_eq!(counts.insert(key.clone(), (number(2), number(3))), None, "two rows for {key:?}");
    }
    counts
}

/// The newest records are what was sent last, and a peek joins no group.
async fn assert_peeked(scene: &Scene, sent: &Sent) {
    let folder = scene.folder().display().to_string();
    let peeked =
        Child::output("millstream", &["topics", "peek", &scene.topic, "--last", "5", "--json", "-p", &folder], scene);
    assert!(peeked.status.success(), "{peeked:?}");
    let records: Vec<Value> =
        String::from_utf8(peeked.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 5);
    for record in records {
        let place = (record["partition"].as_i64().unwrap() as i32, record["offset"].as_i64().unwrap());
        let value = String::from_utf8(sent[&place].record().value.unwrap()).unwrap();
        assert_eq!(record["value"], value.as_str(), "{record}");
    }
}
