//! A rebuild drops nothing of somebody else's: it leaves it alone, refuses, or names it.

use millstream_core::{Error, Replace as _, Replaced, Replacement, Sink as _, Table};
use millstream_postgres::PostgresSink;

use crate::{
    rebuilds::{Nothing, Scene, fill, results, role, states},
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

/// The old table was dropped by hand.
pub async fn a_table_with_the_name_of_the_states_is_left_alone_or_named(way: Way) {
    const STRANGER: &str = "DROP TABLE sold; CREATE TABLE sold_state AS SELECT 1 AS mine";
    let scene = Scene::new(way, results("sold"), results).await;
    scene.database.execute(STRANGER).await;
    let unknown = Replacement { old_table: None, ..scene.replacement(false) };
    let lost = scene.new.rehearse(&unknown).await.unwrap();
    assert!(lost.len() == 1 && lost[0].contains("table sold_state"), "{lost:?}");
    assert!(matches!(scene.new.take_place(&unknown, &Nothing).await, Err(Error::Stop(_))));
    assert_eq!(scene.rehearse().await, [""; 0], "the recorded plan has no states");
    scene.take_place().await;
    assert_eq!(scene.database.ask("SELECT mine FROM sold_state").await, "1");
    scene.database.drop().await;

    let scene = Scene::new(way, results("sold"), states).await;
    scene.database.execute(STRANGER).await;
    let refused = scene.new.rehearse(&scene.replacement(true)).await.unwrap_err().to_string();
    assert!(refused.contains("sold_state in PostgreSQL is needed for the states"), "{refused}");
    scene.database.drop().await;
}

pub async fn states_without_their_view_are_replaced(way: Way) {
    for new in [results, states] {
        let scene = Scene::new(way, states("sold"), new).await;
        scene.database.execute("DROP VIEW sold").await;
        assert_eq!(scene.rehearse().await, [""; 0]);
        scene.take_place().await;
        assert_eq!(scene.database.ask("SELECT string_agg(shop, ',') FROM sold").await, "c");
        scene.database.drop().await;
    }
}

pub async fn states_of_a_version_without_owners_are_replaced(way: Way) {
    let plans: [(Plan, &str); 2] = [(results, "1"), (states, "2")];
    for (new, relations) in plans {
        let scene = Scene::new(way, states("sold"), new).await;
        scene.database.execute("DELETE FROM millstream_owners WHERE table_name = 'sold'").await;
        let place = Replacement { record: None, old_table: None, ..scene.replacement(false) };
        assert_eq!(scene.new.rehearse(&place).await.unwrap(), [""; 0]);
        let replaced = scene.new.take_place(&place, &Nothing).await.unwrap();
        assert!(matches!(replaced, Replaced::Done(_)), "{replaced:?}");
        assert_eq!(scene.database.ask("SELECT string_agg(shop, ',') FROM sold").await, "c");
        let left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'sold%' AND relkind IN ('r', 'v')";
        assert_eq!(scene.database.ask(left).await, relations);
        scene.database.drop().await;
    }
}

pub async fn who_wrote_to_the_states_writes_to_the_results(way: Way) {
    let scene = Scene::new(way, states("sold"), results).await;
    let database = &scene.database;
    let (writer, reader) = (role(database), format!("{}_reader", role(database)));
    let grants = format!(
        "CREATE ROLE {writer}; GRANT SELECT, INSERT, UPDATE ON sold_state TO {writer};
         CREATE ROLE {reader}; GRANT SELECT ON sold TO {reader}"
    );
    database.execute(&grants).await;
    assert_eq!(scene.rehearse().await, [""; 0]);
    scene.take_place().await;
    for (role, right, expected) in [
        (&writer, "SELECT", "true"),
        (&writer, "INSERT", "true"),
        (&writer, "UPDATE", "true"),
        (&writer, "DELETE", "false"),
        (&reader, "SELECT", "true"),
        (&reader, "INSERT", "false"),
    ] {
        let has = database.ask(&format!("SELECT has_table_privilege('{role}', 'sold', '{right}')")).await;
        assert_eq!(has, expected, "{role}: {right}");
    }
    let drop = format!("DROP OWNED BY {writer}, {reader}; DROP ROLE {writer}, {reader}");
    database.execute(&drop).await;
    database.drop().await;
}

pub async fn only_the_index_of_the_keys_goes_without_a_word(way: Way) {
    for old in [results, states] {
        let scene = Scene::new(way, old("sold"), results).await;
        let rows = old("sold").name;
        let index = format!("CREATE UNIQUE INDEX mine ON {rows} (n, shop) NULLS NOT DISTINCT");
        scene.database.execute(&index).await;
        let lost = scene.rehearse().await;
        assert!(lost.len() == 1 && lost[0].starts_with("unique index mine"), "{lost:?}");
        // Its plan is unknown: the keys are taken for those of the new table.
        let unknown = Replacement { old_table: None, ..scene.replacement(false) };
        assert_eq!(scene.new.rehearse(&unknown).await.unwrap(), lost);
        // Rows were appended to it, so that it had no index of its own.
        let appended = Replacement { old_table: Some(Table { combine: None, ..old("sold") }), ..unknown };
        assert_eq!(scene.new.rehearse(&appended).await.unwrap().len(), 2);
        scene.database.drop().await;
    }
}

pub async fn only_checks_of_millstream_go_without_a_word(way: Way) {
    let scene = Scene::new(way, results("sold"), results).await;
    let database = &scene.database;
    database
        .execute(
            "ALTER TABLE sold ADD a smallint CHECK (a BETWEEN -128 AND 127), ADD b smallint CHECK (b BETWEEN 0 AND 255),
             ADD \"c's (C)\" integer CHECK (\"c's (C)\" BETWEEN 0 AND 65535),
             ADD d bigint CHECK (d BETWEEN 0 AND 4294967295),
             ADD e numeric(20) CHECK (e BETWEEN 0 AND 18446744073709551615)",
        )
        .await;
    assert_eq!(scene.rehearse().await, [""; 0]);
    let mine = [
        "n BETWEEN 0 AND 10",
        "n BETWEEN 0 AND 255",
        "n >= 0 AND top <= 4294967295",
        "d >= 0 AND d <= 4294967295 AND true",
        "a BETWEEN -127 AND 127",
    ];
    for (number, check) in mine.iter().enumerate() {
        database.execute(&format!("ALTER TABLE sold ADD CONSTRAINT mine_{number} CHECK ({check})")).await;
    }
    let lost = scene.rehearse().await;
    assert_eq!(lost.len(), mine.len(), "{lost:?}");
    for number in 0..mine.len() {
        assert!(lost[number].contains(&format!("mine_{number}")), "{lost:?}");
    }
    database.drop().await;
}
