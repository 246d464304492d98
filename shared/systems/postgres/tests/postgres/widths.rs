//! Columns get wider types when a table is adapted to another plan.

use arrow::datatypes::DataType;
use millstream_core::{Claim, Merge, Owner, OwnerRecord, Role, Sink as _, Table, View};
use millstream_testkit::rows::texts;

use crate::support::{Database, Way, adopt, column, connect, table};

const MAX: Role = Role::State(Merge::Max);

fn columns(types: [DataType; 6]) -> Table {
    let names = ["key", "n", "amount", "ratio", "small", "more"];
    let roles = [Role::Key, Role::State(Merge::Sum), MAX, MAX, MAX, MAX];
    let columns = names.into_iter().zip(types).zip(roles).map(|((name, of), role)| column(name, of, role));
    table("counts", columns.collect())
}

fn narrow() -> Table {
    let amount = DataType::Decimal128(9, 2);
    columns([DataType::Int32, DataType::Int32, amount, DataType::Float32, DataType::Int8, DataType::UInt8])
}

fn wide() -> Table {
    let amount = DataType::Decimal128(13, 4);
    columns([DataType::Int64, DataType::Int64, amount, DataType::Float64, DataType::Int16, DataType::Int32])
}

fn with_view(table: Table) -> Table {
    let of_n = table.columns[1].data_type.clone();
    let columns = vec![("key".to_owned(), table.columns[0].data_type.clone()), ("n".to_owned(), of_n)];
    let (name, together) = ("seen".to_owned(), vec!["key".to_owned()]);
    let select = "SELECT key, n FROM counts WHERE n > 0".to_owned();
    Table { view: Some(View { name, columns, select, together }), ..table }
}

async fn type_of(database: &Database, column: &str) -> String {
    let sql = format!(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'counts'::regclass AND attname = '{column}'"
    );
    database.ask(&sql).await
}

fn role(database: &Database) -> String {
    database.url().rsplit('/').next().unwrap().split('?').next().unwrap().replace("test", "widths")
}

pub async fn columns_get_wider_types(way: Way) {
    let database = Database::create(way).await;
    database.sink(&narrow()).prepare(true).await.unwrap();
    let role = role(&database);
    database
        .execute(&format!(
            "INSERT INTO counts VALUES (1, 2147483647, 1234567.89, 0.5, 127, 255); CREATE ROLE {role};
             GRANT SELECT (n) ON counts TO {role}; COMMENT ON COLUMN counts.n IS 'mine';
             ALTER TABLE counts ADD CONSTRAINT mine CHECK (n BETWEEN 0 AND 99999999999)"
        ))
        .await;
    let sink = database.sink(&wide());
    let refused = sink.prepare(true).await.unwrap_err().to_string();
    assert!(refused.contains("counts.key is integer, not bigint"), "only on request: {refused}");
    assert_eq!(sink.misfits().await.unwrap(), [""; 0]);
    adopt(&sink).await.unwrap();
    sink.prepare(false).await.unwrap();
    adopt(&sink).await.unwrap();
    assert_eq!(texts(&sink.snapshot().await.unwrap().rows), [["1", "2147483647", "1234567.8900", "0.5", "127", "255"]]);
    database
        .execute(
            "INSERT INTO counts VALUES (1, 2147483647, 0, 0.1, 300, 65535) ON CONFLICT (key) DO UPDATE SET
             n = counts.n + EXCLUDED.n, small = EXCLUDED.small, more = EXCLUDED.more;
             INSERT INTO counts VALUES (5000000000, 1, 123456789.1234, 0.1, 1, 1)",
        )
        .await;
    let row = "n || ',' || small || ',' || more";
    assert_eq!(database.ask(&format!("SELECT {row} FROM counts WHERE key = 1")).await, "4294967294,300,65535");
    assert_eq!(database.ask("SELECT ratio FROM counts WHERE key > 1").await, "0.1");
    assert_eq!(database.ask(&format!("SELECT has_column_privilege('{role}', 'counts', 'n', 'SELECT')")).await, "true");
    assert_eq!(database.ask("SELECT col_description('counts'::regclass, 2)").await, "mine");
    let checks = "SELECT string_agg(pg_get_constraintdef(oid), '; ' ORDER BY conname) FROM pg_constraint \
         WHERE conrelid = 'counts'::regclass AND contype = 'c'";
    let checks = database.ask(checks).await;
    assert!(checks.contains("99999999999") && !checks.contains(';'), "{checks}");
    database.drop().await;
    // The role is of the whole server.
    let other = Database::create(way).await;
    other.execute(&format!("DROP ROLE {role}")).await;
    other.drop().await;
}

pub async fn a_view_is_made_again_over_wider_types(way: Way) {
    let database = Database::create(way).await;
    database.sink(&with_view(narrow())).prepare(true).await.unwrap();
    database
        .execute(
            "INSERT INTO counts VALUES (1, 5); GRANT SELECT ON seen TO PUBLIC;
             GRANT UPDATE (n) ON seen TO PUBLIC; COMMENT ON COLUMN seen.n IS 'mine'",
        )
        .await;
    let sink = database.sink(&with_view(wide()));
    // Others' views are theirs to drop: each one is named, and nothing is changed.
    database
        .execute(
            "CREATE VIEW over AS SELECT n FROM seen; CREATE MATERIALIZED VIEW stored AS SELECT n FROM counts;
             CREATE VIEW apart AS SELECT count(*) AS n FROM counts",
        )
        .await;
    let misfits = sink.misfits().await.unwrap().join("\n");
    assert!(
        misfits.contains("view over reads seen") && misfits.contains("materialized view stored reads"),
        "{misfits}"
    );
    assert!(!misfits.contains("apart"), "it reads no column: {misfits}");
    let refused = adopt(&sink).await.unwrap_err().to_string();
    assert!(refused.contains("view over reads seen"), "{refused}");
    assert_eq!(type_of(&database, "n").await, "integer");
    database.execute("DROP VIEW over; DROP MATERIALIZED VIEW stored").await;
    // What is no view is named by the server.
    database.execute("CREATE FUNCTION of_row(seen) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'").await;
    let refused = adopt(&sink).await.unwrap_err().to_string();
    assert!(refused.contains("function of_row(seen)"), "{refused}");
    assert_eq!(database.ask("SELECT n FROM seen").await, "5", "nothing was changed");
    database.execute("DROP FUNCTION of_row").await;
    adopt(&sink).await.unwrap();
    sink.prepare(false).await.unwrap();
    assert_eq!(type_of(&database, "n").await, "bigint");
    assert_eq!(database.ask("SELECT n FROM seen").await, "5");
    let given = "SELECT count(*) FROM pg_class, aclexplode(relacl) WHERE relname = 'seen' AND grantee = 0";
    assert_eq!(database.ask(given).await, "1");
    let given =
        "SELECT attname FROM pg_attribute, aclexplode(attacl) WHERE attrelid = 'seen'::regclass AND grantee = 0";
    assert_eq!(database.ask(given).await, "n");
    assert_eq!(database.ask("SELECT col_description('seen'::regclass, 2)").await, "mine");
    database.drop().await;
}

pub async fn a_view_of_somebody_else_stays_over_narrow_types(way: Way) {
    let database = Database::create(way).await;
    database.sink(&narrow()).prepare(true).await.unwrap();
    database.execute("CREATE VIEW seen AS SELECT key, n FROM counts").await;
    let refused = adopt(&database.sink(&with_view(wide()))).await.unwrap_err().to_string();
    assert!(refused.contains("view seen reads"), "{refused}");
    assert_eq!(type_of(&database, "n").await, "integer");
    database.drop().await;
}

pub async fn narrower_types_are_refused(way: Way) {
    let database = Database::create(way).await;
    database.sink(&wide()).prepare(true).await.unwrap();
    let refused = adopt(&database.sink(&narrow())).await.unwrap_err().to_string();
    for what in
        ["counts.n is bigint, not integer", "counts.ratio is double precision, not real", "`millstream rebuild`"]
    {
        assert!(refused.contains(what), "{what}: {refused}");
    }
    // The types are the same to PostgreSQL, but for the check.
    assert!(refused.contains("counts.small may hold values that are no tinyint"), "{refused}");
    // The numbers of a float key are others as doubles.
    let mut floats =
        table("floats", vec![column("key", DataType::Float32, Role::Key), column("n", DataType::Int64, MAX)]);
    database.sink(&floats).prepare(true).await.unwrap();
    floats.columns[0].data_type = DataType::Float64;
    let misfits = database.sink(&floats).misfits().await.unwrap();
    assert_eq!(misfits, ["column floats.key is real, not double precision"]);
    database.drop().await;
}

/// To rewrite a table takes long and keeps everybody out: here it would wait for a reader, and give up.
pub async fn nothing_is_rewritten_for_another_owner_than_the_judged_one(way: Way) {
    let database = Database::create(way).await;
    database.sink(&narrow()).prepare(true).await.unwrap();
    let sink = database.sink(&wide());
    let owner = Owner { function: "test.function".into(), fingerprint: "a plan".into(), declaration: "{}".into() };
    let first = database.sink(&narrow()).claim(&owner, &Claim::First).await.unwrap().unwrap();
    let reader = connect(&database.direct_url()).await;
    reader.batch_execute("BEGIN; SELECT * FROM counts").await.unwrap();
    for judged in [None, Some(OwnerRecord { term: first.term + 1, ..first.clone() })] {
        assert_eq!(sink.adopt(&owner, judged.as_ref()).await.unwrap(), None);
    }
    reader.batch_execute("ROLLBACK").await.unwrap();
    assert!(sink.adopt(&owner, Some(&first)).await.unwrap().is_some());
    database.drop().await;
}
