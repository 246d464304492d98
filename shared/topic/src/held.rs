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
