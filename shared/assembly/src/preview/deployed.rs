//! The table that is deployed, as it was declared when it was filled.

use std::sync::Arc;

use millstream_core::{Result, Rows, Sink};
use millstream_pipeline::{Function as Declared, Pipeline};
use millstream_sql::{Precision, WholeColumn};

use super::Shared;
use crate::{
    FunctionPlan, Systems,
    audit::{Fences, encoder::Encoder, public, side::Side},
    plan_function, type_name,
};

/// A table that readers see now.
pub(super) struct Deployed {
    /// Its columns.
    pub(super) columns: Vec<WholeColumn>,
    sink: Arc<dyn Sink>,
}

impl Deployed {
    /// The table that the function writes to; `None` where there is none.
    pub(super) async fn find(
        systems: &Systems,
        pipeline: &Pipeline,
        name: &str,
        notes: &mut Vec<String>,
    ) -> Result<Option<Self>> {
        let plan = plan_function(pipeline, name).await;
        let plan = plan.map_err(|wrong| millstream_core::Error::stop(wrong.to_string()))?;
        let into = &pipeline.functions[name].into;
        let keeps_positions = pipeline.functions[name].uses.keeps_positions();
        let id = Declared::id(&pipeline.name, name);
        let holding = systems.sink(&id, into, plan.planned.table.clone())?.holding().await?;
        let Some(record) = holding.record else {
            if holding.rows == Rows::Missing {
                notes.push(format!("there is no table {into} yet, so there is nothing to compare with"));
                return Ok(None);
            }
            notes.push(format!("it is not recorded which plan fills {into}, so nothing is compared"));
            return Ok(None);
        };
        let declared = Pipeline::parse(&record.owner.declaration, &pipeline.file).ok();
        let was = match declared.as_ref().and_then(|declared| Some((declared, declared.functions.keys().next()?))) {
            Some((declared, name)) => plan_function(declared, name).await.ok(),
            None => None,
        };
        let Some(was) = was else {
            notes.push(format!("the plan that fills {into} can't be read any more, so nothing is compared"));
            return Ok(None);
        };
        // The store may hold states for one of the two plans only: the table's own plan says what readers see.
        let (columns, function) = (columns_of(&was), &record.owner.function);
        let holding = systems.sink(function, into, was.planned.table.clone())?.holding().await?;
        if holding.rows == Rows::Missing {
            notes.push(format!("table {into} is not there, so there is nothing to compare with"));
            return Ok(None);
        }
        let sink = systems.sink(function, into, public(&was.planned.table, &columns, keeps_positions))?;
        Ok(Some(Self { columns, sink }))
    }

    /// Its fences.
    pub(super) async fn fences(&self) -> Result<Fences> {
        Ok(self.sink.holding().await?.fences)
    }

    /// Its fences, and its rows in the shared columns.
    pub(super) async fn scan(&self, shared: &Shared, compared: &Arc<Encoder>) -> Result<(Fences, Side)> {
        let place = |column: &WholeColumn| self.columns.iter().position(|own| own.name == column.name);
        let places: Vec<usize> = shared.now.iter().filter_map(place).collect();
        crate::audit::scan(self.sink.as_ref(), compared, Some(places)).await
    }
}

/// What readers see of a planned table.
fn columns_of(plan: &FunctionPlan) -> Vec<WholeColumn> {
    let table = &plan.planned.table;
    let column = |(name, data_type): (&String, &arrow::datatypes::DataType)| WholeColumn {
        name: name.clone(),
        data_type: data_type.clone(),
        precision: Precision::Exact,
        rounding: None,
    };
    match &table.view {
        Some(view) => view.columns.iter().map(|(name, data_type)| column((name, data_type))).collect(),
        None => table.columns.iter().map(|own| column((&own.name, &own.data_type))).collect(),
    }
}

/// The columns that both have, in the order of the file, and what is different about the others.
pub(super) fn shared_columns(now: &[WholeColumn], was: &[WholeColumn]) -> Shared {
    let mut shared = Shared { now: Vec::new(), places_now: Vec::new(), lines: Vec::new() };
    for (place, column) in now.iter().enumerate() {
        let (name, data_type) = (&column.name, type_name(&column.data_type));
        match was.iter().find(|was| was.name == column.name) {
            None => shared.lines.push(format!("column `{name}` would be new: {data_type}")),
            Some(was) if was.data_type != column.data_type => shared.lines.push(format!(
                "column `{name}` is {}, and would be {data_type}: it is not compared",
                type_name(&was.data_type)
            )),
            Some(_) => {
                shared.now.push(WholeColumn { rounding: None, ..column.clone() });
                shared.places_now.push(place);
            }
        }
    }
    let gone = was.iter().filter(|was| now.iter().all(|column| column.name != was.name));
    shared.lines.extend(gone.map(|was| format!("column `{}` would be gone", was.name)));
    shared
}
