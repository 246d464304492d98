//! An event hub over AMQP, played by a double, whose transactions are summed in PostgreSQL.

use std::time::Duration;

use millstream_emulators::event_hubs::EventHubsDouble;
use millstream_tests::{Child, Lake, Scene, Shipped, Store, Written, bank, number_of_kills, unique};

const KILLS: usize = 4;

fn pipeline_text(name: &str) -> String {
    format!(
        "name: {name}
topics:
  {name}:
    partitions: 3
    schema: {{ branch: string not null, currency: string not null, amount: \"decimal(18,2) not null\", at: timestamp not null }}
    event_time: at
functions:
  flow:
    uses: aggregate
    from: {name}
    sql: |
      SELECT tumble(at, INTERVAL '2 seconds') AS curr_time, branch AS branch_name, currency AS currency_code,
             sum(amount) AS batch_value, count(*) AS transactions
      FROM {name} GROUP BY 1, 2, 3
    into: postgres.flow_{name}
    batch: {{ max_records: 500, max_wait: 20ms }}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_of_an_event_hub_are_exact_under_kills_and_lost_connections() {
    let (double, name) = (EventHubsDouble::start(), unique("hub"));
    double.create(&name, 3);
    // AMQP can't create event hubs: a person does, and for the letters too.
    double.create(&format!("{name}.dead-letters"), 1);
    let Store::Services { postgres, direct, .. } = Store::services("hub").await else { panic!("no services") };
    let scene = Scene::of(Shipped {
        store: Store::Services { kafka: "embedded".into(), postgres, direct },
        lake: Lake::Folder,
        topic: name.clone(),
        text: &pipeline_text(&name),
        files: &[],
        variables: &[
            ("MILLSTREAM_EVENTHUBS_CONNECTION", double.connection_string_to_send()),
            ("MILLSTREAM_EVENTHUBS_ENDPOINT", double.endpoint()),
        ],
    })
    .await;

    let mut written = Written::default();
    for number in 0..number_of_kills(KILLS) {
        written.extend(scene.write_by(&double, bank::transactions_with_bad(number as u64, 3_000, 100)).await);
        let mut child = Child::start("aggregate", &scene, "flow", &[]);
        tokio::time::sleep(Duration::from_millis(400 + 150 * number as u64)).await;
        double.cut();
        child.kill().await;
    }
    let mut child = Child::start("aggregate", &scene, "flow", &[]);
    double.cut_after(500, 2);
    written.extend(scene.write_by(&double, bank::transactions_with_bad(99, 3_000, 100)).await);
    scene.until_all_in("flow", &mut [&mut child]).await;
    child.drain().await;

    scene.assert_exact(&written, "an event hub").await;
}
