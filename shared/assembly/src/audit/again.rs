//! A second run in another order, for rows that differ in numbers.

use std::{collections::HashMap, sync::Arc};

use millstream_core::Result;

use super::{
    compare::{Doubtful, are_close},
    encoder::{Encoded, Encoder, Number},
    input::Input,
    query::Query,
    report::AuditProgress,
};

impl Query<'_> {
    /// The numbers that the log gives in another order, for rows that are in doubt.
    pub(super) async fn in_another_order(
        &self,
        input: &Input,
        encoder: &Arc<Encoder>,
        doubtful: &[Doubtful],
        told: &mut (dyn FnMut(AuditProgress) + Send),
    ) -> Result<Again> {
        let pass = Arc::new(self.pass_by(true));
        let whole = self.planned_for(&pass, input).await?;
        let wanted = doubtful.iter().map(|pair| (name_of(&pair.second), None));
        let mut again = Again { numbers: wanted.collect() };
        self.each(whole, &pass, input.clone(), told, &mut |rows| {
            for row in encoder.rows(&rows)? {
                if let Some(numbers) = again.numbers.get_mut(&name_of(&row)) {
                    *numbers = Some(row.numbers);
                }
            }
            Ok(())
        })
        .await?;
        Ok(again)
    }
}

type Name = (Box<[u8]>, Box<[u8]>);

fn name_of(row: &Encoded) -> Name {
    (row.key.clone(), row.exact.clone())
}

/// The numbers of a second run.
pub(super) struct Again {
    numbers: HashMap<Name, Option<Vec<Number>>>,
}

impl Again {
    /// The pairs that another order doesn't explain.
    pub(super) fn decide(&self, doubtful: Vec<Doubtful>) -> Vec<Doubtful> {
        let differs = |pair: &Doubtful| {
            let there = self.numbers.get(&name_of(&pair.second)).and_then(Option::as_deref).unwrap_or_default();
            let numbers = pair.first.numbers.iter().zip(&pair.second.numbers).enumerate();
            numbers.into_iter().any(|(at, (stored, expected))| {
                let other = there.get(at).and_then(|other| other.value);
                let noise = expected.value.zip(other).map_or(0.0, |(here, there)| (here - there).abs());
                !are_close(stored, expected, noise)
            })
        };
        doubtful.into_iter().filter(|pair| differs(pair)).collect()
    }
}
