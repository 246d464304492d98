use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use crate::{Input, ReferenceTable, Statement, plan};

async fn of(sql: &str) -> String {
    let fields = |names: &[&str]| names.iter().map(|name| Field::new(*name, DataType::Int64, true)).collect::<Vec<_>>();
    let double = Field::new("d", DataType::Float64, true);
    let schema = Arc::new(Schema::new([fields(&["a", "b", "c"]), vec![double]].concat()));
    let references =
        ["r", "s"].map(|name| Arc::new(ReferenceTable::new(name, Arc::new(Schema::new(fields(&["x", "y"]))))));
    let inputs = vec![Input { name: "t".into(), schema }];
    plan(&Statement { sql, inputs, references: references.to_vec(), into: "out", carried: &[] })
        .await
        .unwrap()
        .fingerprint
}

#[tokio::test]
async fn spelling_does_not_matter() {
    for group in [
        &[
            "SELECT a, sum(b) AS n FROM t GROUP BY a",
            "select  t.a, SUM(b) as n -- why\nfrom t group by 1",
            "SELECT o.a, sum(o.b) AS n FROM t AS o GROUP BY o.a",
        ][..],
        &[
            "SELECT t.a, r.y FROM t JOIN r ON t.b = r.x",
            "SELECT o.a, k.y FROM t AS o JOIN r AS k ON o.b = k.x",
            "SELECT o.a, k.y FROM t o INNER JOIN r k ON k.x = o.b",
        ],
        &[
            "SELECT a, sum(b) * 2 AS n FROM t WHERE c > 1 GROUP BY a HAVING count(*) > 1",
            "SELECT a, (sum(b) * 2) AS n FROM t WHERE (c) > 1 GROUP BY 1 HAVING COUNT(*) > 1",
        ],
        &[
            "SELECT a, sum(b + c) AS n FROM t WHERE b > 0 GROUP BY a",
            "SELECT o.a, sum((o.b + o.c)) AS n FROM t o WHERE (o.b > 0) GROUP BY 1",
        ],
    ] {
        let first = of(group[0]).await;
        for other in group {
            assert_eq!(of(other).await, first, "{other}");
        }
    }
}

#[tokio::test]
async fn every_change_of_meaning_matters() {
    let statements = [
        "SELECT a, sum(b) AS n FROM t GROUP BY a",
        "SELECT a, sum(c) AS n FROM t GROUP BY a",
        "SELECT a, max(b) AS n FROM t GROUP BY a",
        "SELECT a, sum(b) AS m FROM t GROUP BY a",
        "SELECT a, sum(b + 1) AS n FROM t GROUP BY a",
        "SELECT a, sum(b) AS n FROM t WHERE b > 0 GROUP BY a",
        "SELECT a, sum(b) AS n FROM t WHERE b > 1 GROUP BY a",
        "SELECT a, sum(b) FILTER (WHERE c > 1) AS n FROM t GROUP BY a",
        "SELECT a, sum(b) AS n FROM t GROUP BY a HAVING count(*) > 1",
        "SELECT a, sum(b) AS n FROM t GROUP BY a HAVING count(*) > 2",
        "SELECT a, sum(b) * 2 AS n FROM t GROUP BY a",
        "SELECT a, avg(b) AS n FROM t GROUP BY a",
        "SELECT b AS a, sum(b) AS n FROM t GROUP BY b",
        "SELECT a, b AS n FROM t",
        "SELECT t.a, r.x AS n FROM t JOIN r ON t.b = r.x",
        "SELECT t.a, r.x AS n FROM t LEFT JOIN r ON t.b = r.x",
        "SELECT t.a, r.y AS n FROM t JOIN r ON t.b = r.x",
        "SELECT t.a, s.x AS n FROM t JOIN s ON t.b = s.x",
        "SELECT t.a, r.x AS n FROM t JOIN r ON t.b = r.x AND r.y > 1",
        "SELECT a, b AS n FROM t WHERE a IN (SELECT x FROM r)",
        "SELECT a, b AS n FROM t WHERE a NOT IN (SELECT x FROM r)",
        "SELECT a, b AS n FROM t WHERE a IN (SELECT y FROM r)",
        "SELECT a, b AS n FROM t WHERE a > (SELECT max(x) FROM r)",
        "SELECT a, b AS n FROM t WHERE a > (SELECT max(y) FROM r)",
        "SELECT d - (d - a) AS a, b AS n FROM t",
        "SELECT d - d - a AS a, b AS n FROM t",
        "SELECT d / (d * 2) AS a, b AS n FROM t",
        "SELECT d / d * 2 AS a, b AS n FROM t",
        "SELECT a, sum(d - (d - a)) AS n FROM t GROUP BY a",
        "SELECT a, sum(d - d - a) AS n FROM t GROUP BY a",
        "SELECT a, b AS n FROM t WHERE (a > 1 OR b > 1) IS NOT TRUE",
        "SELECT a, b AS n FROM t WHERE a > 1 OR b > 1 IS NOT TRUE",
        "SELECT a, b AS n FROM t WHERE (a > 1 AND b > 1) IS NULL",
        "SELECT a, b AS n FROM t WHERE a > 1 AND (b > 1) IS NULL",
        "SELECT k.y AS a, l.y AS n FROM t CROSS JOIN (SELECT y FROM r WHERE x = 1) AS k CROSS JOIN (SELECT y FROM r WHERE x = 2) AS l",
        "SELECT l.y AS a, k.y AS n FROM t CROSS JOIN (SELECT y FROM r WHERE x = 1) AS k CROSS JOIN (SELECT y FROM r WHERE x = 2) AS l",
        "SELECT k.y AS a, l.y AS n FROM t JOIN r AS k ON t.a = k.x JOIN r AS l ON t.b = l.x",
        "SELECT l.y AS a, k.y AS n FROM t JOIN r AS k ON t.a = k.x JOIN r AS l ON t.b = l.x",
        "SELECT a, b AS n FROM t UNION ALL SELECT b, a FROM t",
        "SELECT a, b AS n FROM t UNION ALL SELECT a, b FROM t",
    ];
    let mut seen = std::collections::HashMap::new();
    for sql in statements {
        if let Some(other) = seen.insert(of(sql).await, sql) {
            panic!("{other} and {sql}");
        }
    }
}
