use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::*;
use crate::testing::described;

const NOW_US: i64 = 1_700_000_000_123_456;

fn bank() -> (Topic, Making) {
    described(
        "{branch: string not null, amount: 'decimal(18,2) not null', small: int, large: bigint, n: bigint, ok: boolean, \
         who: string, note: string, at: timestamp not null, ms: timestamp(ms)}",
        "rate_per_s: 100",
        "{branch: {one_of: [Oslo, Vienna, Bruges]}, amount: {decimal: {min: 0.01, max: 10000}}, \
         small: {integer: {min: -3, max: 3}}, large: {one_of: [5, 9000000000]}, n: sequence, ok: {one_of: [true, false]}, \
         who: {text: me}, at: now, ms: now}",
        "branch",
    )
}

/// The values as text, which shows decimals as they are written.
fn texts(records: &[NewRecord]) -> Vec<&str> {
    records.iter().map(|record| std::str::from_utf8(record.value.as_deref().unwrap()).unwrap()).collect()
}

fn field(text: &str, name: &str) -> String {
    let json: Json = serde_json::from_str(text).unwrap();
    json[name].to_string().trim_matches('"').to_owned()
}

/// The decimal `name` of an object in cents, from its text.
fn cents(text: &str, name: &str) -> i64 {
    let from = text.split_once(&format!("\"{name}\":")).unwrap().1;
    let number = &from[..from.find([',', '}']).unwrap()];
    let (whole, fraction) = number.split_once('.').unwrap();
    assert_eq!(fraction.len(), 2, "all decimals are written: {number}");
    format!("{whole}{fraction}").parse().unwrap()
}

#[test]
fn values_are_spread_over_their_range_and_exact() {
    let (topic, function) = bank();
    let records = Events::new(&topic, &function, 7).unwrap().next(20_000, NOW_US).unwrap();
    let texts = texts(&records);
    let amounts: Vec<i64> = texts.iter().map(|text| cents(text, "amount")).collect();
    assert!(amounts.iter().all(|cents| (1..=1_000_000).contains(cents)));
    let mean = amounts.iter().sum::<i64>() / amounts.len() as i64;
    // The standard error of the mean is 1,000,000 / √12 / √20,000 = 2,041 cents: within 5 of them.
    assert!((490_000..=510_000).contains(&mean), "{mean}");
    for digit in 0..10 {
        let ending = amounts.iter().filter(|cents| *cents % 10 == digit).count();
        assert!((1_750..=2_250).contains(&ending), "{ending} amounts end in {digit}");
    }
    let seen = |name: &str| texts.iter().map(|text| field(text, name)).collect::<BTreeSet<_>>();
    assert_eq!(seen("small"), ["-3", "-2", "-1", "0", "1", "2", "3"].map(str::to_owned).into());
    assert_eq!(seen("large"), ["5", "9000000000"].map(str::to_owned).into());
    assert_eq!(seen("ok"), ["true", "false"].map(str::to_owned).into());
    assert_eq!(seen("who"), ["me".to_owned()].into());
    assert_eq!(seen("note"), ["null".to_owned()].into());
    assert_eq!(seen("at"), ["2023-11-14T22:13:20.123456Z".to_owned()].into());
    assert_eq!(seen("ms"), ["1700000000123.456".to_owned()].into());
    let mut branches = BTreeMap::<String, usize>::new();
    for (record, text) in records.iter().zip(&texts) {
        assert_eq!(record.key.as_deref().unwrap(), field(text, "branch").as_bytes());
        assert_eq!(record.timestamp_ms, Some(1_700_000_000_123));
        *branches.entry(field(text, "branch")).or_default() += 1;
    }
    assert_eq!(branches.len(), 3);
    assert!(branches.values().all(|count| (6_300..=7_030).contains(count)), "{branches:?}");
}

#[test]
fn the_same_seed_makes_the_same_records_in_whatever_portions() {
    let (topic, function) = bank();
    let make = |seed: u64, portions: &[usize]| {
        let mut events = Events::new(&topic, &function, seed).unwrap();
        portions.iter().flat_map(|turns| events.next(*turns, NOW_US).unwrap()).collect::<Vec<_>>()
    };
    let all = make(1, &[60]);
    assert_eq!(all, make(1, &[1, 0, 29, 30]));
    assert_ne!(all, make(2, &[60]));
    let last = texts(&all)[59];
    assert_eq!(field(last, "n"), "60", "a sequence goes on from portion to portion");
}

#[test]
fn a_round_has_one_record_for_each_value_in_order() {
    let (topic, function) = described(
        "{symbol: string not null, price: 'decimal(12,2) not null', at: timestamp not null}",
        "every: 10s\n      for_each: symbol",
        "{symbol: {one_of: [ACME, BOLT, CRUX]}, price: {walk: {start: 2, step: 0.75, min: 1}}, at: now}",
        "symbol",
    );
    let mut events = Events::new(&topic, &function, 3).unwrap();
    assert_eq!(events.records_per_turn(), 3);
    let mut last = BTreeMap::from([("ACME", 200), ("BOLT", 200), ("CRUX", 200)]);
    let mut floors = 0;
    for portion in 0..200 {
        let records = events.next(5, NOW_US).unwrap();
        let texts = texts(&records);
        assert_eq!(texts.len(), 15);
        for (at, text) in texts.iter().enumerate() {
            let symbol = ["ACME", "BOLT", "CRUX"][at % 3];
            assert_eq!(field(text, "symbol"), symbol);
            let (price, before) = (cents(text, "price"), last[symbol]);
            assert!(price >= 100 && (price - before).abs() <= 75, "{symbol} went from {before} to {price}");
            assert!(portion > 0 || at >= 3 || price == 200, "walks begin at their start");
            floors += usize::from(price == 100);
            last.insert(symbol, price);
        }
    }
    assert!(floors > 10, "the floor was reached {floors} times");
    assert!(last.values().collect::<BTreeSet<_>>().len() > 1, "each symbol walks by itself: {last:?}");
}

#[test]
fn wide_decimals_are_drawn_and_walk_within_their_type() {
    let nines = "9".repeat(38);
    let (topic, function) = described(
        "{wide: 'decimal(38,0)', top: 'decimal(38,0)', at: timestamp not null}",
        "rate_per_s: 1",
        &format!(
            "{{wide: {{decimal: {{min: '-{nines}', max: '{nines}'}}}}, top: {{walk: {{start: '{nines}', step: '{nines}'}}}}, at: now}}"
        ),
        "top",
    );
    let records = Events::new(&topic, &function, 1).unwrap().next(1_000, NOW_US).unwrap();
    let negative = texts(&records).iter().filter(|text| text.contains("\"wide\":-")).count();
    assert!((420..=580).contains(&negative), "{negative} of 1000 are negative");
    assert_eq!(records[0].key.as_deref(), Some(nines.as_bytes()));
    assert!(records.iter().all(|record| record.key.as_ref().is_some_and(|key| key.len() <= 38 && key[0] != b'-')));
}

#[test]
fn walks_without_an_end_of_keys_are_refused() {
    let of = |key: &str| {
        let (topic, function) = described(
            "{id: bigint, few: int, price: 'decimal(12,2)', at: timestamp not null}",
            "rate_per_s: 1",
            "{id: sequence, few: {integer: {min: 1, max: 100}}, price: {walk: {start: 1, step: 1}}, at: now}",
            key,
        );
        Events::new(&topic, &function, 1).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(
        of("id").unwrap_err(),
        "`price` has one walk for each value of the key `id`, which takes more than 1000000 values; make `id` by `one_of`, or choose another key"
    );
    assert_eq!(of("few"), Ok(()));
    assert_eq!(of("price"), Ok(()));
}

#[test]
fn a_sequence_ends_with_its_type() {
    let (topic, function) =
        described("{n: int, at: timestamp not null}", "rate_per_s: 1", "{n: sequence, at: now}", "n");
    let mut maker = Maker::new(topic.schema.fields()[0].clone(), Some(&Generator::Sequence), false, 1).unwrap();
    maker.skip_to(i64::from(i32::MAX) - 1);
    assert_eq!(maker.column(1, 0, &[]).unwrap().len(), 1);
    let error = maker.column(1, 0, &[]).unwrap_err().to_string();
    assert_eq!(error, "`n` has no numbers left: an int ends at 2147483647; make `n` a bigint");
    let records = Events::new(&topic, &function, 1).unwrap().next(2, NOW_US).unwrap();
    assert_eq!(records[1].key.as_deref(), Some(b"2".as_slice()), "the key of a number is its text");
}
