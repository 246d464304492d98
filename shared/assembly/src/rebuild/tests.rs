use std::{path::Path, sync::Arc};

use millstream_core::{Env, Error, NewRecord, SystemClock};
use millstream_pipeline::Pipeline;

use super::{Begun, Rebuild};
use crate::{Connections, Standing, Systems};

const TEXT: &str = "name: p\ntopics: { t: { partitions: 2, schema: { a: bigint } } }\nfunctions:\n  \
                    g: { uses: aggregate, from: t, sql: 'SELECT sum(a) AS a FROM t', batch: { max_records: 1 }, into: postgres.g }\n";

/// Three records in each partition are in the table, and the statement has changed since.
async fn changed(folder: &Path) -> (Systems, Pipeline) {
    let pipeline = |text: &str| Pipeline::parse(text, "p.yaml".as_ref()).unwrap();
    let mut connections = Connections::read(&Env::default()).unwrap();
    connections.data_dir = folder.to_owned();
    let before = pipeline(TEXT);
    let systems = Systems::open(&before, &connections, Arc::new(SystemClock)).unwrap();
    systems.create_topics(&before).await.unwrap();
    for partition in [0, 1] {
        let record = |at: i32| NewRecord {
            value: Some(format!("{{\"a\":{}}}", 10_i32.pow((3 * partition + at).unsigned_abs())).into_bytes()),
            partition: Some(partition),
            ..NewRecord::default()
        };
        systems.producer(&before.topics["t"]).unwrap().send("t", (0..3).map(record).collect()).await.unwrap();
    }
    let function = systems.function(&before, "g").await.unwrap();
    function.drain(systems.source().as_ref()).await.unwrap();
    let after = pipeline(&TEXT.replace("sum(a) AS a", "sum(a) AS a, count(*) AS n"));
    (systems, after)
}

fn file(folder: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(folder.join("millstream.db")).unwrap()
}

/// Retention deletes what is below `low`.
fn delete_below(folder: &Path, partition: i32, low: i64) {
    let sql = format!(
        "UPDATE millstream_partitions SET low = {low} WHERE partition = {partition};
         DELETE FROM millstream_records WHERE partition = {partition} AND \"offset\" < {low}"
    );
    file(folder).execute_batch(&sql).unwrap();
}

async fn begun(systems: &Systems, pipeline: &Pipeline, partial: bool) -> (Rebuild, Begun) {
    let mut rebuild = systems.rebuild(pipeline, "g").await.unwrap();
    let (begun, lost) = rebuild.begin(partial).await.unwrap();
    assert_eq!(lost, [""; 0]);
    (rebuild, begun)
}

/// Deletes two records of a partition once the rebuild has read the first record of partition 0.
async fn overtaken(folder: &Path, rebuild: &mut Rebuild, partition: i32) -> Result<(), Error> {
    let mut told = |at: super::RebuildProgress| {
        if at.read == 1 {
            delete_below(folder, partition, 2);
        }
    };
    rebuild.carry_out(None, &mut told).await.map(drop)
}

/// Lets the rebuild read so many records, as if its process was killed then.
async fn stopped_after(rebuild: &mut Rebuild, records: u64) {
    let read = tokio::sync::Notify::new();
    let mut told = |at: super::RebuildProgress| {
        if at.read >= records {
            read.notify_one();
        }
    };
    tokio::select! {
        biased;
        () = read.notified() => {}
        done = rebuild.carry_out(None, &mut told) => panic!("it was not stopped: {done:?}"),
    }
}

async fn assert_rebuilt(systems: &Systems, pipeline: &Pipeline, folder: &Path, row: (i64, i64)) {
    let found = file(folder).query_row("SELECT a, n FROM g", [], |row| Ok((row.get(0)?, row.get(1)?)));
    assert_eq!(found, Ok(row));
    assert!(matches!(systems.standing(pipeline, "g").await.unwrap(), Standing::GoesOn { .. }));
}

#[tokio::test]
async fn what_retention_has_deleted_of_the_next_partition_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let (systems, pipeline) = changed(folder.path()).await;
    let (mut rebuild, _) = begun(&systems, &pipeline, true).await;
    overtaken(folder.path(), &mut rebuild, 1).await.unwrap();
    assert!(rebuild.finish().await.unwrap());
    assert_rebuilt(&systems, &pipeline, folder.path(), (100_111, 4)).await;
}

#[tokio::test]
async fn what_retention_has_deleted_of_this_partition_makes_the_next_run_begin_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (systems, pipeline) = changed(folder.path()).await;
    let (mut rebuild, _) = begun(&systems, &pipeline, true).await;
    let stopped = overtaken(folder.path(), &mut rebuild, 0).await;
    assert!(matches!(stopped, Err(Error::Stop(_))), "{stopped:?}");
    let (mut rebuild, begun) = begun(&systems, &pipeline, true).await;
    assert_eq!(begun, Begun::StartedOver, "to go on would leave a hole");
    rebuild.carry_out(None, &mut |_| {}).await.unwrap();
    assert!(rebuild.finish().await.unwrap());
    assert_rebuilt(&systems, &pipeline, folder.path(), (111_100, 4)).await;
}

#[tokio::test]
async fn what_an_earlier_run_has_read_need_not_be_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (systems, pipeline) = changed(folder.path()).await;
    let (mut rebuild, _) = begun(&systems, &pipeline, false).await;
    stopped_after(&mut rebuild, 3).await;
    // The first partition is in the new table.
    delete_below(folder.path(), 0, 3);
    let (mut rebuild, begun) = begun(&systems, &pipeline, false).await;
    assert_eq!(begun, Begun::Resumed);
    rebuild.carry_out(None, &mut |_| {}).await.unwrap();
    assert!(rebuild.finish().await.unwrap());
    assert_rebuilt(&systems, &pipeline, folder.path(), (111_111, 6)).await;
}

#[tokio::test]
async fn a_whole_rebuild_does_not_go_on_with_a_part() {
    let folder = tempfile::tempdir().unwrap();
    let (systems, pipeline) = changed(folder.path()).await;
    delete_below(folder.path(), 0, 2);
    let (mut rebuild, _) = begun(&systems, &pipeline, true).await;
    stopped_after(&mut rebuild, 2).await;
    let refused = systems.rebuild(&pipeline, "g").await.unwrap().check_log().unwrap_err().to_string();
    assert!(refused.contains("t/1/0: offsets 0..2"), "{refused}");
}

#[tokio::test]
async fn a_whole_rebuild_leaves_nothing_out() {
    let folder = tempfile::tempdir().unwrap();
    let (systems, pipeline) = changed(folder.path()).await;
    let (mut rebuild, _) = begun(&systems, &pipeline, false).await;
    let stopped = overtaken(folder.path(), &mut rebuild, 1).await;
    assert!(matches!(stopped, Err(Error::Stop(_))), "{stopped:?}");
    let found = file(folder.path()).query_row("SELECT a FROM g", [], |row| row.get::<_, i64>(0));
    assert_eq!(found, Ok(111_111), "the old table is as it was");
    let refused = systems.rebuild(&pipeline, "g").await.unwrap().check_log().unwrap_err().to_string();
    assert!(refused.contains("offsets 0..2") && refused.contains("--partial"), "{refused}");
}

/// The new table would begin anew with all partitions, so that of the others which the log has lost is named too.
#[tokio::test]
async fn what_one_partition_has_lost_is_lost_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let (systems, pipeline) = changed(folder.path()).await;
    let (mut rebuild, _) = begun(&systems, &pipeline, false).await;
    stopped_after(&mut rebuild, 4).await;
    delete_below(folder.path(), 0, 3);
    // All of it, for the next record may be in the new table as well: a transaction that is in flight goes on.
    delete_below(folder.path(), 1, 3);
    let mut again = systems.rebuild(&pipeline, "g").await.unwrap();
    let refused = again.begin(false).await.unwrap_err().to_string();
    assert!(refused.contains("t/1/0: offsets 0..3") && refused.contains("t/1/1: offsets 0..3"), "{refused}");
    let kept = file(folder.path()).query_row("SELECT count(*) FROM g__rebuild_state", [], |row| row.get::<_, i64>(0));
    let kept = kept.or_else(|_| file(folder.path()).query_row("SELECT count(*) FROM g__rebuild", [], |row| row.get(0)));
    assert_eq!(kept, Ok(1), "what the log can't give again is still there");
}
