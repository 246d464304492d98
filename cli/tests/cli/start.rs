//! Starts and ends of `dev` that fail, and the messages of commands without a pipeline.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use millstream_core::{Clock as _, SystemClock};

use super::{data, millstream, run, said};

#[test]
fn the_time_limit_applies_while_a_service_is_unavailable() {
    let data = data();
    let began_ms = SystemClock.now_ms();
    // Port 9 (discard) of this machine: nothing listens there.
    let mut command = millstream(&data, &["dev", "pipelines/bank", "--for", "2", "--plain"]);
    let output = command.env("MILLSTREAM_KAFKA_BROKERS", "127.0.0.1:9").output().unwrap();
    let (_, err) = said(&output);
    assert_eq!(output.status.code(), Some(4), "{err}");
    assert!(SystemClock.now_ms() - began_ms < 8_000, "it ended late");
    assert!(err.contains("topics") && err.contains("127.0.0.1:9") && err.contains("--for"), "{err}");
}

#[test]
fn a_deleted_data_folder_ends_dev() {
    let data = data();
    let folder = data.path().join("inner").display().to_string();
    let args = ["dev", "pipelines/bank", "--plain", "--for", "60", "--data-dir", &folder];
    let mut child = millstream(&data, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("records") && !line.contains(" 0 records")), "it runs");
    std::fs::remove_dir_all(&folder).unwrap();
    let began_ms = SystemClock.now_ms();
    let err: Vec<String> = lines.collect();
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(3), "{err:#?}");
    assert!(SystemClock.now_ms() - began_ms < 30_000, "it ended late");
    assert!(err.iter().any(|line| line.contains("millstream.db") && line.contains("deleted")), "{err:#?}");
}

/// One function's mistake stops the others before they have begun.
#[test]
fn dev_plans_all_functions_before_it_starts_one() {
    let data = data();
    let text = "name: p\ntopics: { t: { partitions: 1, schema: { a: bigint } } }\nfunctions:\n  \
                f: { uses: aggregate, from: t, sql: SELECT sum(a) AS n FROM t, into: postgres.f }\n  \
                g: { uses: aggregate, from: t, sql: SELECT sum(b) AS n FROM t, into: postgres.g }\n";
    let of = super::pipeline(&data, text);
    let output = run(&data, &["dev", "--for", "1", &of[0], &of[1]]);
    let (_, err) = said(&output);
    assert_eq!(output.status.code(), Some(3), "{err}");
    assert!(err.contains("pipeline.yaml:5:") && err.contains("no column `b`"), "{err}");
    assert!(!data.path().join("millstream.db").exists(), "nothing has begun");
}

#[test]
fn an_invalid_log_filter_is_refused() {
    let data = data();
    let mut command = millstream(&data, &["check", "pipelines/bank"]);
    let output = command.env("MILLSTREAM_LOG", "loud").output().unwrap();
    let (_, err) = said(&output);
    assert_eq!(output.status.code(), Some(3), "{err}");
    assert!(err.contains("MILLSTREAM_LOG") && err.contains("`loud`") && err.contains("debug"), "{err}");
    for fine in ["info", "warn,millstream_kafka=debug", "off", ""] {
        let output = command.env("MILLSTREAM_LOG", fine).output().unwrap();
        assert!(output.status.success(), "{fine}: {output:?}");
    }
}

#[test]
fn without_a_pipeline_the_message_tells_where_it_looked() {
    let data = data();
    let empty = data.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    for args in [&[][..], &["check"], &["topics"]] {
        let output = millstream(&data, args).current_dir(&empty).output().unwrap();
        let (out, err) = said(&output);
        assert_eq!(output.status.code(), Some(2), "{out} {err}");
        assert!(err.contains("./pipeline.yaml") && err.contains("pipelines/bank"), "{err}");
        assert!(err.contains("`millstream new"), "{err}");
    }
}

#[test]
fn a_check_lists_its_mistakes_and_counts_them() {
    let data = data();
    let file = data.path().join("pipeline.yaml");
    let text = std::fs::read_to_string(super::root().join("pipelines/bank/pipeline.yaml")).unwrap();
    let text = text.split("tests:").next().unwrap();
    std::fs::write(&file, text.replace("sum(amount)", "sum(amuont)")).unwrap();
    let output = run(&data, &["check", &file.display().to_string()]);
    let (out, _) = said(&output);
    assert_eq!(output.status.code(), Some(1), "{out}");
    assert!(!out.contains("merged by") && !out.contains("generate: "), "no plan hides the mistake: {out}");
    assert!(out.trim_end().ends_with("1 mistake"), "{out}");
}
