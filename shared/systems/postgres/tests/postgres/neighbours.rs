//! A rebuild drops nothing of somebody else's: it leaves it alone, refuses, or names it.

use millstream_core::{Error, Replace as _, Sink as _, Table};
use millstream_postgres::PostgresSink;

use crate::{
    rebuilds::{fill, results, states},
    support::{Database, Way},
};

/// The table of a plan, by its public name.
type Plan = fn(&str) -> Table;

/// Beside which plan stands what, and what is refused.
const STRANGERS: [(Plan, &str, &str); 4] = [
    (states, "CREATE TABLE sold__rebuild AS SELECT 1 AS mine", "sold__rebuild in"),
    (states, "CREATE VIEW sold__rebuild AS SELECT 1 AS mine", "sold__rebuild in"),
    (results, "CREATE TABLE sold__rebuild_state AS SELECT 1 AS mine", "sold__rebuild_state in"),
    (results, "CREATE VIEW sold__rebuild_state AS SELECT 1 AS mine", "sold__rebuild_state in"),
];

pub async fn nothing_is_removed_that_no_rebuild_has_made(way: Way) {
    for (plan, create, named) in STRANGERS {
        for is_recorded in [false, true] {
            let database = Database::create(way).await;
            let beside = PostgresSink::new(database.pool(), "p.f.rebuild", plan("sold__rebuild")).unwrap();
            let of_other_plan: Plan = if named.contains("_state") { results } else { states };
            if is_recorded {
                let earlier =
                    PostgresSink::new(database.pool(), "p.f.rebuild", of_other_plan("sold__rebuild")).unwrap();
                fill(&earlier, "p.f.rebuild", &["c"]).await;
                if of_other_plan("").view.is_some() {
                    database.execute("DROP VIEW sold__rebuild; DROP TABLE sold__rebuild_state").await;
                }
            }
            let is_own = is_recorded && !named.contains("_state") && create.contains("TABLE");
            database.execute(create).await;
            let removed = beside.discard().await;
            if is_own {
                // A table under the name that a record of the rebuild speaks of.
                removed.unwrap();
            } else {
                let said = removed.as_ref().map_err(ToString::to_string).unwrap_err();
                assert!(matches!(removed, Err(Error::Stop(_))) && said.contains(named), "{create}: {said}");
                let name = named.split(' ').next().unwrap();
                assert_eq!(database.ask(&format!("SELECT mine FROM {name}")).await, "1", "{create}");
            }
            database.drop().await;
        }
    }
}

pub async fn what_a_rebuild_has_made_is_removed(way: Way) {
    for plan in [results, states] {
        let database = Database::create(way).await;
        let beside = PostgresSink::new(database.pool(), "p.f.rebuild", plan("sold__rebuild")).unwrap();
        let left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'sold%'";
        // It was killed before its first claim.
        beside.prepare(true).await.unwrap();
        beside.discard().await.unwrap();
        assert_eq!(database.ask(left).await, "0");
        fill(&beside, "p.f.rebuild", &["c"]).await;
        beside.discard().await.unwrap();
        assert_eq!(database.ask(left).await, "0");
        beside.discard().await.unwrap();
        database.drop().await;
    }
}
