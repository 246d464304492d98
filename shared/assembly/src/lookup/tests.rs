use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::{
    array::{AsArray, Int64Array, StringArray},
    datatypes::{DataType, Field, Int64Type, Schema},
};
use millstream_core::{ManualClock, Sink, Table, TextRows};

use super::*;

/// Answers `key, key * 10` for keys below 1,000, twice for 7, and counts.
#[derive(Default)]
struct Numbers {
    asked: AtomicUsize,
    largest: AtomicUsize,
    is_away: AtomicBool,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8, true)]))
}

#[async_trait]
impl TableStore for Numbers {
    fn place(&self) -> String {
        "numbers".into()
    }

    fn sink(&self, _: &str, _: Table) -> Result<Arc<dyn Sink>> {
        Err(Error::stop("none"))
    }

    async fn read_reference(&self, _: &str, _: &SchemaRef) -> Result<Vec<RecordBatch>> {
        Err(Error::stop("too large"))
    }

    async fn read_public(&self, _: &Table, _: &SchemaRef) -> Result<Vec<RecordBatch>> {
        Ok(vec![])
    }

    async fn newest_rows(&self, _: &Table, _: usize) -> Result<Option<TextRows>> {
        Ok(None)
    }

    fn how_to_reset(&self, _: &str, _: &str) -> String {
        String::new()
    }

    async fn read_by_key(&self, _: &str, _: &SchemaRef, _: &str, keys: &ArrayRef) -> Result<Vec<RecordBatch>> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(Error::retry("away"));
        }
        self.asked.fetch_add(keys.len(), Ordering::Relaxed);
        self.largest.fetch_max(keys.len(), Ordering::Relaxed);
        let keys = keys.as_primitive::<Int64Type>().values().iter().copied();
        let found: Vec<i64> =
            keys.filter(|key| *key < 1_000).flat_map(|key| vec![key; 1 + usize::from(key == 7)]).collect();
        let names = StringArray::from_iter_values(found.iter().map(|key| (key * 10).to_string()));
        Ok(vec![RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(found)), Arc::new(names)]).unwrap()])
    }
}

fn lookup(max_age_us: Option<i64>) -> (StoreLookup, Arc<Numbers>, Arc<ManualClock>) {
    let (store, clock) = (Arc::new(Numbers::default()), Arc::new(ManualClock::at_us(0)));
    let lookup = StoreLookup {
        store: Arc::clone(&store) as _,
        name: "numbers".into(),
        schema: schema(),
        by: "id".into(),
        max_age_us,
        clock: Arc::clone(&clock) as _,
        remembered: Mutex::default(),
    };
    (lookup, store, clock)
}

/// The ids of the rows, and their names at ten times that.
async fn ids(lookup: &StoreLookup, keys: impl IntoIterator<Item = i64>) -> Vec<i64> {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(keys));
    let mut ids = Vec::new();
    for rows in lookup.rows(&keys).await.unwrap() {
        let names = rows.column(1).as_string::<i32>();
        for (row, id) in rows.column(0).as_primitive::<Int64Type>().values().iter().enumerate() {
            assert_eq!(names.value(row), (id * 10).to_string());
            ids.push(*id);
        }
    }
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn an_answer_is_taken_again_until_it_is_too_old_also_that_there_is_none() {
    let (lookup, store, clock) = lookup(Some(1_000_000));
    assert_eq!(ids(&lookup, [1, 7, 2_000]).await, [1, 7, 7]);
    assert_eq!(store.asked.load(Ordering::Relaxed), 3);
    clock.advance_us(1_000_000);
    assert_eq!(ids(&lookup, [7, 2, 2_000, 1]).await, [1, 2, 7, 7]);
    assert_eq!(store.asked.load(Ordering::Relaxed), 4, "only what is new");
    clock.advance_us(1);
    store.is_away.store(true, Ordering::Relaxed);
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    assert!(matches!(lookup.rows(&keys).await, Err(Error::Retry(_))), "a row that is too old is no row");
    store.is_away.store(false, Ordering::Relaxed);
    assert_eq!(ids(&lookup, [1, 2]).await, [1, 2]);
    assert_eq!(store.asked.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn without_an_age_each_batch_asks_and_never_for_too_many_at_once() {
    let (lookup, store, _clock) = lookup(None);
    assert_eq!(ids(&lookup, 0..25_000).await.len(), 1_001);
    assert_eq!(ids(&lookup, [1]).await, [1]);
    assert_eq!((store.asked.load(Ordering::Relaxed), store.largest.load(Ordering::Relaxed)), (25_001, KEYS_AT_ONCE));
}

#[tokio::test]
async fn what_is_remembered_is_bounded_and_what_is_asked_for_again_stays() {
    let (lookup, store, _clock) = lookup(Some(i64::MAX));
    for round in 0..60 {
        // A key that is in every batch, and many that come once.
        assert_eq!(
            ids(&lookup, std::iter::once(7).chain(10_000 * (round + 1)..10_000 * (round + 1) + 9_999)).await,
            [7, 7]
        );
    }
    let remembered = lookup.remembered();
    assert!(remembered.new_bytes <= MAX_REMEMBERED_BYTES / 2);
    let of = |half: &HashMap<OwnedRow, Answer>| half.values().map(|answer| answer.bytes).sum::<usize>();
    assert_eq!(of(&remembered.new), remembered.new_bytes);
    assert!(of(&remembered.old) <= MAX_REMEMBERED_BYTES / 2);
    assert_eq!(store.asked.load(Ordering::Relaxed), 60 * 9_999 + 1);
}
