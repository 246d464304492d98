use std::collections::BTreeMap;

use crate::{Function, Pipeline, Reading};

impl Pipeline {
    /// The functions that read topics, in the order in which records pass them: each one after those that write what it
    /// reads, otherwise by name.
    pub fn readers(&self) -> impl Iterator<Item = (&String, &Function, &Reading)> {
        let steps = self.steps();
        let reader = |(name, function)| Some((name, function, Function::reading(function)?));
        let mut readers: Vec<_> = self.functions.iter().filter_map(reader).collect();
        // The sort keeps the order by name.
        readers.sort_by_key(|(_, _, reading)| {
            reading.topics().filter_map(|topic| steps.get(topic.as_str())).max().copied()
        });
        readers.into_iter()
    }

    /// Through how many functions of this file the records of each topic have come, at most.
    pub fn steps(&self) -> BTreeMap<&str, usize> {
        let mut steps: BTreeMap<&str, usize> = self.topics.keys().map(|topic| (topic.as_str(), 0)).collect();
        // No function reads what it has written, so no way is longer than the number of functions.
        for _ in 0..self.functions.len() {
            for function in self.functions.values() {
                let (Some(reading), Some(written)) = (function.reading(), function.written_topic()) else { continue };
                let before = reading.topics().filter_map(|topic| steps.get(topic.as_str())).max().copied().unwrap_or(0);
                let Some(after) = steps.get_mut(written.as_str()) else { continue };
                *after = (*after).max(before + 1);
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_come_in_the_order_in_which_records_pass_them() {
        let hop = |name: &str, from: &str, into: &str| {
            format!(
                "  {name}: {{ uses: transform, from: {from}, sql: 'SELECT a FROM \"{from}\"', into: topic.{into} }}\n"
            )
        };
        let text = format!(
            "name: p\ntopics:\n  z: {{ partitions: 1, schema: {{ a: bigint }} }}\n  b: {{ partitions: 1, schema: {{ a: bigint }} }}\n  \
             c: {{ partitions: 1, schema: {{ a: bigint }} }}\nfunctions:\n  end: {{ uses: archive, from: [b, c], into: lake.e, \
             sql: 'SELECT a FROM b UNION ALL SELECT a FROM c' }}\n  kept: {{ uses: archive, from: z, into: lake.k }}\n{}{}",
            hop("second", "b", "c"),
            hop("third", "z", "b"),
        );
        let pipeline = Pipeline::parse(&text, "p.yaml".as_ref()).unwrap();
        let names: Vec<_> = pipeline.readers().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["kept", "third", "second", "end"]);
        assert_eq!(pipeline.steps(), BTreeMap::from([("z", 0), ("b", 1), ("c", 2)]));
    }
}
