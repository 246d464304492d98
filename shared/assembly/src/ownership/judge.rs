use millstream_core::{Claim, Holding, Owner, OwnerRecord, Rows};

use super::Misfit;

/// What a start does with what the store holds: the claim that it makes. `public` is the table's name, and `same_plan` says
/// whether the record is of the owner's plan.
pub(crate) fn judge(holding: &Holding, owner: &Owner, public: &str, same_plan: bool) -> Result<Claim, Misfit> {
    let table = public.to_owned();
    if let Some(record) = &holding.record
        && record.owner.function == owner.function
        && !same_plan
        && holding.fences.is_empty()
        && holding.rows != Rows::Present
    {
        // Nothing is left of what the record speaks of.
        return Ok(Claim::Adopt(Some(record.clone())));
    }
    match &holding.record {
        Some(record) if record.owner.function != owner.function => {
            return Err(Misfit::Owner { table, owner: record.owner.function.clone(), since: record.since.clone() });
        }
        Some(record) if !same_plan => return Err(Misfit::Plan { table, since: record.since.clone() }),
        _ => {}
    }
    let is_adopted = holding.record.as_ref().is_some_and(|record| record.adopted);
    let has_moved = holding.fences.iter().any(|(_, fence)| fence.next_offset > fence.start_offset);
    let written = holding.fences.iter().map(|(_, fence)| fence.rows).sum::<i64>();
    if let (None, Some(OwnerRecord { table: before, .. })) = (&holding.record, holding.others.first())
        && has_moved
    {
        return Err(Misfit::OtherTable { table, before: before.clone() });
    }
    match holding.rows {
        Rows::Missing if has_moved => Err(Misfit::TableMissing { table }),
        Rows::Empty if written > 0 => Err(Misfit::TableEmpty { table, written }),
        Rows::Present if holding.fences.is_empty() && !is_adopted => Err(Misfit::FencesMissing { table }),
        _ => Ok(holding.record.clone().map_or(Claim::First, Claim::Renew)),
    }
}
