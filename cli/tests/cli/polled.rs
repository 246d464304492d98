//! Functions that poll an API.

use super::{data, json, pipeline, run, said};

/// Each answer of its API has a list of records.
const LIST: &str = "\
name: p
topics:
  t: { partitions: 1, schema: { n: int not null, at: timestamp(ms) not null }, event_time: at }
functions:
  ask:
    uses: ingest
    poll: { url: https://x.example, every: 200ms, records: items, stand_in: answers.jsonl }
    into: topic.t
  keep: { uses: archive, from: t, into: lake.t }
";

#[test]
fn dev_polls_a_stand_in_where_the_file_names_one() {
    let data = data();
    let output = run(&data, &["dev", "pipelines/iss", "--for", "10", "--json"]);
    let told = said(&output).1;
    assert!(output.status.success() && told.contains("`positions` polls a stand-in"), "{told}");
    let topics = json(&run(&data, &["topics", "-p", "pipelines/iss", "--json"]));
    assert!((1..=4).contains(&topics[0]["records"].as_i64().unwrap()), "{topics}");
    let audit = run(&data, &["audit", "-p", "pipelines/iss"]);
    assert_eq!(audit.status.code(), Some(0), "{audit:?}");
    let rows =
        run(&data, &["query", "SELECT count(*) FROM parquet_files WHERE latitude IS NOT NULL", "-p", "pipelines/iss"]);
    assert!(rows.status.success() && !said(&rows).0.contains(" 0 "), "{rows:?}");
}

#[test]
fn an_address_on_the_command_line_is_polled_instead() {
    let data = data();
    std::fs::write(data.path().join("answers.jsonl"), "{}\n").unwrap();
    let [_, file] = pipeline(&data, LIST);
    // Nobody listens there: each poll fails, and that ends nothing.
    let output = run(&data, &["dev", &file, "--for", "5", "--url", "http://127.0.0.1:9/?key=hunter2"]);
    let told = said(&output).1;
    assert!(output.status.success() && told.contains("a poll failed") && !told.contains("stand-in"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");

    let refused = run(&data, &["dev", &file, "--for", "60", "--url", "http://169.254.169.254/"]);
    assert!(refused.status.code() == Some(3) && said(&refused).1.contains("link-local"), "{refused:?}");
    let refused = run(&data, &["dev", "pipelines/bank", "--for", "1", "--url", "http://127.0.0.1:9/"]);
    assert!(refused.status.code() == Some(2) && said(&refused).1.contains("bank has 0"), "{refused:?}");
}

#[test]
fn a_list_of_lines_with_the_time_is_replayed_in_turn() {
    let data = data();
    let lines = "{\"items\":[{\"n\":1,\"at\":\"$now_ms\"},{\"n\":2,\"at\":\"$now_ms\"}]}\n<html>\n";
    std::fs::write(data.path().join("answers.jsonl"), lines).unwrap();
    let [p, file] = pipeline(&data, LIST);
    let output = run(&data, &["dev", &file, "--for", "4"]);
    assert!(output.status.success() && said(&output).1.contains("not JSON"), "{output:?}");
    let topics = json(&run(&data, &["topics", &p, &file, "--json"]));
    let records = topics[0]["records"].as_i64().unwrap();
    assert!(records >= 2 && records % 2 == 0, "{topics}");
    assert_eq!(run(&data, &["audit", &p, &file]).status.code(), Some(0));
}
