use super::*;

fn selected(number: u32, offsets: &[i64]) -> Said {
    let offsets = BTreeMap::from([(0, offsets.to_vec())]);
    Said::Selected(Selection { number, topic: "t".into(), generation: 1, offsets, written_at: 0 })
}

fn refused(number: u32, offset: i64) -> Said {
    Said::Refused { number, partition: 0, offset, reason: "no".into() }
}

fn closing(number: u32, offset: i64) -> Said {
    Said::Closing { number, partition: 0, offset }
}

/// `fences` are the numbers of selections, and the next offsets of their only partition.
fn redrives(fences: &[(u32, i64)], said: &[Said]) -> Redrives {
    try_redrives(fences, said).unwrap()
}

fn try_redrives(fences: &[(u32, i64)], said: &[Said]) -> Result<Redrives> {
    let fence = |(number, next): &(u32, i64)| {
        (TopicPartition::new("t", FIRST_REDRIVE + number, 0), Fence { next_offset: *next, ..Fence::starting_at(0) })
    };
    RedrivesSaid(said.to_vec()).with(&fences.iter().map(fence).collect::<Vec<_>>())
}

fn offsets(redrives: &Redrives) -> Vec<(u32, Vec<i64>)> {
    let of = |selection: &Selection| (selection.number, selection.offsets.get(&0).cloned().unwrap_or_default());
    redrives.selections.values().map(of).collect()
}

fn at(offset: i64) -> Position {
    TopicPartition::new("t", 1, 0).at(offset)
}

/// Two commands at once see the same open letters.
#[test]
fn a_letter_belongs_to_the_first_selection_that_names_it() {
    let both = redrives(&[(1, 0), (2, 0)], &[selected(1, &[3, 5]), selected(2, &[5, 7])]);
    assert_eq!(offsets(&both), [(1, vec![3, 5]), (2, vec![7])]);
    let late = redrives(&[(1, 0), (2, 0)], &[selected(2, &[5]), selected(1, &[5]), selected(2, &[6])]);
    assert_eq!(offsets(&late), [(2, vec![5])], "a number that comes late, or again, chooses nothing");
}

#[test]
fn what_was_refused_again_is_open_once_the_fence_has_passed_it() {
    let said = [selected(1, &[3, 5]), refused(1, 5), refused(1, 5), refused(9, 3)];
    let before = redrives(&[(1, 4)], &said);
    assert_eq!((before.find(&at(3)), before.find(&at(5))), (Redriven::Done, Redriven::Chosen));
    assert_eq!(before.unfinished(), [TopicPartition::new("t", FIRST_REDRIVE + 1, 0)]);
    let after = redrives(&[(1, 6)], &said);
    assert_eq!(
        (after.find(&at(3)), after.find(&at(5)), after.find(&at(4))),
        (Redriven::Done, Redriven::Open, Redriven::Open)
    );
    assert_eq!((after.refusals(&at(5)), after.refusals(&at(3))), ((1, Some("no")), (0, None)));
    assert_eq!((after.outcome(after.selection(1).unwrap()), after.unfinished()), ((1, 1), vec![]));
    let again = redrives(&[(1, 6), (2, 0)], &[&said[..], &[selected(2, &[3, 5]), refused(1, 5)]].concat());
    assert_eq!((offsets(&again), again.find(&at(5))), (vec![(1, vec![3, 5]), (2, vec![5])], Redriven::Chosen));
}

/// The fence was at 5 when the selection was closed; another process had found it at 3.
#[test]
fn what_a_closed_selection_has_left_is_open() {
    let said = [selected(1, &[3, 4, 5, 6]), refused(1, 4), refused(1, 6), closing(1, 5), closing(1, 3)];
    let closed = redrives(&[(1, CLOSED)], &said);
    let found: Vec<_> = [3, 4, 5, 6].map(|offset| closed.find(&at(offset))).to_vec();
    assert_eq!(found, [Redriven::Done, Redriven::Open, Redriven::Open, Redriven::Open]);
    assert_eq!(closed.unfinished(), []);
    let again = redrives(&[(1, CLOSED), (2, 6)], &[&said[..], &[selected(2, &[3, 4, 5, 6]), refused(1, 5)]].concat());
    assert_eq!(offsets(&again)[1], (2, vec![4, 5, 6]));
    assert_eq!([4, 5, 6].map(|offset| again.find(&at(offset))), [Redriven::Done, Redriven::Done, Redriven::Chosen]);
    let failed = redrives(&[(1, 5)], &said);
    assert_eq!(failed.find(&at(5)), Redriven::Chosen, "a note alone closes nothing");
}

/// A rebuilt table has none of the old one's fences.
#[test]
fn a_selection_without_fences_holds_nothing() {
    let rebuilt = redrives(&[(2, 0)], &[selected(1, &[3]), refused(1, 3), selected(2, &[3])]);
    assert_eq!((offsets(&rebuilt), rebuilt.newest()), (vec![(2, vec![3])], 2));
    assert_eq!(rebuilt.refusals(&at(3)), (0, None));
}

#[test]
fn a_topic_that_has_lost_its_records_is_not_taken_for_one_without_redrives() {
    assert!(matches!(try_redrives(&[(1, 4)], &[]), Err(Error::Stop(_))));
    assert!(matches!(try_redrives(&[(1, CLOSED)], &[selected(1, &[3])]), Err(Error::Stop(_))));
    let unbegun = redrives(&[(7, 0)], &[]);
    assert_eq!((unbegun.newest(), unbegun.find(&at(3))), (7, Redriven::Open), "killed before it was written");
}

#[test]
fn a_full_selection_fits_a_topic_with_kafkas_own_limit() {
    let offsets = (0..MAX_SELECTED as i64).map(|at| i64::MAX - at).collect();
    let selection = Selection {
        number: 1,
        topic: "t".repeat(249),
        generation: 1,
        offsets: BTreeMap::from([(0, offsets)]),
        written_at: 0,
    };
    let entry = Entry { function: "f".repeat(130), said: Said::Selected(selection) };
    let value = serde_json::to_vec(&entry).unwrap();
    assert!(value.len() < 1_000_000);
    let read: Entry = serde_json::from_slice(&value).unwrap();
    assert_eq!(format!("{read:?}"), format!("{entry:?}"));
}

/// The second selection was written while the first was under way, and the first was closed after that.
#[test]
fn a_selection_has_what_its_writer_found_and_not_what_was_closed_later() {
    let own = Said::Owned { number: 2, offsets: BTreeMap::from([(0, vec![7])]) };
    let said = [selected(1, &[3, 5]), selected(2, &[3, 5, 7]), own, closing(1, 0)];
    let both = redrives(&[(1, CLOSED), (2, 8)], &said);
    assert_eq!(offsets(&both), [(1, vec![3, 5]), (2, vec![7])]);
    let found: Vec<_> = [3, 5, 7].map(|offset| both.find(&at(offset))).into();
    assert_eq!(found, [Redriven::Open, Redriven::Open, Redriven::Done]);
}
