//! Batches may be cut anywhere: the table is the same.

use proptest::prelude::*;

use crate::fixture::{Event, planned, table};

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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_split_gives_the_same_table(events in events(), cuts in prop::collection::vec(0..60_usize, 0..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let planned = planned(
                "SELECT tumble(at, INTERVAL '5 seconds') AS w, branch, sum(amount) AS s, count(*) AS n, min(count) AS lo,
                   max(price) AS hi, avg(amount) AS mean, first_value(count) AS f, last_value(price) AS l,
                   bool_and(count > 0) AS ba, approx_distinct(count) AS d
                 FROM t GROUP BY 1, 2",
            ).await;
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(events.len())).chain([0, events.len()]).collect();
            cuts.sort_unstable();
            let parts: Vec<&[Event]> = cuts.windows(2).map(|pair| &events[pair[0]..pair[1]]).filter(|p| !p.is_empty()).collect();
            assert_eq!(table(&planned, &[&events]).await.unwrap(), table(&planned, &parts).await.unwrap());
        });
    }
}
