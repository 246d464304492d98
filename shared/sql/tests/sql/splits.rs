//! The table doesn't depend on where batches are cut.

use std::sync::Arc;

use proptest::prelude::*;

use crate::fixture::{Event, decoded, merged, planned};

fn events() -> impl Strategy<Value = Vec<Event>> {
    let one =
        (prop::option::of(prop::sample::select(vec!["a", "b", "c"])), prop::option::of(-1_000..1_000_i64), 0..20_i64);
    prop::collection::vec(one, 1..60).prop_map(|events| {
        let event = |(branch, cents, at_s): (Option<&'static str>, Option<i64>, i64)| Event {
            branch,
            cents,
            count: cents,
            price: cents.unwrap_or(7) as f64,
            at_s,
        };
        events.into_iter().map(event).collect()
    })
}

/// The events cut at the given places.
fn cut<'a>(events: &'a [Event], cuts: &[usize]) -> Vec<&'a [Event]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| (*cut).min(events.len())).chain([0, events.len()]).collect();
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &events[pair[0]..pair[1]]).filter(|part| !part.is_empty()).collect()
}

/// Statements whose rows take different ways to the same kind of states.
pub const STATEMENTS: [&str; 6] = [
    "SELECT tumble(at, INTERVAL '5 seconds') AS w, branch, sum(amount) AS s, count(*) AS n, min(count) AS lo,
       max(price) AS hi, avg(amount) AS mean, first_value(count) AS f, last_value(price) AS l,
       bool_and(count > 0) AS ba, approx_distinct(count) AS d
     FROM t GROUP BY 1, 2",
    "SELECT b.city, count(*) AS n, sum(t.amount) AS s, last_value(t.count) AS l
     FROM t LEFT JOIN branches b ON b.name = t.branch GROUP BY 1",
    "SELECT b.name, count(*) AS n, first_value(t.count) IGNORE NULLS AS f
     FROM branches b JOIN t ON b.name = t.branch WHERE t.branch NOT IN (SELECT name FROM branches WHERE city = 'Rome')
     GROUP BY 1",
    "SELECT k, count(*) AS n, sum(x) AS s FROM (
       SELECT branch AS k, amount AS x FROM t UNION ALL SELECT b.city AS k, t.amount * 2 AS x
       FROM t JOIN branches b ON b.name = t.branch) AS u GROUP BY 1",
    "SELECT tag, count(*) AS n, last_value(tag) AS l, last_value(count) AS c
     FROM (SELECT unnest(tags) AS tag, count, _order FROM t) AS u GROUP BY 1",
    "SELECT hop(at, INTERVAL '2 seconds', INTERVAL '5 seconds') AS w, branch, count(*) AS n, last_value(count) AS l
     FROM t GROUP BY 1, 2",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_split_over_two_partitions_gives_the_same_table(
        events in events(),
        others in events(),
        cuts in prop::collection::vec(0..60_usize, 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            for sql in STATEMENTS {
                let planned = Arc::new(planned(sql).await);
                // Both partitions run the same plan at once, batch by batch.
                let partitions = [(0, &events), (1_000, &others)].map(|(first, events)| {
                    let planned = Arc::clone(&planned);
                    let parts: Vec<Vec<Event>> = cut(events, &cuts).into_iter().map(<[Event]>::to_vec).collect();
                    tokio::spawn(async move {
                        let mut states = Vec::new();
                        let mut first = first;
                        for part in parts {
                            states.extend(planned.transform.apply("t", decoded(&planned, &part, first)).await.unwrap());
                            first += part.len() as i64;
                        }
                        states
                    })
                });
                let mut states = Vec::new();
                for partition in partitions {
                    states.extend(partition.await.unwrap());
                }
                let mut whole = Vec::new();
                for (first, events) in [(0, &events), (1_000, &others)] {
                    whole.extend(planned.transform.apply("t", decoded(&planned, events, first)).await.unwrap());
                }
                assert_eq!(merged(&planned, states).await.unwrap(), merged(&planned, whole).await.unwrap(), "{sql}");
            }
        });
    }
}
