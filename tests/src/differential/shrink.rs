//! A smaller case that still shows a difference.

use super::{
    case::Case,
    statement::{Base, Select, Shape},
};

/// Cases that are a little simpler, largest simplification first.
pub fn simpler(case: &Case) -> Vec<Case> {
    let mut all: Vec<Case> = records(case);
    all.extend(selects(&case.statement).into_iter().map(|statement| Case { statement, ..case.clone() }));
    if case.data.phases > 1 {
        let mut one = case.clone();
        one.data.phases = 1;
        one.data.records.iter_mut().for_each(|record| record.phase = 0);
        one.data.references.iter_mut().for_each(|reference| reference.versions.truncate(1));
        all.push(one);
    }
    for (index, reference) in case.data.references.iter().enumerate() {
        for (version, rows) in reference.versions.iter().enumerate() {
            for row in 0..rows.len() {
                let mut fewer = case.clone();
                fewer.data.references[index].versions[version].remove(row);
                all.push(fewer);
            }
        }
    }
    all
}

fn records(case: &Case) -> Vec<Case> {
    let count = case.data.records.len();
    let mut all = Vec::new();
    let mut size = count / 2;
    while size > 0 {
        for start in (0..count).step_by(size) {
            let mut fewer = case.clone();
            fewer.data.records.drain(start..count.min(start + size));
            if !fewer.data.records.is_empty() {
                all.push(fewer);
            }
        }
        size /= 2;
    }
    all
}

fn selects(select: &Select) -> Vec<Select> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Select)| {
        let mut changed = select.clone();
        change(&mut changed);
        if let Shape::Groups(grouped) = &mut changed.shape {
            grouped.prune();
        }
        all.push(changed);
    };
    if select.items().len() > 1 {
        for index in 0..select.items().len() {
            with(&|select| drop(items(&mut select.shape).remove(index)));
        }
    }
    if let Some(filter) = &select.filter {
        with(&|select| select.filter = None);
        for simpler in filter.simpler() {
            with(&|select| select.filter = Some(simpler.clone()));
        }
    }
    for index in 0..select.from.joins.len() {
        with(&|select| drop(select.from.joins.remove(index)));
        with(&|select| select.from.joins[index].on = None);
    }
    if let Base::Union(arms) = &select.from.base {
        if arms.len() > 1 {
            for index in 0..arms.len() {
                with(&|select| {
                    if let Base::Union(arms) = &mut select.from.base {
                        arms.remove(index);
                    }
                });
            }
        }
        for index in 0..arms.len() {
            with(&|select| {
                if let Base::Union(arms) = &mut select.from.base {
                    arms[index].filter = None;
                }
            });
        }
    }
    for (index, item) in select.items().iter().enumerate() {
        for simpler in item.expr.simpler() {
            with(&|select| items(&mut select.shape)[index].expr = simpler.clone());
        }
    }
    if let Shape::Groups(grouped) = &select.shape {
        if grouped.having.is_some() {
            with(&|select| groups(select).having = None);
        }
        for (index, aggregate) in grouped.aggregates.iter().enumerate() {
            for simpler in aggregate
                .args
                .iter()
                .enumerate()
                .flat_map(|(at, arg)| arg.simpler().into_iter().map(move |one| (at, one)))
            {
                with(&|select| groups(select).aggregates[index].args[simpler.0] = simpler.1.clone());
            }
        }
    }
    all
}

fn groups(select: &mut Select) -> &mut super::statement::Grouped {
    match &mut select.shape {
        Shape::Groups(grouped) => grouped,
        Shape::Rows(_) => unreachable!("only groups have keys"),
    }
}

fn items(shape: &mut Shape) -> &mut Vec<super::statement::Item> {
    match shape {
        Shape::Rows(items) => items,
        Shape::Groups(grouped) => &mut grouped.items,
    }
}
