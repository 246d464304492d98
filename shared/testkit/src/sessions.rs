//! Session windows on the contract as it is: the table and view that a statement with `session(at, gap)` can be planned
//! to.
//!
//! Events in one tumbling window as wide as the gap lie closer together than the gap, so they belong to one session. Their
//! states are kept by such windows and merge like any others; the view joins the windows whose events lie closer than the
//! gap. Nothing is looked up by overlap, deleted or locked.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Int64Type, Schema},
};
use async_trait::async_trait;
use millstream_core::{Column, Combine, Fence, Merge, Result, Role, Sink, Table, TopicPartition, View};

use crate::{TestCombine, rows::rows};

/// A pause as long as this ends a session.
pub const GAP: i64 = 100;

/// Who did something, and when.
pub type Event = (String, i64);

/// The table `visits_state`, with the view `visits(visitor, began, ended, n)` over it.
pub fn table() -> Table {
    let column = |name: &str, data_type, role| Column { name: name.to_owned(), data_type, nullable: true, role };
    let columns = vec![
        column("visitor", DataType::Utf8, Role::Key),
        column("piece", DataType::Int64, Role::Key),
        column("first_at", DataType::Int64, Role::State(Merge::Min)),
        column("last_at", DataType::Int64, Role::State(Merge::Max)),
        column("n", DataType::Int64, Role::State(Merge::Sum)),
    ];
    let select = format!(
        "SELECT visitor, min(first_at) AS began, max(last_at) AS ended, sum(n)::bigint AS n FROM (\
         SELECT *, count(*) FILTER (WHERE begins) OVER (PARTITION BY visitor ORDER BY piece) AS session FROM (\
         SELECT *, coalesce(first_at - lag(last_at) OVER (PARTITION BY visitor ORDER BY piece) >= {GAP}, true) AS begins \
         FROM visits_state) AS marked) AS numbered GROUP BY visitor, session"
    );
    let view = View {
        name: "visits".to_owned(),
        columns: shown().fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect(),
        select,
        together: vec!["visitor".to_owned()],
    };
    let combine = Arc::new(Sessions(TestCombine::new(&columns)));
    Table { name: "visits_state".to_owned(), columns, combine: Some(combine), view: Some(view) }
}

fn shown() -> Schema {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let number = |name| field(name, DataType::Int64);
    Schema::new(vec![field("visitor", DataType::Utf8), number("began"), number("ended"), number("n")])
}

struct Sessions(TestCombine);

#[async_trait]
impl Combine for Sessions {
    async fn combine(&self, rows: &[RecordBatch]) -> Result<RecordBatch> {
        self.0.combine(rows).await
    }

    /// What the view's SQL says, in Rust. A session is shown at its first piece.
    async fn finish(&self, rows: &RecordBatch) -> Result<(RecordBatch, Vec<usize>)> {
        let visitors = rows.column(0).as_string::<i32>();
        let number = |column: usize, row| rows.column(column).as_primitive::<Int64Type>().value(row);
        let mut pieces: Vec<usize> = (0..rows.num_rows()).collect();
        pieces.sort_by_key(|row| (visitors.value(*row), number(1, *row)));
        let mut sessions: Vec<(usize, i64, i64, i64)> = Vec::new();
        for row in pieces {
            let (first, last, n) = (number(2, row), number(3, row), number(4, row));
            match sessions.last_mut() {
                Some((at, _, ended, sum)) if visitors.value(*at) == visitors.value(row) && first - *ended < GAP => {
                    *ended = last;
                    *sum += n;
                }
                _ => sessions.push((row, first, last, n)),
            }
        }
        let column = |of: fn(&(usize, i64, i64, i64)) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(sessions.iter().map(of)))
        };
        let names = StringArray::from_iter_values(sessions.iter().map(|(row, ..)| visitors.value(*row)));
        let columns = vec![Arc::new(names) as ArrayRef, column(|s| s.1), column(|s| s.2), column(|s| s.3)];
        let shown = RecordBatch::try_new(Arc::new(shown()), columns).unwrap();
        Ok((shown, sessions.iter().map(|(row, ..)| *row).collect()))
    }
}

/// Events of a few visitors in no order, with pauses shorter and longer than the gap and of just its length.
pub fn events(seed: u64) -> Vec<Event> {
    let mut state = seed;
    let mut next = move |below: i64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as i64) % below
    };
    (0..300).map(|_| (format!("visitor {}", next(4)), next(120) * (GAP / 4) + next(2))).collect()
}

/// The sessions of `events`, event by event: visitor, first, last, how many. Sorted.
pub fn expected(events: &[Event]) -> Vec<Vec<String>> {
    let mut by_visitor: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for (visitor, at) in events {
        by_visitor.entry(visitor).or_default().push(*at);
    }
    let mut sessions = Vec::new();
    for (visitor, mut times) in by_visitor {
        times.sort_unstable();
        for session in times.chunk_by(|before, after| after - before < GAP) {
            let (began, ended) = (session[0], session[session.len() - 1]);
            sessions.push(vec![visitor.to_owned(), began.to_string(), ended.to_string(), session.len().to_string()]);
        }
    }
    sessions.sort();
    sessions
}

/// Writes half of the events to each of two partitions, by a sink each and at once, in batches of many sizes.
pub async fn write(sinks: [Arc<dyn Sink>; 2], events: &[Event]) {
    let halves = events.split_at(events.len() / 2);
    let half = async |number: i32, events: &[Event]| {
        let (sink, partition) = (&sinks[number as usize], TopicPartition::new("clicks", 1, number));
        let mut fence = sink.create_fence(&partition, Fence::starting_at(0)).await.unwrap();
        let mut rest = events;
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(rest.len().min(1 + fence.next_offset as usize % 17));
            let to = Fence { next_offset: fence.next_offset + batch.len() as i64, ..fence.clone() };
            sink.write(&partition, &fence, &to, &[states(batch)]).await.unwrap();
            (fence, rest) = (to, later);
        }
    };
    tokio::join!(half(0, halves.0), half(1, halves.1));
}

/// The partial states of some events: one row each, as rows of a key may come several at a time.
fn states(events: &[Event]) -> RecordBatch {
    let column = |of: fn(&Event) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(events.iter().map(of))) };
    let visitors = StringArray::from_iter_values(events.iter().map(|(visitor, _)| visitor));
    let piece = column(|(_, at)| at.div_euclid(GAP) * GAP);
    rows(&table(), vec![Arc::new(visitors), piece, column(|event| event.1), column(|event| event.1), column(|_| 1)])
}
