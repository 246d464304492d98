use arrow::datatypes::DataType;
use millstream_core::{Column, Merge, Role, Sink as _, Table};
use millstream_testkit::{TestCombine, adopt, rows::texts};
use std::sync::Arc;

use super::open;
use crate::EmbeddedSink;

const MAX: Role = Role::State(Merge::Max);

fn table(types: [DataType; 5]) -> Table {
    let columns = ["key", "price", "n", "amount", "ratio"].into_iter().zip(types).enumerate();
    let column = |(at, (name, data_type)): (usize, (&str, DataType))| Column {
        name: name.to_owned(),
        data_type,
        nullable: true,
        role: if at < 2 { Role::Key } else { MAX },
    };
    let columns: Vec<_> = columns.map(column).collect();
    Table { name: "counts".into(), combine: Some(Arc::new(TestCombine::new(&columns))), columns, view: None }
}

fn narrow() -> Table {
    let decimal = DataType::Decimal128;
    table([DataType::Int32, decimal(9, 0), DataType::Int8, decimal(9, 2), DataType::Float32])
}

fn wide() -> Table {
    let decimal = DataType::Decimal128;
    table([DataType::Int64, decimal(11, 0), DataType::Int32, decimal(13, 4), DataType::Float64])
}

#[tokio::test]
async fn columns_get_wider_types() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let sink = |table: Table| EmbeddedSink::new(store.clone(), "p.f", table);
    sink(narrow()).prepare(true).await.unwrap();
    let insert = |values: &'static str| {
        store.connections.write(move |file| Ok(file.execute_batch(&format!("INSERT INTO counts VALUES {values}"))?))
    };
    insert("(1, '7', 127, '-0.50', 0.5), (NULL, NULL, NULL, NULL, NULL)").await.unwrap();
    let adapted = sink(wide());
    let refused = adapted.prepare(true).await.unwrap_err().to_string();
    assert!(refused.contains("the type of `key` is int, not bigint"), "only on request: {refused}");
    assert_eq!(adapted.misfits().await.unwrap(), [""; 0]);
    for _ in 0..2 {
        adopt(&adapted, "p.f").await.unwrap();
    }
    adapted.prepare(false).await.unwrap();
    let row = ["1", "7", "127", "-0.5000", "0.5"];
    assert_eq!(texts(&adapted.snapshot().await.unwrap().rows), [row, ["∅"; 5]]);
    // A key is found as new rows spell it.
    assert!(insert("(1, '7', 0, '0.0000', 0.0)").await.is_err(), "the index of the keys holds");
    insert("(5000000000, '12345678925', 300, '123456789.1234', 0.1)").await.unwrap();
    assert_eq!(adapted.snapshot().await.unwrap().rows[0].num_rows(), 3);

    let mut scaled = wide();
    scaled.columns[1].data_type = DataType::Decimal128(13, 2);
    let refused = adopt(&sink(scaled), "p.f").await.unwrap_err().to_string();
    assert!(refused.contains("price"), "a key keeps its scale: {refused}");

    let back = sink(narrow());
    let misfits = back.misfits().await.unwrap();
    assert_eq!(misfits.len(), 5, "{misfits:?}");
    let refused = adopt(&back, "p.f").await.unwrap_err().to_string();
    assert!(misfits.iter().all(|misfit| refused.contains(misfit)), "{refused}");
    assert_eq!(adapted.snapshot().await.unwrap().rows[0].num_rows(), 3, "nothing was changed");
}
