//! Different numbers of partitions in the file and in the topic.

use super::{data, json, pipeline, run, said};

fn shop(partitions: u32) -> String {
    format!(
        "
name: shop
topics:
  sales: {{ partitions: {partitions}, schema: {{ shop: string }} }}
functions:
  kept: {{ uses: archive, from: sales, into: lake.sales }}
"
    )
}

#[test]
fn partitions_are_raised_on_request() {
    let data = data();
    let of = pipeline(&data, &shop(2));
    let of = of.each_ref().map(String::as_str);
    let with = |args: &[&str]| run(&data, &[args, &of[..]].concat());
    assert_eq!(with(&["up"]).status.code(), Some(0));

    pipeline(&data, &shop(4));
    let up = with(&["up"]);
    let (_, err) = said(&up);
    assert_eq!(up.status.code(), Some(3), "{err}");
    assert!(err.contains("sales") && err.contains("declares 4") && err.contains("has 2"), "{err}");
    assert!(err.contains("--raise-partitions"), "{err}");
    for warned in [&["check"][..], &["dev", "--no-generate", "--for", "0.5"]] {
        let output = with(warned);
        let (_, err) = said(&output);
        assert!(output.status.code() == Some(0) && err.contains("declares 4") && err.contains("has 2"), "{err}");
    }

    let raised = with(&["up", "--raise-partitions"]);
    let (out, err) = said(&raised);
    assert!(raised.status.success() && out.contains("raised from 2 to 4") && err.contains("keys"), "{out} {err}");
    let topics = json(&with(&["topics", "--json"]));
    assert_eq!(topics[0]["partitions"].as_array().map(Vec::len), Some(4), "{topics}");
    let up = with(&["up"]);
    assert!(up.status.success() && said(&up).1.is_empty(), "{up:?}");
}

#[test]
fn lowered_partitions_are_an_error() {
    let data = data();
    let of = pipeline(&data, &shop(3));
    let of = of.each_ref().map(String::as_str);
    let with = |args: &[&str]| run(&data, &[args, &of[..]].concat());
    assert!(with(&["up"]).status.success());
    pipeline(&data, &shop(1));
    for args in [&["up"][..], &["up", "--raise-partitions"]] {
        let up = with(args);
        let (_, err) = said(&up);
        assert!(up.status.code() == Some(3) && err.contains("has 3") && err.contains("can't be lowered"), "{err}");
    }
}
