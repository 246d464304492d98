//! Reads the content of stores, as simply as possible.

use std::{collections::BTreeMap, path::Path, process::Command};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Decimal128Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType},
};
use millstream_core::Env;
use tokio_postgres::SimpleQueryMessage;

use crate::{
    bank::Sums,
    clients::{postgres_client, setting},
};

/// A record in a file.
#[derive(Clone, Debug)]
pub struct Archived {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Branch, currency, hundredths and microseconds since 1970.
    pub fields: (String, String, i64, i64),
}

/// The table of scene `name` in Postgres.
pub(super) async fn postgres(url: &str, name: &str) -> Sums {
    let sql = format!(
        "SELECT (extract(epoch FROM curr_time) * 1000000)::bigint, branch_name, currency_code, \
         (batch_value * 100)::bigint, transactions FROM flow_{name}"
    );
    let messages = postgres_client(url).await.simple_query(&sql).await.unwrap();
    let mut sums = Sums::new();
    for message in messages {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let number = |column: usize| row.get(column).unwrap().parse::<i64>().unwrap();
        let key = (number(0), row.get(1).unwrap().to_owned(), row.get(2).unwrap().to_owned());
        assert_eq!(sums.insert(key.clone(), (number(3), number(4))), None, "two rows for {key:?}");
    }
    sums
}

/// The same from the rows of a snapshot.
pub(super) fn rows(batches: &[RecordBatch]) -> Sums {
    let mut sums = Sums::new();
    for batch in batches {
        let windows = micros(batch, 0);
        let (branches, currencies) = (texts(batch, 1), texts(batch, 2));
        let values = batch.column(3).as_primitive::<Decimal128Type>();
        assert_eq!(values.scale(), 2);
        let counts = batch.column(4).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let key = (windows[row], branches[row].clone(), currencies[row].clone());
            let sum = (i64::try_from(values.value(row)).unwrap(), counts.value(row));
            assert_eq!(sums.insert(key.clone(), sum), None, "two rows for {key:?}");
        }
    }
    sums
}

/// Every record of the Parquet files below `folder/log_date=…`.
pub(super) async fn lake(folder: &Path) -> Vec<Archived> {
    let mut archived = Vec::new();
    files(folder).await.iter().for_each(|batch| add(batch, &mut archived));
    archived
}

async fn files(folder: &Path) -> Vec<RecordBatch> {
    let store = millstream_lake::open(&folder.display().to_string(), &Env::default()).unwrap().store;
    let mut rows = Vec::new();
    for date in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let date_name = date.file_name().into_string().unwrap();
        if !date_name.starts_with("log_date=") {
            continue;
        }
        for file in std::fs::read_dir(date.path()).unwrap().map(Result::unwrap) {
            let name = file.file_name().into_string().unwrap();
            // A file that a killed process was writing has another name until it is complete.
            if name.ends_with(".parquet") {
                let path = millstream_lake::Path::from(format!("{date_name}/{name}"));
                rows.extend(millstream_lake::read_parquet(store.as_ref(), &path).await.unwrap());
            }
        }
    }
    rows
}

/// An engine that is not ours.
#[derive(Clone, Copy, Debug)]
pub enum Reader {
    /// Arrow's Python library, in a folder or over S3.
    Pyarrow,
    /// DuckDB, in a folder.
    Duckdb,
}

/// Every record of a table of files, as `reader` finds them.
pub(super) fn by(reader: Reader, address: &str, environment: &BTreeMap<String, String>) -> Vec<Archived> {
    let name = match reader {
        Reader::Pyarrow => "pyarrow",
        Reader::Duckdb => "duckdb",
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/lake_reader.py");
    let mut command = Command::new(setting("MILLSTREAM_TEST_DUCKDB"));
    let answer = command.args([script, name, address]).envs(environment).output().unwrap();
    assert!(answer.status.success(), "{name}: {}", String::from_utf8_lossy(&answer.stderr));
    String::from_utf8(answer.stdout).unwrap().lines().map(archived).collect()
}

fn archived(line: &str) -> Archived {
    let cells: Vec<&str> = line.split('\t').collect();
    let cents = cells[4].replace('.', "").parse().unwrap();
    Archived {
        partition: cells[0].parse().unwrap(),
        offset: cells[1].parse().unwrap(),
        fields: (cells[2].to_owned(), cells[3].to_owned(), cents, cells[5].parse().unwrap()),
    }
}

fn add(batch: &RecordBatch, archived: &mut Vec<Archived>) {
    let index = |name: &str| batch.schema().index_of(name).unwrap();
    let (branches, currencies) = (texts(batch, index("branch")), texts(batch, index("currency")));
    let amounts = batch.column(index("amount")).as_primitive::<Decimal128Type>();
    assert_eq!(amounts.scale(), 2);
    let ats = micros(batch, index("at"));
    let partitions = batch.column(index("_partition")).as_primitive::<Int32Type>();
    let offsets = batch.column(index("_offset")).as_primitive::<Int64Type>();
    archived.extend((0..batch.num_rows()).map(|row| Archived {
        partition: partitions.value(row),
        offset: offsets.value(row),
        fields: (branches[row].clone(), currencies[row].clone(), amounts.value(row) as i64, ats[row]),
    }));
}

fn texts(batch: &RecordBatch, column: usize) -> Vec<String> {
    let column = cast(batch.column(column), &DataType::Utf8).unwrap();
    column.as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect()
}

fn micros(batch: &RecordBatch, column: usize) -> Vec<i64> {
    let column = cast(batch.column(column), &DataType::Timestamp(TimeUnit::Microsecond, None)).unwrap();
    assert_eq!(column.null_count(), 0);
    column.as_primitive::<TimestampMicrosecondType>().values().to_vec()
}
