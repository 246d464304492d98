//! A query over whole tables, run by the plain engine: `millstream query`.

use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{
    common::{TableReference, error::DataFusionError},
    datasource::MemTable,
    execution::{
        context::SessionContext,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        runtime_env::RuntimeEnvBuilder,
    },
    sql::{parser::Statement, sqlparser::ast},
};

use futures::TryStreamExt as _;

use crate::{
    advice, beside, depth,
    error::{Result, SqlError},
    session::{config, context},
    size,
};

/// A table with all of its rows.
pub struct WholeTable {
    /// Its name in SQL.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows.
    pub rows: Vec<RecordBatch>,
}

/// The names of the tables that a SELECT reads.
///
/// # Errors
/// If the statement isn't a SELECT.
pub fn tables_read(sql: &str) -> Result<Vec<String>> {
    let context = context(config(), runtime(MAX_WORK_BYTES))?;
    let statement = select(&context, sql)?;
    let tables = context.state().resolve_table_references(&statement)?;
    if let Some(table) = tables.iter().find(|table| table.schema().is_some()) {
        let (name, schema) = (table.table(), table.schema().unwrap_or_default());
        return Err(SqlError::new(format!("there is no `{schema}.{name}` here: write {name} without the schema")));
    }
    Ok(tables.iter().map(|table| table.table().to_owned()).collect())
}

/// Memory for a query's sorts, groups and joins, and for its result.
const MAX_WORK_BYTES: usize = 1 << 30;
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Runs a SELECT over tables and returns its columns and its first `max_rows` rows.
///
/// # Errors
/// If the statement isn't a SELECT, names something that doesn't exist, fails on a value, or needs more than 1 GiB of
/// memory in addition to the tables, or 256 MiB for the result.
pub async fn query(sql: &str, tables: Vec<WholeTable>, max_rows: usize) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    within(MAX_WORK_BYTES, MAX_ANSWER_BYTES, sql, tables, max_rows).await
}

async fn within(
    work_bytes: usize,
    answer_bytes: usize,
    sql: &str,
    tables: Vec<WholeTable>,
    max_rows: usize,
) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let context = context(config(), runtime(work_bytes))?;
    for WholeTable { name, schema, rows } in tables {
        context.register_table(TableReference::bare(name), Arc::new(MemTable::try_new(schema, vec![rows])?))?;
    }
    let statement = select(&context, sql)?;
    let plan = context.state().statement_to_plan(statement).await?;
    let answer = context.execute_logical_plan(plan).await?.limit(0, Some(max_rows))?;
    let schema = Arc::new(answer.schema().as_arrow().clone());
    let (mut rows, mut bytes) = (Vec::new(), 0);
    let mut stream = answer.execute_stream().await.map_err(said)?;
    while let Some(batch) = stream.try_next().await.map_err(said)? {
        bytes += size::of_batch(&batch);
        if bytes > answer_bytes {
            return Err(SqlError::new("the result has more than 256 MiB: select fewer rows or columns"));
        }
        rows.push(batch);
    }
    Ok((schema, rows))
}

/// Translates an error; a lack of memory is reported with what to do.
fn said(error: DataFusionError) -> SqlError {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => SqlError::new(
            "this takes more than 1 GiB of memory in addition to the tables: select fewer rows with WHERE",
        ),
        _ => error.into(),
    }
}

/// A runtime with a memory limit, which writes no files.
fn runtime(work_bytes: usize) -> RuntimeEnvBuilder {
    let no_disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    RuntimeEnvBuilder::new().with_disk_manager_builder(no_disk).with_memory_limit(work_bytes, 1.0)
}

fn select(context: &SessionContext, sql: &str) -> Result<Statement> {
    let mut statement = context.state().sql_to_statement(sql, &datafusion::config::Dialect::PostgreSQL)?;
    depth::check(&mut statement)?;
    match &mut statement {
        Statement::Statement(sql) if matches!(sql.as_ref(), ast::Statement::Query(_)) => {
            advice::check_patterns(sql)?;
            beside::rename(sql);
            Ok(statement)
        }
        _ => Err(SqlError::new("only a SELECT can be run here")),
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{AsArray as _, Decimal128Array},
        datatypes::Decimal128Type,
    };
    use futures::executor::block_on;

    use super::*;

    fn amounts() -> WholeTable {
        let amounts = Decimal128Array::from(vec![1_250, 499, 900]).with_precision_and_scale(18, 2).unwrap();
        let rows = RecordBatch::try_from_iter([("amount", Arc::new(amounts) as _)]).unwrap();
        WholeTable { name: "sales".into(), schema: rows.schema(), rows: vec![rows] }
    }

    #[test]
    fn money_stays_exact_and_compares_as_numbers() {
        let ask = |sql: &str| block_on(query(sql, vec![amounts()], 10)).unwrap().1;
        let sum = ask("WITH s AS (SELECT amount FROM sales WHERE amount > 5) SELECT sum(amount) AS sum FROM s");
        assert_eq!(sum[0].column(0).as_primitive::<Decimal128Type>().value(0), 2_150);
        let (schema, rows) = block_on(query("SELECT * FROM sales ORDER BY 1", vec![amounts()], 2)).unwrap();
        assert_eq!((schema.field(0).name().as_str(), rows[0].num_rows()), ("amount", 2));
    }

    #[test]
    fn memory_and_answers_are_bounded() {
        let numbers = arrow::array::Int64Array::from_iter_values(0..3_000);
        let rows = RecordBatch::try_from_iter([("n", Arc::new(numbers) as _)]).unwrap();
        let ask = |sql: &str, max_rows: usize| {
            let table = WholeTable { name: "t".into(), schema: rows.schema(), rows: vec![rows.clone()] };
            block_on(within(1 << 20, 1 << 20, sql, vec![table], max_rows)).map_err(|error| error.message)
        };
        let wide = "SELECT repeat('x', 1000) AS x FROM t";
        assert!(ask(wide, 3_000).unwrap_err().contains("256 MiB"));
        assert_eq!(ask(wide, 10).unwrap().1.iter().map(RecordBatch::num_rows).sum::<usize>(), 10);
        let sorted = "SELECT a.n FROM t a CROSS JOIN t b ORDER BY a.n * b.n";
        assert!(ask(sorted, 1_000_000).unwrap_err().contains("1 GiB"));
    }

    #[test]
    fn an_expression_means_the_same_as_in_a_pipeline() {
        for (expression, gives) in [
            ("amount * 1.21", "15.1250"),
            ("coalesce(amount, 0.0)", "12.50"),
            ("amount < CAST(1e18 AS double)", "true"),
            ("date_trunc('year', TIMESTAMP '0001-05-01')", "0001-01-01T00:00:00Z"),
        ] {
            let (_, rows) = block_on(query(&format!("SELECT {expression} FROM sales"), vec![amounts()], 1)).unwrap();
            let shown = arrow::util::display::array_value_to_string(rows[0].column(0), 0).unwrap();
            assert_eq!(shown, gives, "{expression}");
        }
        let endless = "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n FROM r) SELECT count(*) FROM r";
        let error = block_on(query(endless, vec![amounts()], 1)).unwrap_err();
        assert!(error.message.contains("WITH RECURSIVE"), "{error}");
        let three = "SELECT (SELECT amount FROM sales) AS amount FROM sales";
        assert!(block_on(query(three, vec![amounts()], 1)).is_err(), "three rows are not a value");
    }

    #[test]
    fn patterns_of_other_dialects_and_endless_chains_are_refused() {
        let ask = |sql: &str| block_on(query(sql, vec![amounts()], 1)).unwrap_err().message;
        let said = ask("SELECT to_timestamp('2024-01-01', 'YYYY-MM-DD') AS t FROM sales");
        assert!(said.contains("write '%Y-%m-%d'"), "{said}");
        let said = ask(&format!("SELECT amount{} AS t FROM sales", " + 1".repeat(3_000)));
        assert!(said.contains("terms"), "{said}");
    }

    #[test]
    fn the_tables_are_known_before_they_are_loaded() {
        let sql = "WITH s AS (SELECT * FROM a) SELECT (SELECT max(x) FROM b) FROM s JOIN \"C\" USING (x)";
        let mut names = tables_read(sql).unwrap();
        names.sort();
        assert_eq!(names, ["C", "a", "b"]);
        for sql in ["DROP TABLE a", "INSERT INTO a VALUES (1)", "EXPLAIN SELECT 1", "COPY a TO 'x'"] {
            assert_eq!(tables_read(sql).unwrap_err().message, "only a SELECT can be run here", "{sql}");
        }
        assert!(
            tables_read("SELECT * FROM postgres.hourly")
                .unwrap_err()
                .message
                .ends_with("write hourly without the schema")
        );
        assert!(block_on(query("SELECT nothing FROM sales", vec![amounts()], 1)).is_err());
    }
}
