//! Every kind of mistake in a pipeline file, with the message that a person gets: the cases are in `mistakes.txt`.
#![expect(clippy::unwrap_used, reason = "a helper of tests, which may panic")]

use std::{fs, path::Path};

use millstream_pipeline::{MAX_FILE_BYTES, Pipeline};

/// A correct file; each case breaks it in one place.
const GOOD: &str = include_str!("good.yaml");

/// The messages for a text, read in a folder in which the fixtures exist, without that folder's name.
fn mistakes(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("in.jsonl"), "").unwrap();
    fs::write(folder.path().join("out.csv"), "").unwrap();
    let found = Pipeline::parse(text, &folder.path().join("pipeline.yaml")).err().map(Vec::from).unwrap_or_default();
    let prefix = format!("{}/", folder.path().display());
    found.iter().map(|mistake| mistake.to_string().replace(&prefix, "").replace("pipeline.yaml:", "")).collect()
}

#[test]
fn every_mistake_is_reported_with_its_place_and_what_is_allowed() {
    assert_eq!(mistakes(GOOD), [] as [&str; 0]);
    let (mut cases, mut wrong) = (0, String::new());
    for case in include_str!("mistakes.txt").split("\n\n").filter(|case| case.starts_with("- ")) {
        let part = |mark: &str| case.lines().filter_map(|line| line.strip_prefix(mark)).collect::<Vec<_>>().join("\n");
        let (mut old, new) = (part("- "), part("+ "));
        if new.is_empty() {
            old.push('\n');
        }
        let expected: Vec<&str> = case.lines().filter(|line| !line.starts_with(['-', '+'])).collect();
        assert!(GOOD.contains(&old), "not in good.yaml: {old}");
        let found = mistakes(&GOOD.replacen(&old, &new, 1));
        if found != expected {
            wrong += &format!("\n- {old}\n+ {new}\n{}\n", found.join("\n"));
        }
        cases += 1;
    }
    assert!(cases > 80, "only {cases} cases were read");
    assert!(wrong.is_empty(), "these came out differently:\n{wrong}");
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let text =
        GOOD.replace("partitions: 3", "partitions: none").replace("uses: archive", "uses: archiv").replace("5m", "5");
    let places: Vec<String> =
        mistakes(&text).iter().map(|mistake| mistake.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(places, ["4:17:", "20:17:", "22:47:"]);
}

#[test]
fn the_message_starts_with_a_place_that_can_be_clicked() {
    let text = GOOD.replace("from: payment\n", "form: payment\n");
    let found = Pipeline::parse(&text, Path::new("bank/pipeline.yaml")).unwrap_err();
    assert_eq!(
        found[0].to_string(),
        "bank/pipeline.yaml:17:5: unknown field `form` in function `flow`; allowed: uses, from, sql, into, \
         partition_by, start, on_gap, late, lateness, ahead, batch, every, generate, poll, webhook, key, timestamp, partition (did you mean `from`?)"
    );
}

#[test]
fn files_that_are_not_a_pipeline_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let load = |bytes: &[u8]| {
        let file = folder.path().join("pipeline.yaml");
        fs::write(&file, bytes).unwrap();
        let found = Pipeline::load(folder.path()).unwrap_err();
        assert_eq!((found.len(), found[0].file.as_path()), (1, file.as_path()));
        found[0].to_string().replace(&format!("{}: ", file.display()), "")
    };
    let empty = "the file is empty; a pipeline has `name`, `topics` and `functions`";
    assert_eq!(load(b""), empty);
    assert_eq!(load(b"# only a comment\n"), empty);
    assert_eq!(load(b"name: \xff"), "the file is not UTF-8 text; the first wrong byte is number 7");
    let large = "the file is larger than 1 MiB, so it can't be a pipeline file";
    assert_eq!(load(&vec![b'#'; MAX_FILE_BYTES as usize + 1]), large);
    assert_eq!(load(&vec![b'#'; MAX_FILE_BYTES as usize]), empty);

    let missing = folder.path().join("nowhere.yaml");
    let found = Pipeline::load(&missing).unwrap_err();
    let expected = "nowhere.yaml: the pipeline file can't be read: No such file or directory (os error 2)";
    assert!(found[0].to_string().ends_with(expected), "{}", found[0]);
}

#[test]
fn hostile_files_end_in_an_error() {
    let nested = format!("name: {}", "[".repeat(500_000));
    let mapped: String = (0..400).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let aliases = format!(
        "a: &a [x,x,x,x,x,x,x,x]\n{}",
        (0..9).fold(String::new(), |text, depth| {
            let (name, of) = ((b'b' + depth) as char, (b'a' + depth) as char);
            format!("{text}{name}: &{name} [*{of},*{of},*{of},*{of},*{of},*{of},*{of},*{of}]\n")
        })
    );
    for text in [nested, mapped, aliases] {
        let found = mistakes(&text);
        assert!(found.len() == 1 && found[0].contains("this is not valid YAML"), "{found:?}");
    }
}

const SHOP: &str = "
name: shop
topics:
  orders: { partitions: 3, generation: 2, schema: { id: string not null, total: bigint } }
functions:
  again: { uses: store, from: cassandra.orders, into: cassandra.copies }
  keep: { uses: store, from: orders, key: id, into: cassandra.orders }
  sums: { uses: report, from: cassandra.orders, sql: 'SELECT id, sum(total) AS total FROM cassandra.orders GROUP BY 1', into: postgres.sums }
";

#[test]
fn an_event_store_is_read_like_a_topic_of_its_source_s_partitions() {
    let pipeline = Pipeline::parse(SHOP, Path::new("p.yaml")).unwrap();
    for (name, keeper) in [("cassandra.orders", "keep"), ("cassandra.copies", "again")] {
        let topic = &pipeline.topics[name];
        assert_eq!((topic.partitions, topic.generation, topic.feed_of.as_deref()), (3, 2, Some(keeper)));
    }
    assert_eq!(pipeline.log_topics().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["orders"]);
    let readers: Vec<_> = pipeline.readers().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(readers, ["keep", "again", "sums"]);
}

#[test]
fn mistakes_with_event_stores_are_told() {
    for (from, to, said) in [
        (
            "from: orders, key",
            "from: [orders, orders2], key",
            "names 2 topics, but this kind of function reads at most 1",
        ),
        (
            "report, from: cassandra.orders",
            "report, from: cassandra.order",
            "which no function of this file that uses `store` writes to",
        ),
        ("into: cassandra.copies", "into: postgres.copies", "keeps events, so it writes to `cassandra.TABLE`"),
        ("into: postgres.sums", "into: postgres.orders", "can't have the same name"),
        (
            "from: orders, key: id",
            "from: cassandra.copies, key: id",
            "is `cassandra.copies`, which no function of this file that uses `store` writes to",
        ),
        ("into: postgres.sums", "into: topic.cassandra.orders", "which this file doesn't declare"),
        ("key: id, into", "key: id, every: 5s, into", "is woken by its records"),
    ] {
        assert!(SHOP.contains(from), "{from}");
        let text = SHOP.replace(from, to);
        let found = Pipeline::parse(&text, Path::new("p.yaml"))
            .map(|_| String::new())
            .unwrap_or_else(|wrong| wrong.to_string());
        assert!(found.contains(said), "{to}: {found}");
    }
}
