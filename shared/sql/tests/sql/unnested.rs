//! unnest beside other columns, and of lists of objects.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, ListArray, RecordBatch, StringArray, StructArray},
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, Fields, Int64Type, Schema, SchemaRef},
};
use millstream_core::Role;
use millstream_sql::{Input, Statement, plan};

use crate::fixture::{few, lines, shown};

#[tokio::test]
async fn a_column_beside_unnest_may_be_computed_under_the_name_of_a_field() {
    let events = &few()[..1];
    for (select, expected) in [
        ("count + 1 AS count, unnest(tags) AS tag", ["151|a", "151|all"]),
        ("abs(count) AS count, unnest(tags) AS tag", ["150|a", "150|all"]),
        ("unnest(tags) AS tag, count AS count", ["all|150", "a|150"]),
        ("price AS count, count AS price, unnest(tags) AS tag", ["18.75|150|a", "18.75|150|all"]),
        ("x.count + 1 AS count, branch, unnest(tags) || branch AS branch2", ["151|a|aa", "151|a|alla"]),
        ("upper(branch) AS branch, unnest(tags) || branch AS tag", ["A|aa", "A|alla"]),
        ("_offset AS _offset, unnest(tags) AS tags", ["0|a", "0|all"]),
    ] {
        let plain = format!("SELECT {select} FROM t AS x WHERE count = 150");
        let below = format!("SELECT * FROM (SELECT {select} FROM t AS x) AS y");
        let with = format!("WITH w AS (SELECT {select} FROM t AS x) SELECT * FROM w");
        for sql in [plain, below, with] {
            assert_eq!(shown(&sql, events).await, expected, "{sql}");
        }
    }
    let grouped = "SELECT branch, tag, count(*) AS n FROM (SELECT upper(branch) AS branch, unnest(tags) AS tag FROM t) AS x \
                   GROUP BY 1, 2";
    assert_eq!(shown(grouped, events).await, ["A|all|1", "A|a|1"]);
    let star = "SELECT *, _offset + 1 AS _offset, unnest(tags) AS tag FROM t";
    let planned = crate::fixture::planned(star).await;
    let names: Vec<_> = planned.table.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["branch", "amount", "count", "price", "tags", "at", "_offset", "tag"]);
    // Nothing was computed in the column that had the name before.
    let unnamed = "SELECT x, tag FROM (SELECT abs(x) AS x, unnest(tags) AS tag FROM (SELECT count - 200 AS x, tags FROM t) AS y) AS z";
    assert_eq!(shown(unnamed, events).await, ["50|a", "50|all"]);
}

fn items() -> (SchemaRef, RecordBatch) {
    let item = Fields::from(vec![Field::new("k", DataType::Utf8, true), Field::new("n", DataType::Int64, true)]);
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Struct(item.clone()), true)));
    let who = Fields::from(vec![Field::new("l", list.clone(), true)]);
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("l", list, true),
        Field::new("who", DataType::Struct(who.clone()), true),
        Field::new("_offset", DataType::Int64, false),
    ]));
    let (keys, numbers) = (StringArray::from(vec!["a", "b", "c"]), Int64Array::from(vec![1, 2, 3]));
    let objects = StructArray::new(item.clone(), vec![Arc::new(keys) as ArrayRef, Arc::new(numbers)], None);
    let field = Arc::new(Field::new_list_field(DataType::Struct(item), true));
    let lists = Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([2, 0, 1]), Arc::new(objects), None));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![10, 20, 30])),
        lists.clone(),
        Arc::new(StructArray::new(who, vec![lists], None)),
        Arc::new(Int64Array::from(vec![5, 6, 7])),
    ];
    (schema.clone(), RecordBatch::try_new(schema, columns).unwrap())
}

#[tokio::test]
async fn a_list_of_objects_becomes_records() {
    let (schema, rows) = items();
    for (sql, expected) in [
        ("SELECT id, x['k'] AS k FROM (SELECT id, unnest(l) AS x FROM t) AS f", "10|a|5 10|b|5 30|c|7"),
        ("WITH f AS (SELECT id, unnest(l) AS x FROM t) SELECT id, x['k'] AS k FROM f", "10|a|5 10|b|5 30|c|7"),
        (
            "SELECT id, x['k'] AS k FROM (SELECT id, unnest(l) AS x FROM t WHERE id > 10) AS f WHERE x['n'] > 2",
            "30|c|7",
        ),
        ("SELECT x['n'] + id AS n, x['k'] AS k FROM (SELECT id, unnest(l) AS x FROM t) AS f", "11|a|5 12|b|5 33|c|7"),
        ("SELECT id, x['k'] AS k FROM (SELECT id, unnest(who['l']) AS x FROM t) AS f", "10|a|5 10|b|5 30|c|7"),
        (
            "SELECT y, upper(z) AS z FROM (SELECT id AS y, x['k'] AS z FROM (SELECT id, unnest(l) AS x FROM t) AS f) AS g",
            "10|A|5 10|B|5 30|C|7",
        ),
        (
            "SELECT id, x['k'] AS k FROM (SELECT id, unnest(l) AS x FROM t) AS f \
             UNION ALL SELECT id, 'all' AS k FROM t WHERE id = 20",
            "10|a|5 10|b|5 20|all|6 30|c|7",
        ),
        ("SELECT id, x['k'] AS k FROM (SELECT id + 1 AS id, unnest(l) AS x FROM t) AS f", "11|a|5 11|b|5 31|c|7"),
    ] {
        let inputs = vec![Input { name: "t".into(), schema: Arc::clone(&schema) }];
        let statement = Statement { sql, inputs, references: Vec::new(), into: "out", carried: &["_offset"] };
        let planned = plan(&statement).await.unwrap_or_else(|error| panic!("{error}\n{sql}"));
        assert_eq!(planned.table.columns.last().unwrap().role, Role::Carried, "{sql}");
        let read = (0..4).filter(|at| planned.columns["t"].contains(schema.field(*at).name())).collect::<Vec<_>>();
        let found = planned.transform.apply("t", rows.project(&read).unwrap()).await.unwrap();
        assert!(found.iter().all(|rows| rows.column(2).as_primitive_opt::<Int64Type>().is_some()), "{sql}");
        assert_eq!(lines(&found).join(" "), expected, "{sql}");
    }
}
