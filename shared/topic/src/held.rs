use millstream_core::Fence;

use crate::event::Announced;

/// What is known of one partition of a function.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub fence: Fence,
    /// The key of the record that says so; none for a start.
    said_by: Option<String>,
    /// What is announced and perhaps not all sent: the key of each record, and what it says.
    open: Vec<(String, Announced)>,
}

impl Held {
    pub fn starting(fence: Fence) -> Self {
        Self { fence, said_by: None, open: Vec::new() }
    }

    /// What is announced above the fence.
    pub fn open(&self) -> impl Iterator<Item = &Announced> {
        self.open.iter().map(|(_, announced)| announced)
    }

    /// The fence has moved, unless it was further already. Returns the keys of records that don't count any more.
    pub fn moved(&mut self, key: String, fence: Fence) -> Vec<String> {
        if fence.next_offset <= self.fence.next_offset {
            return vec![key];
        }
        self.fence = fence;
        let mut spent: Vec<String> = self.said_by.replace(key).into_iter().collect();
        let next = self.fence.next_offset;
        let is_done = |announced: &Announced| match announced.rows {
            Some(_) => announced.from < next,
            None => announced.to <= next,
        };
        spent.extend(self.open.extract_if(.., |(_, announced)| is_done(announced)).map(|(key, _)| key));
        spent
    }

    /// Takes in what a process has announced; says whether it counts, and which keys don't any more. It doesn't if the fence is
    /// elsewhere by now, or if what was announced before must be sent first, just as it was.
    pub fn announced(&mut self, key: String, announced: Announced) -> (bool, Vec<String>) {
        let is_gone = |before: &Announced| before.is_gone(&announced.table, announced.generation);
        let waits =
            self.open().any(|before| !is_gone(before) && (before.rows.is_some() || !before.has_plan_of(&announced)));
        if announced.from != self.fence.next_offset || waits {
            return (false, vec![key]);
        }
        let covered = |(_, before): &mut (String, Announced)| {
            is_gone(before) || (before.to <= announced.to && announced.rows.is_none())
        };
        let spent = self.open.extract_if(.., covered).map(|(key, _)| key).collect();
        self.open.push((key, announced));
        (true, spent)
    }
}

#[cfg(test)]
mod tests {
    use millstream_core::TopicPartition;

    use super::*;
    use crate::event::Stored;

    fn announced(from: i64, to: i64, (term, plan): (i64, &str), keeps_rows: bool) -> Announced {
        let rows = keeps_rows.then(|| Stored { fence: Fence::starting_at(to), partition: 0, offsets: vec![from] });
        let (partition, plan) = (TopicPartition::new("in", 1, 0), plan.to_owned());
        let (table, function) = ("out".to_owned(), "p.f".to_owned());
        Announced { table, generation: 1, function, partition, from, to, term, plan, rows }
    }

    fn open(held: &Held) -> Vec<(i64, i64)> {
        held.open().map(|announced| (announced.from, announced.to)).collect()
    }

    const PLAN: (i64, &str) = (1, "a");

    #[test]
    fn of_two_announcements_with_rows_the_first_one_counts() {
        let mut held = Held::starting(Fence::starting_at(0));
        assert!(held.announced("1".into(), announced(0, 5, PLAN, true)).0);
        assert_eq!(held.announced("2".into(), announced(0, 9, PLAN, true)), (false, vec!["2".to_owned()]));
        assert_eq!(held.moved("3".into(), Fence::starting_at(5)), ["1"]);
        assert!(!held.announced("4".into(), announced(0, 9, PLAN, true)).0, "the fence is not there any more");
        assert!(held.announced("5".into(), announced(5, 9, PLAN, true)).0);
    }

    #[test]
    fn what_a_plan_has_announced_stays_open_until_the_fence_is_past_it() {
        let mut held = Held::starting(Fence::starting_at(0));
        assert!(held.announced("1".into(), announced(0, 9, PLAN, false)).0);
        assert!(held.announced("2".into(), announced(0, 4, PLAN, false)).0, "the same plan makes the same records");
        held.moved("3".into(), Fence::starting_at(4));
        assert_eq!(open(&held), [(0, 9)]);
        assert!(!held.announced("4".into(), announced(4, 12, (2, "b"), false)).0, "another plan makes others");
        assert!(held.announced("5".into(), announced(4, 12, (2, "a"), false)).0, "it was adopted back");
        assert_eq!(held.moved("6".into(), Fence::starting_at(12)), ["3", "5"]);
        assert_eq!((held.moved("7".into(), Fence::starting_at(9)), held.fence.next_offset), (vec!["7".to_owned()], 12));
        assert_eq!(open(&held), []);
    }
}
