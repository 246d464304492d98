//! What people have put on a table is on the rebuilt one too, or is named.

use std::sync::Arc;

use arrow::{array::ArrayRef, array::Int64Array, array::StringArray, datatypes::DataType};
use async_trait::async_trait;
use millstream_core::{
    CatchUp, Claim, Column, Error, Fence, Merge, Owner, OwnerRecord, Replace as _, Replaced, Replacement, Role,
    Sink as _, Table, TopicPartition, View,
};
use millstream_postgres::PostgresSink;
use millstream_testkit::rows::rows;

use crate::support::{Database, Way, column, connect, moved, partition, table};

fn columns() -> Vec<Column> {
    vec![
        column("shop", DataType::Utf8, Role::Key),
        column("n", DataType::Int64, Role::State(Merge::Sum)),
        column("top", DataType::Int64, Role::State(Merge::Max)),
    ]
}

/// Nothing came meanwhile.
pub struct Nothing;

#[async_trait]
impl CatchUp for Nothing {
    async fn catch_up(&self, _: &[(TopicPartition, Fence)]) -> millstream_core::Result<()> {
        Ok(())
    }
}

/// Results in a table of their own.
pub fn results(name: &str) -> Table {
    table(name, columns())
}

/// Hidden states, and a view over them with the same columns.
pub fn states(name: &str) -> Table {
    let view = View {
        name: name.to_owned(),
        columns: columns().into_iter().map(|column| (column.name, column.data_type)).collect(),
        select: format!("SELECT shop, n, top FROM {name}_state"),
        together: vec!["shop".to_owned()],
    };
    Table { name: format!("{name}_state"), view: Some(view), ..results(name) }
}

fn owner(function: &str) -> Owner {
    Owner { function: function.to_owned(), fingerprint: "f".to_owned(), declaration: "d".to_owned() }
}

/// The old table with two rows, and the one beside it with one.
pub struct Scene {
    pub database: Database,
    pub record: OwnerRecord,
    old: Table,
    pub new: PostgresSink,
    place: Table,
}

impl Scene {
    pub async fn new(way: Way, old: Table, new: fn(&str) -> Table) -> Self {
        Self::of(Database::create(way).await, old, new).await
    }

    async fn of(database: Database, old: Table, new: fn(&str) -> Table) -> Self {
        let (record, _) =
            fill(&PostgresSink::new(database.pool(), "p.f", old.clone()).unwrap(), "p.f", &["a", "b"]).await;
        let beside = new("sold__rebuild");
        let new_sink = PostgresSink::new(database.pool(), "p.f.rebuild", beside).unwrap();
        fill(&new_sink, "p.f.rebuild", &["c"]).await;
        Self { database, record, old, new: new_sink, place: new("sold") }
    }

    pub fn replacement(&self, drop_dependents: bool) -> Replacement {
        Replacement {
            table: self.place.clone(),
            owner: owner("p.f"),
            record: Some(self.record.clone()),
            old_table: Some(self.old.clone()),
            topics: vec![("transaction".to_owned(), 1)],
            drop_dependents,
        }
    }

    pub async fn rehearse(&self) -> Vec<String> {
        self.new.rehearse(&self.replacement(false)).await.unwrap()
    }

    pub async fn take_place(&self) {
        let replaced = self.new.take_place(&self.replacement(false), &Nothing).await.unwrap();
        assert!(matches!(replaced, Replaced::Done(_)), "{replaced:?}");
    }
}

pub async fn fill(sink: &PostgresSink, function: &str, shops: &[&str]) -> (OwnerRecord, Fence) {
    sink.prepare(true).await.unwrap();
    let record = sink.claim(&owner(function), &Claim::First).await.unwrap().unwrap();
    sink.begin_term(record.term);
    let start = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let ones: ArrayRef = Arc::new(Int64Array::from(vec![1; shops.len()]));
    let batch = rows(&results("any"), vec![Arc::new(StringArray::from(shops.to_vec())), ones.clone(), ones]);
    let to = moved(&start, 2);
    sink.write(&partition(0), &start, &to, &[batch]).await.unwrap();
    (record, to)
}

const ON_IT: &str = "
    CREATE ROLE READER; CREATE SCHEMA other;
    GRANT SELECT ON sold TO READER; GRANT UPDATE (n) ON sold TO READER WITH GRANT OPTION;
    COMMENT ON COLUMN sold.n IS 'how \\ ''many''';
    CREATE VIEW sums WITH (security_barrier = true) AS SELECT sum(n) AS n FROM sold;
    CREATE VIEW other.twice AS SELECT n * 2 AS n FROM sums;
    GRANT SELECT ON sums TO READER;
    CREATE VIEW joined AS SELECT s.shop, t.n FROM sold s CROSS JOIN other.twice t";

/// A role of one test: roles belong to the whole server.
pub fn role(database: &Database) -> String {
    database.url().rsplit('/').next().unwrap().split('?').next().unwrap().replace("test", "role")
}

async fn keeps(way: Way, old: Table, new: fn(&str) -> Table) {
    let had_states = old.view.is_some();
    let scene = Scene::new(way, old, new).await;
    let database = &scene.database;
    let role = role(database);
    database.execute(&ON_IT.replace("READER", &role)).await;
    assert_eq!(scene.rehearse().await, [""; 0]);
    assert_eq!(database.ask("SELECT sum(n) FROM sold").await, "2", "a rehearsal keeps nothing");
    scene.take_place().await;
    for (sql, expected) in [
        ("SELECT string_agg(shop, ',') FROM sold".to_owned(), "c"),
        ("SELECT n FROM sums".to_owned(), "1"),
        ("SELECT n FROM other.twice".to_owned(), "2"),
        ("SELECT n FROM joined".to_owned(), "2"),
        ("SELECT reloptions[1] FROM pg_class WHERE relname = 'sums'".to_owned(), "security_barrier=true"),
        (format!("SELECT has_table_privilege('{role}', 'sold', 'SELECT')"), "true"),
        (format!("SELECT has_table_privilege('{role}', 'sold', 'INSERT')"), "false"),
        (format!("SELECT has_column_privilege('{role}', 'sold', 'n', 'UPDATE WITH GRANT OPTION')"), "true"),
        (format!("SELECT has_table_privilege('{role}', 'sums', 'SELECT')"), "true"),
        (
            "SELECT col_description('sold'::regclass, attnum) FROM pg_attribute WHERE attrelid = 'sold'::regclass AND attname = 'n'"
                .to_owned(),
            "how \\ 'many'",
        ),
        ("SELECT count(*) FROM pg_class WHERE relname LIKE '%\\_\\_old%' OR relname LIKE '%rebuild%'".to_owned(), "0"),
    ] {
        assert_eq!(database.ask(&sql).await, expected, "{sql}");
    }
    if scene.place.view.is_some() {
        // Who may read the table may read what its view is made of, as far as the old table had that.
        let reads = format!("SELECT has_table_privilege('{role}', 'sold_state', 'SELECT')");
        assert_eq!(database.ask(&reads).await, if had_states { "false" } else { "true" });
    }
    let now = PostgresSink::new(database.pool(), "p.f", scene.place.clone()).unwrap();
    now.prepare(false).await.unwrap();
    database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    database.drop().await;
}

pub async fn results_keep_what_is_on_them(way: Way) {
    keeps(way, results("sold"), results).await;
}

pub async fn states_keep_what_is_on_them(way: Way) {
    keeps(way, states("sold"), states).await;
}

pub async fn results_become_states(way: Way) {
    keeps(way, results("sold"), states).await;
}

pub async fn states_become_results(way: Way) {
    keeps(way, states("sold"), results).await;
}

pub async fn indexes_are_on_the_new_table_too(way: Way) {
    let scene = Scene::new(way, results("sold"), results).await;
    let database = &scene.database;
    database
        .execute(
            "CREATE INDEX \"by \"\"n\" ON sold USING btree (n DESC) WHERE n > 0; CREATE INDEX by_shop ON sold (lower(shop));
             COMMENT ON TABLE sold IS 'mine'",
        )
        .await;
    assert_eq!(scene.rehearse().await, [""; 0]);
    scene.take_place().await;
    let defined = "SELECT string_agg(indexdef, '; ' ORDER BY indexdef) FROM pg_indexes WHERE tablename = 'sold'";
    assert_eq!(
        database.ask(defined).await,
        "CREATE INDEX \"by \"\"n\" ON public.sold USING btree (n DESC) WHERE (n > 0); \
         CREATE INDEX by_shop ON public.sold USING btree (lower(shop)); \
         CREATE UNIQUE INDEX sold_shop_idx ON public.sold USING btree (shop) NULLS NOT DISTINCT"
    );
    assert_eq!(database.ask("SELECT obj_description('sold'::regclass)").await, "mine");
    database.drop().await;
}

/// Nothing of it goes without a word.
pub async fn what_cannot_be_kept_is_named(way: Way) {
    let scene = Scene::new(way, results("sold"), states).await;
    let database = &scene.database;
    database
        .execute(
            "CREATE MATERIALIZED VIEW stored AS SELECT sum(n) AS n FROM sold;
             CREATE UNIQUE INDEX one ON sold (n, shop); ALTER TABLE sold ADD CONSTRAINT few CHECK (n < 100);
             CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER told AFTER INSERT ON sold FOR EACH ROW EXECUTE FUNCTION nothing();
             CREATE POLICY mine ON sold USING (true); CREATE PUBLICATION out FOR TABLE sold;
             ALTER TABLE sold ENABLE ROW LEVEL SECURITY; ALTER TABLE sold REPLICA IDENTITY FULL;
             CREATE VIEW over_stored AS SELECT n FROM stored;
             CREATE FUNCTION of_row(sold) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
             COMMENT ON TABLE sold IS 'mine'",
        )
        .await;
    let lost = scene.rehearse().await.join("\n");
    for what in [
        "materialized view stored",
        "unique index one",
        "few",
        "trigger told",
        "policy mine",
        "publication out",
        "comment on sold",
        "row level security of sold",
        "replica identity of sold",
        "view over_stored",
        "function of_row(sold",
    ] {
        assert!(lost.contains(what), "{what}: {lost}");
    }
    let refused = scene.new.take_place(&scene.replacement(false), &Nothing).await;
    let said = refused.as_ref().unwrap_err().to_string();
    assert!(matches!(refused, Err(Error::Stop(_))) && said.contains("unique index one"), "{said}");
    assert_eq!(database.ask("SELECT n FROM stored").await, "2", "nothing was changed");
    assert_eq!(database.ask("SELECT sum(n) FROM sold").await, "2");
    let replaced = scene.new.take_place(&scene.replacement(true), &Nothing).await.unwrap();
    assert!(matches!(replaced, Replaced::Done(_)), "{replaced:?}");
    assert_eq!(database.ask("SELECT sum(n) FROM sold").await, "1");
    assert_eq!(database.ask("SELECT to_regclass('stored')").await, "");
    database.drop().await;
}

pub async fn a_view_that_no_longer_fits_is_named(way: Way) {
    let scene = Scene::new(way, results("sold"), results).await;
    let database = &scene.database;
    database.execute("ALTER TABLE sold__rebuild ALTER n TYPE numeric; CREATE VIEW wide AS SELECT n FROM sold").await;
    let lost = scene.rehearse().await;
    assert!(lost.len() == 1 && lost[0].starts_with("view wide (cannot change data type"), "{lost:?}");
    assert!(scene.new.take_place(&scene.replacement(false), &Nothing).await.is_err());
    assert_eq!(database.ask("SELECT sum(n) FROM wide").await, "2");
    database.drop().await;
}

pub async fn a_table_of_somebody_else_is_left_alone(way: Way) {
    let scene = Scene::new(way, results("sold"), states).await;
    let database = &scene.database;
    database.execute("CREATE TABLE sold_state (mine int)").await;
    let refused = scene.new.rehearse(&scene.replacement(true)).await.unwrap_err().to_string();
    assert!(refused.contains("sold_state in PostgreSQL is needed for the states"), "{refused}");
    database.execute("DROP TABLE sold_state; DROP TABLE sold; CREATE VIEW sold AS SELECT 1 AS n").await;
    let refused = scene.new.take_place(&scene.replacement(true), &Nothing).await.unwrap_err().to_string();
    assert!(refused.contains("a view that millstream has not made"), "{refused}");
    assert_eq!(database.ask("SELECT n FROM sold").await, "1");
    database.drop().await;
}

/// Readers look in the old table's schema, and new tables go to the first one of the search path.
pub async fn a_table_in_another_schema_is_told(way: Way) {
    let database = Database::create(way).await;
    database
        .execute(
            "CREATE SCHEMA shop; DO $$ BEGIN
             EXECUTE format('ALTER DATABASE %I SET search_path TO public, shop', current_database()); END $$",
        )
        .await;
    let scene = Scene::of(database, results("sold"), results).await;
    scene.database.execute("ALTER TABLE public.sold SET SCHEMA shop").await;
    let said = "sold is in schema shop, and new tables of this user go to schema public";
    let rehearsed = scene.new.rehearse(&scene.replacement(true)).await.unwrap_err();
    let replaced = scene.new.take_place(&scene.replacement(true), &Nothing).await.unwrap_err();
    for refused in [rehearsed, replaced] {
        assert!(matches!(refused, Error::Stop(_)) && refused.to_string().contains(said), "{refused}");
    }
    assert_eq!(scene.database.ask("SELECT sum(n) FROM shop.sold").await, "2", "nothing was changed");
    scene.database.execute("ALTER TABLE public.sold__rebuild SET SCHEMA shop").await;
    scene.take_place().await;
    assert_eq!(scene.database.ask("SELECT sum(n) FROM shop.sold").await, "1");
    scene.database.drop().await;
}

/// A long reader makes the step wait, and others must not queue up behind it for long.
pub async fn a_long_reader_makes_the_step_give_up(way: Way) {
    let scene = Scene::new(way, results("sold"), results).await;
    let database = &scene.database;
    let reader = connect(&database.direct_url()).await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM sold").await.unwrap();
    let refused = scene.new.take_place(&scene.replacement(false), &Nothing).await.unwrap_err();
    assert!(refused.is_retry(), "{refused}");
    reader.batch_execute("COMMIT").await.unwrap();
    scene.take_place().await;
    database.drop().await;
}

/// Writes one row to the new table, and looks whether readers and writers of the old one wait.
struct OneMore<'a> {
    scene: &'a Scene,
    old: &'a PostgresSink,
}

#[async_trait]
impl CatchUp for OneMore<'_> {
    async fn catch_up(&self, to: &[(TopicPartition, Fence)]) -> millstream_core::Result<()> {
        let from = moved(&Fence::starting_at(0), 2);
        let ahead = &to[0].1;
        assert_eq!(ahead.next_offset, 3);
        assert_eq!(self.scene.database.ask("SELECT sum(n) FROM sold").await, "3", "readers go on");
        let later = moved(ahead, 4);
        let at = partition(0);
        let write = self.old.write(&at, ahead, &later, &[]);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(300), write).await.is_err(), "writers wait");
        self.scene.new.write(&partition(0), &from, ahead, &[one("d")]).await
    }
}

fn one(shop: &str) -> arrow::array::RecordBatch {
    let one: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    rows(&results("any"), vec![Arc::new(StringArray::from(vec![shop])), one.clone(), one])
}

pub async fn writers_wait_while_the_new_table_catches_up(way: Way) {
    let scene = Scene::new(way, results("sold"), results).await;
    let old = PostgresSink::new(scene.database.pool(), "p.f", results("sold")).unwrap();
    old.begin_term(scene.record.term);
    let two = old.fence(&partition(0)).await.unwrap().unwrap();
    old.write(&partition(0), &two, &moved(&two, 3), &[one("e")]).await.unwrap();
    let place = scene.replacement(false);
    assert_eq!(scene.new.take_place(&place, &Nothing).await.unwrap(), Replaced::Behind);
    let replaced = scene.new.take_place(&place, &OneMore { scene: &scene, old: &old }).await.unwrap();
    assert!(matches!(replaced, Replaced::Done(_)), "{replaced:?}");
    assert_eq!(scene.database.ask("SELECT string_agg(shop, ',' ORDER BY shop) FROM sold").await, "c,d");
    assert_eq!(old.fence(&partition(0)).await.unwrap().map(|fence| fence.next_offset), Some(3));
    scene.database.drop().await;
}
