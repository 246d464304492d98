//! What a scene's sinks hold, and whether it is what was written.

use std::collections::BTreeMap;

use millstream_core::DeadLetter;

use super::{Archived, Reader, Scene, read};
use crate::{
    bank::{Sums, Transaction, assert_same},
    setting::Store,
    written::Written,
};

impl Scene {
    /// The dead letters of a function, without duplicates.
    pub async fn dead_letters(&self, function: &str) -> Vec<DeadLetter> {
        self.systems.dead_letters(&self.pipeline).list(Some(&self.group(function)), 1_000_000).await.unwrap()
    }

    /// Panics unless millstream's own audit finds that the table agrees with the log, up to its fences.
    pub async fn assert_audited(&self, what: &str) {
        self.assert_audited_of("flow", what).await;
    }

    /// The same for another function.
    pub async fn assert_audited_of(&self, function: &str, what: &str) {
        let report = millstream_assembly::audit(&self.systems, &self.pipeline, function).await.unwrap();
        assert!(report.is_clean(), "{what}: the audit of {function} says {report:?}");
    }

    /// Panics unless the sums and the dead letters of `flow` agree with the written records, and millstream's own audit
    /// finds no difference.
    pub async fn assert_exact(&self, written: &Written, what: &str) {
        assert_same(&self.table().await, &written.sums(), what);
        self.assert_letters("flow", written, what).await;
        self.assert_audited(what).await;
    }

    /// Panics unless exactly the bad records are dead letters of a function.
    pub async fn assert_letters(&self, function: &str, written: &Written, what: &str) {
        let letters = self.dead_letters(function).await;
        let place = |letter: &DeadLetter| (letter.position.partition.partition, letter.position.offset);
        let have: BTreeMap<_, _> = letters.iter().map(|letter| (place(letter), letter.value.clone())).collect();
        assert_eq!(have.len(), letters.len(), "{what}: a dead letter is listed twice");
        let want = written.bad();
        let lost: Vec<_> = want.keys().filter(|at| !have.contains_key(at)).collect();
        let odd: Vec<_> = have.iter().filter(|(at, value)| want.get(at) != Some(value)).map(|(at, _)| at).collect();
        assert!(lost.is_empty() && odd.is_empty(), "{what}: dead letters missing: {lost:?}, odd: {odd:?}");
        assert!(letters.iter().all(|letter| !letter.reason.is_empty()), "{what}: a letter without a reason");
    }

    /// The rows of the table `flow`, read directly from the store.
    pub async fn table(&self) -> Sums {
        match &self.store {
            Store::Services { direct, .. } => read::postgres(direct, self.name()).await,
            Store::Embedded => read::rows(&self.function("flow").await.runner.sink().snapshot().await.unwrap().rows),
        }
    }

    /// Every record in the lake's files, as an external reader finds them.
    pub async fn archived(&self) -> Vec<Archived> {
        read::lake(&self.folder().join("lake").join("transactions")).await
    }

    /// Panics unless the files hold each good record exactly once.
    pub async fn assert_archived(&self, written: &Written, what: &str) {
        assert_archived(&self.archived().await, written, what);
    }

    /// The same as another reader finds them in the table at `address`.
    pub fn assert_archived_by(&self, reader: Reader, address: &str, written: &Written, what: &str) {
        assert_archived(&read::by(reader, address, self.environment()), written, &format!("{what}, by {reader:?}"));
    }
}

fn assert_archived(archived: &[Archived], written: &Written, what: &str) {
    let have: BTreeMap<_, _> = archived.iter().map(|one| ((one.partition, one.offset), one.fields.clone())).collect();
    assert_eq!(have.len(), archived.len(), "{what}: {} records are archived twice", archived.len() - have.len());
    let fields = |one: &Transaction| (one.branch.to_owned(), one.currency.to_owned(), one.cents, one.at_us);
    let want: BTreeMap<_, _> = written.transactions().iter().map(|(at, one)| (*at, fields(one))).collect();
    let wrong = want.iter().filter(|(at, fields)| have.get(at) != Some(fields)).count();
    assert!(have.len() == want.len() && wrong == 0, "{what}: {} of {}, {wrong} wrong", have.len(), want.len());
}
