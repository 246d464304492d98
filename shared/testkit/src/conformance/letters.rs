//! The contract of [`DeadLetters`].

use std::collections::BTreeSet;

use millstream_core::{DeadLetter, DeadLetters, Position, TopicPartition};

pub(super) async fn all_of_a_letter_comes_back(letters: &dyn DeadLetters) {
    assert_eq!(letters.list(None, 10).await.unwrap(), []);
    letters.put(&[]).await.unwrap();
    let header = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    let mut odd = vec![letter("all", 0), letter("all", 1), letter("all", 2), letter("all", i64::MAX)];
    (odd[0].value, odd[0].value_bytes) = (None, 0);
    (odd[1].value, odd[1].value_bytes, odd[1].key) = (Some(vec![]), 0, Some(vec![]));
    odd[1].headers = vec![header("a", b""), header("a", b"\0\xff"), header("millstream-reason", b"not ours")];
    (odd[2].key, odd[2].value, odd[2].value_bytes) = (Some(b"\0\xff".to_vec()), Some(b"\xff\0".to_vec()), 5_000_000);
    odd[2].reason = "é 東京 'x' \"y\"".into();
    odd[3].timestamp_ms = -1;
    letters.put(&odd).await.unwrap();
    let mut held = list(letters, "all", 10).await;
    held.sort_by_key(|letter| letter.position.offset);
    assert_eq!(held, odd);
}

pub(super) async fn a_letter_that_comes_twice_is_one(letters: &dyn DeadLetters) {
    for _ in 0..2 {
        letters.put(&[letter("twice", 7), letter("twice", 8)]).await.unwrap();
    }
    letters.put(&[letter("twice", 7)]).await.unwrap();
    letters.put(&[letter("twin", 7)]).await.unwrap();
    let offsets: BTreeSet<_> = list(letters, "twice", 10).await.iter().map(|letter| letter.position.offset).collect();
    assert_eq!((list(letters, "twice", 10).await.len(), offsets), (2, BTreeSet::from([7, 8])));
    assert_eq!(list(letters, "twin", 10).await, [letter("twin", 7)]);
}

pub(super) async fn a_listing_is_of_the_newest(letters: &dyn DeadLetters) {
    // So many that no adapter reads them at once.
    for part in 0..25 {
        let of = |function| (part * 100..part * 100 + 100).map(|offset| letter(function, offset)).collect::<Vec<_>>();
        letters.put(&of("newest")).await.unwrap();
        letters.put(&of("others")).await.unwrap();
    }
    let offsets = |letters: Vec<DeadLetter>| letters.into_iter().map(|l| l.position.offset).collect::<Vec<_>>();
    assert_eq!(offsets(list(letters, "newest", 3).await), [2_499, 2_498, 2_497]);
    let held = offsets(list(letters, "newest", 2_400).await);
    assert!(held.iter().copied().eq((100..2_500).rev()), "{held:?}");
    assert_eq!(list(letters, "newest", 10_000).await.len(), 2_500);
    assert_eq!(list(letters, "no_letters", 1).await, []);
    assert_eq!(list(letters, "newest", 0).await, []);
    let newest = letters.list(None, 1).await.unwrap();
    assert_eq!(newest, [letter("others", 2_499)]);
}

pub(super) async fn letters_are_fetched_by_their_positions(letters: &dyn DeadLetters) {
    letters.put(&[letter("fetch", 3), letter("fetch", 5), letter("fetch", 9), letter("other", 4)]).await.unwrap();
    letters.put(&[letter("fetch", 5)]).await.unwrap();
    letters.remove("suite.fetch", &[letter("fetch", 9).position]).await.unwrap();
    let positions = |offsets: &[i64]| offsets.iter().map(|offset| letter("", *offset).position).collect::<Vec<_>>();
    let (fetched, looked_at) = letters.fetch("suite.fetch", &positions(&[2, 3, 4, 5, 9])).await.unwrap();
    assert_eq!((fetched, looked_at), (vec![letter("fetch", 3), letter("fetch", 5)], 5));
    assert_eq!(letters.fetch("suite.fetch", &[]).await.unwrap(), (vec![], 0));
    // No more than fit in memory, in the order that was asked for.
    let large =
        |offset| DeadLetter { value: Some(vec![b'x'; 800_000]), value_bytes: 800_000, ..letter("large", offset) };
    for offset in (0..100).rev() {
        letters.put(&[large(offset)]).await.unwrap();
    }
    let wanted = positions(&(0..100).collect::<Vec<_>>());
    let (fetched, looked_at) = letters.fetch("suite.large", &wanted).await.unwrap();
    assert_eq!((fetched.len(), fetched[0].position.offset), (looked_at, 0));
    assert!((80..100).contains(&looked_at), "{looked_at}");
    let (rest, _) = letters.fetch("suite.large", &wanted[looked_at..]).await.unwrap();
    assert_eq!(rest.len(), 100 - looked_at);
}

pub(super) async fn a_letter_is_found_by_its_position(letters: &dyn DeadLetters) {
    letters.put(&[letter("find", 70_001), letter("found", 70_001), letter("found", 70_002)]).await.unwrap();
    let position = letter("", 70_001).position;
    assert_eq!(letters.find(Some("suite.found"), &position).await.unwrap(), [letter("found", 70_001)]);
    let mut both = letters.find(None, &position).await.unwrap();
    both.sort_by(|a, b| a.function.cmp(&b.function));
    assert_eq!(both, [letter("find", 70_001), letter("found", 70_001)]);
    let elsewhere = TopicPartition::new("orders", 4, 2).at(70_001);
    assert_eq!(letters.find(None, &elsewhere).await.unwrap(), []);
}

pub(super) async fn large_letters_and_no_listing_without_end(letters: &dyn DeadLetters) {
    // Bytes that hardly compress.
    let noise = |seed: u32| {
        let mut state = seed;
        let next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        std::iter::repeat_with(next)
    };
    let large = |offset: i64| {
        let bytes = |count: usize, seed: u32| noise(seed + offset as u32).take(count).collect::<Vec<u8>>();
        let header = (String::new(), bytes(20_000, 3));
        let reason: String = noise(4).map(|byte| char::from(byte % 64 + b'0')).take(5_000).collect();
        DeadLetter {
            key: Some(bytes(100_000, 1)),
            value: Some(bytes(2_000_000, 2)),
            value_bytes: 2_000_000,
            headers: vec![header],
            reason,
            ..letter("large", offset)
        }
        .cut()
    };
    for offset in 0..80 {
        letters.put(&[large(offset)]).await.unwrap();
    }
    assert!(list(letters, "large", 1).await == [large(79)], "the largest letter is another one now");
    let listed = list(letters, "large", 80).await;
    assert!((50..80).contains(&listed.len()), "{} letters of some 950 kB were listed at once", listed.len());
    assert!(listed[0] == large(79) && listed[listed.len() - 1] == large(80 - listed.len() as i64), "not the newest");
}

pub(super) async fn every_position_is_visited(letters: &dyn DeadLetters) {
    const MANY: i64 = 10_500;
    letters.put(&(0..MANY).map(|offset| letter("positions", offset)).collect::<Vec<_>>()).await.unwrap();
    letters.put(&[letter("position", 1)]).await.unwrap();
    let mut visited = BTreeSet::new();
    let mut visit = |position: Position| {
        visited.insert(position);
    };
    letters.positions("suite.positions", &mut visit).await.unwrap();
    letters.positions("suite.no_letters", &mut visit).await.unwrap();
    assert!(visited.into_iter().eq((0..MANY).map(|offset| letter("", offset).position)));
}

pub(super) async fn copies_stand_under_both_functions(letters: &dyn DeadLetters) {
    let other = DeadLetter { reason: "an older plan's".into(), ..letter("copied_to", 1) };
    letters.put(&[letter("copied", 1), letter("copied", 2), other, letter("copied_to", 3)]).await.unwrap();
    letters.put(&[letter("copied", 4)]).await.unwrap();
    letters.remove("suite.copied", &[letter("", 4).position]).await.unwrap();
    for _ in 0..2 {
        letters.copy("suite.copied", "suite.copied_to").await.unwrap();
    }
    let sorted = async |function| {
        let mut held = list(letters, function, 10).await;
        held.sort_by_key(|letter| letter.position.offset);
        held
    };
    assert_eq!(sorted("copied_to").await, [1, 2, 3].map(|offset| letter("copied_to", offset)));
    assert_eq!(sorted("copied").await, [1, 2].map(|offset| letter("copied", offset)));
}

pub(super) async fn older_letters_are_listed_when_newer_ones_were_removed(letters: &dyn DeadLetters) {
    let of = |offsets: std::ops::Range<i64>| offsets.map(|offset| letter("emptied", offset)).collect::<Vec<_>>();
    letters.put(&of(0..50)).await.unwrap();
    letters.put(&of(50..350)).await.unwrap();
    let positions: Vec<_> = of(50..350).into_iter().map(|letter| letter.position).collect();
    letters.remove("suite.emptied", &positions).await.unwrap();
    for limit in [10, 40, 100] {
        assert_eq!(list(letters, "emptied", limit).await.len(), limit.min(50));
    }
}

pub(super) async fn a_removed_letter_is_gone_until_it_comes_again(letters: &dyn DeadLetters) {
    letters.put(&[0, 1, 2].map(|offset| letter("removed", offset))).await.unwrap();
    letters.put(&[letter("removed_too", 1)]).await.unwrap();
    let positions = [1, 2, 9].map(|offset| letter("", offset).position);
    letters.remove("suite.removed", &positions).await.unwrap();
    letters.put(&[letter("removed", 2)]).await.unwrap();
    let mut held = list(letters, "removed", 10).await;
    held.sort_by_key(|letter| letter.position.offset);
    assert_eq!(held, [letter("removed", 0), letter("removed", 2)]);
    assert_eq!(letters.find(None, &positions[0]).await.unwrap(), [letter("removed_too", 1)]);
    assert_eq!(letters.find(Some("suite.removed"), &positions[1]).await.unwrap(), [letter("removed", 2)]);
    let mut visited = BTreeSet::new();
    let mut visit = |position: Position| {
        visited.insert(position.offset);
    };
    letters.positions("suite.removed", &mut visit).await.unwrap();
    assert_eq!(visited, BTreeSet::from([0, 2]));
    letters.remove("suite.removed", &[]).await.unwrap();
}

fn letter(function: &str, offset: i64) -> DeadLetter {
    DeadLetter {
        function: format!("suite.{function}"),
        position: TopicPartition::new("orders", 3, 2).at(offset),
        timestamp_ms: 1_700_000_000_000 - offset,
        key: None,
        value: Some(offset.to_string().into_bytes()),
        headers: vec![],
        value_bytes: offset.to_string().len(),
        reason: format!("field `amount` of offset {offset}"),
    }
}

async fn list(letters: &dyn DeadLetters, function: &str, limit: usize) -> Vec<DeadLetter> {
    letters.list(Some(&format!("suite.{function}")), limit).await.unwrap()
}
