//! References that are asked by key give what references in memory give, and are asked for no more than is needed.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};
use async_trait::async_trait;
use millstream_core::{Error, Lookup, Result};
use millstream_sql::{Planned, ReferenceTable, Statement, plan};

use crate::{
    fixture::{Event, decoded, event, lines, statement},
    joins::{JOINS, Rates, batches, rates_over_time, rates_schema},
};

/// Rates that are asked for by branch, and what was asked for in each call.
#[derive(Default)]
struct Asked {
    rates: Mutex<Rates>,
    calls: Mutex<Vec<BTreeSet<String>>>,
    is_away: Mutex<bool>,
}

#[async_trait]
impl Lookup for Asked {
    async fn rows(&self, keys: &ArrayRef) -> Result<Vec<RecordBatch>> {
        if *self.is_away.lock().unwrap() {
            return Err(Error::retry("the store is away"));
        }
        let asked: BTreeSet<String> = keys.as_string::<i32>().iter().map(|key| key.unwrap().to_owned()).collect();
        assert_eq!(asked.len(), keys.len(), "a key is asked for twice");
        let rates = self.rates.lock().unwrap();
        let found = || rates.iter().filter(|(branch, _)| branch.is_some_and(|branch| asked.contains(branch)));
        let branches = StringArray::from_iter(found().map(|(branch, _)| *branch));
        let numbers = Int64Array::from_iter_values(found().map(|(_, rate)| *rate));
        let rows = RecordBatch::try_new(rates_schema(), vec![Arc::new(branches), Arc::new(numbers)]).unwrap();
        self.calls.lock().unwrap().push(asked);
        Ok(vec![rows])
    }
}

async fn asking(sql: &str) -> Result<(Planned, Arc<Asked>), String> {
    let (rates, asked) = (Arc::new(ReferenceTable::asked("rates", rates_schema())), Arc::new(Asked::default()));
    let mut statement = statement(sql);
    statement.references.push(Arc::clone(&rates));
    let planned = plan(&statement).await.map_err(|error| error.to_string())?;
    assert_eq!(rates.asked_by(), Some("branch"));
    rates.ask(Arc::clone(&asked) as _);
    Ok((planned, asked))
}

async fn calls(sql: &str, rates: Rates, events: &[Event]) -> (Vec<String>, Vec<String>) {
    let (planned, asked) = asking(sql).await.unwrap();
    *asked.rates.lock().unwrap() = rates;
    let rows = planned.transform.apply("t", decoded(&planned, events, 0)).await.unwrap();
    let calls = asked.calls.lock().unwrap();
    (calls.iter().map(|keys| keys.iter().cloned().collect::<Vec<_>>().join(",")).collect(), lines(&rows))
}

#[tokio::test]
async fn what_is_asked_by_key_gives_what_is_held_in_memory_or_is_refused() {
    let mut refused = Vec::new();
    for (sql, expected) in JOINS.iter().filter(|(sql, _)| sql.contains("rates")) {
        let (planned, asked) = match asking(sql).await {
            Ok(planned) => planned,
            Err(error) => {
                assert!(
                    error.contains("the reference `rates` has `lookup`: it is asked for the keys"),
                    "{sql}: {error}"
                );
                refused.push(*sql);
                continue;
            }
        };
        for (round, rates) in rates_over_time().iter().enumerate() {
            asked.rates.lock().unwrap().clone_from(rates);
            let batch = &batches(1)[round];
            let got = lines(&planned.transform.apply("t", decoded(&planned, batch, 0)).await.unwrap());
            let mut wanted: Vec<_> = (0..).zip(batch).flat_map(|(at, event)| expected(at, event, rates)).collect();
            wanted.sort();
            assert_eq!(got, wanted, "{sql}, batch {round}");
        }
    }
    let is_simple = |sql: &&str| sql.contains("r.branch = t.branch") && !sql.contains("max(");
    assert!(!refused.iter().any(is_simple), "{refused:#?}");
    assert!(refused.iter().any(|sql| sql.contains("NOT IN")), "a null in it decides over every row");
    assert!(refused.iter().any(|sql| sql.contains("CROSS JOIN")));
}

#[tokio::test]
async fn only_what_the_batch_needs_is_asked_for_and_each_key_once() {
    let rates = || vec![(Some("a"), 10), (Some("b"), 20), (Some("z"), 1)];
    let events = [event("a", 1, 0), event("b", 5, 0), event("a", 7, 1), Event { branch: None, ..event("a", 9, 2) }];
    let sql = "SELECT t._offset, r.rate FROM t JOIN rates r ON r.branch = t.branch WHERE t.count > 4";
    assert_eq!(
        calls(sql, rates(), &events).await,
        (vec!["a,b".to_owned()], vec!["1|20".to_owned(), "2|10".to_owned()])
    );
    let sql = "SELECT t._offset, r.rate FROM t JOIN rates r ON r.branch = t.branch WHERE t.count > 100";
    assert_eq!(calls(sql, rates(), &events).await, (vec![], vec![]));
    // A second alias asks for what the first one has not asked for.
    let sql = "SELECT t._offset, r.rate + s.rate AS sum FROM t JOIN rates r ON r.branch = t.branch
               JOIN rates s ON s.branch = CASE WHEN r.rate < 15 THEN 'z' ELSE t.branch END";
    let (asked, rows) = calls(sql, rates(), &events).await;
    assert_eq!((asked.join(" "), rows.join(" ")), ("a,b z".into(), "0|11 1|40 2|11".into()));
    let sql = "SELECT x.branch, count(*) AS n, sum(x.rate) AS sum FROM (SELECT t.branch, r.rate FROM t LEFT JOIN
               (SELECT rate, branch AS name FROM rates WHERE rate < 20) r ON r.name = t.branch) x GROUP BY 1";
    let (asked, rows) = calls(sql, rates(), &events).await;
    assert_eq!(asked, ["a,b"]);
    assert!(rows.iter().any(|row| row.contains("a|2|20")), "{rows:?}");
}

/// A key is not computed of a record that the statement has dropped by then: it might fail.
#[tokio::test]
async fn a_key_is_computed_where_the_statement_computes_it() {
    let events = [event("nowhere", 5, 0), event("b", 4, 0), event("a", 15, 1)];
    let key = "CAST(10 / (t.count - 5) AS VARCHAR)";
    let sql = format!(
        "SELECT t._offset, r.rate FROM t JOIN branches b ON b.name = t.branch LEFT JOIN rates r ON r.branch = {key}"
    );
    let (asked, rows) = calls(&sql, vec![(Some("1"), 10)], &events).await;
    assert_eq!((asked.join(" "), rows.join(" ")), ("-10,1".into(), "1|null 2|10".into()));
    let sql = format!("SELECT t._offset, r.rate FROM t JOIN rates r ON r.branch = {key} WHERE t.branch <> 'nowhere'");
    assert_eq!(calls(&sql, vec![(Some("1"), 10)], &events).await.1, ["2|10"]);
    // The first pair that is a key counts.
    let sql = "SELECT t._offset, r.rate FROM t JOIN rates r ON r.rate = t.price AND r.branch = t.branch";
    assert_eq!(calls(sql, vec![(Some("a"), 15)], &events).await.0, ["a,b,nowhere"]);
}

#[tokio::test]
async fn a_store_that_is_away_is_no_missing_row() {
    let (planned, asked) =
        asking("SELECT t._offset, r.rate FROM t LEFT JOIN rates r ON r.branch = t.branch").await.unwrap();
    *asked.is_away.lock().unwrap() = true;
    let error = planned.transform.apply("t", decoded(&planned, &[event("a", 1, 0)], 0)).await.unwrap_err();
    assert!(matches!(error, Error::Retry(_)), "{error:?}");
    assert_eq!(error.to_string(), "reference `rates`: the store is away");
}

#[tokio::test]
async fn what_can_not_be_asked_is_refused_with_the_reason() {
    let schema = |data_type| {
        let fields = vec![Field::new("branch", data_type, true), Field::new("other", DataType::Utf8, true)];
        Arc::new(Schema::new(fields))
    };
    let refused = async |data_type, sql| {
        let references = vec![Arc::new(ReferenceTable::asked("rates", schema(data_type)))];
        plan(&Statement { references, ..statement(sql) }).await.unwrap_err().to_string()
    };
    let by_count = "SELECT r.other FROM t JOIN rates r ON r.branch = t.count";
    let said = refused(DataType::Int32, by_count).await;
    assert!(said.contains("its column `branch` of type int is compared with one of type bigint"), "{said}");
    let said = refused(DataType::Float64, "SELECT r.other FROM t JOIN rates r ON r.branch = t.price").await;
    assert!(said.contains("is a string, an integer or a date"), "{said}");
    let both = "SELECT r.other FROM t JOIN rates r ON r.branch = t.branch JOIN rates s ON s.other = t.branch";
    let said = refused(DataType::Utf8, both).await;
    assert!(said.contains("is joined by `branch` and by `other`"), "{said}");
    let alone = "SELECT t.branch, r.other FROM t JOIN (SELECT other, count(*) AS n FROM rates GROUP BY 1) r ON r.other = t.branch";
    let said = refused(DataType::Utf8, alone).await;
    assert!(said.contains("must be joined with the topic by the equality"), "{said}");
}
