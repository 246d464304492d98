//! The first oracle: DuckDB, in a Python process.

use std::{path::PathBuf, process::Stdio};

use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{
    case::{ORDER, Tables, VERSION},
    compare::Texts,
};

/// A running DuckDB.
pub struct DuckDb {
    _child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl DuckDb {
    /// Starts the process: the Python of `tests/run`'s environment, which has DuckDB.
    pub fn start(python: &PathBuf) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/duckdb_oracle.py");
        let mut child = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; tests/run installs it", python.display()));
        let (ask, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { _child: child, ask, answers: BufReader::new(answers) }
    }

    /// The result of a query over tables.
    pub async fn query(&mut self, tables: &Tables, query: &str) -> Result<Texts, String> {
        let request = json!({ "setup": setup(tables), "query": query });
        self.ask.write_all(format!("{request}\n").as_bytes()).await.unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).await.unwrap();
        let answer: Json =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("DuckDB answered {line}: {error}"));
        if let Some(error) = answer["error"].as_str() {
            return Err(error.to_owned());
        }
        let text = |cell: &Json| cell.as_str().map(str::to_owned);
        let row = |row: &Json| row.as_array().unwrap().iter().map(text).collect();
        Ok(answer["rows"].as_array().unwrap().iter().map(row).collect())
    }
}

/// Statements that create the tables.
fn setup(tables: &Tables) -> Vec<String> {
    let mut statements = Vec::new();
    for table in &tables.all {
        let columns: Vec<_> = table.columns.iter().map(|(name, of)| format!("\"{name}\" {}", of.duck())).collect();
        let columns = columns.join(", ");
        statements.push(format!("CREATE TABLE {} ({ORDER} VARCHAR, {VERSION} BIGINT, {columns})", table.name));
        let rows: Vec<String> = table
            .rows
            .iter()
            .map(|row| {
                let values: Vec<_> =
                    row.values.iter().zip(&table.columns).map(|(value, (_, of))| value.duck(of)).collect();
                format!("('{}', {}, {})", row.order, row.version, values.join(", "))
            })
            .collect();
        if !rows.is_empty() {
            statements.push(format!("INSERT INTO {} VALUES {}", table.name, rows.join(", ")));
        }
    }
    statements
}
