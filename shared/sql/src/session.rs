//! The planner as statements meet it: its options, its functions, and the tables that may be named.

use std::sync::Arc;

use datafusion::{
    common::TableReference,
    execution::{
        FunctionRegistry, SessionStateBuilder,
        context::SessionContext,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        runtime_env::RuntimeEnvBuilder,
        session_state::SessionState,
    },
    prelude::SessionConfig,
};

use crate::{
    calendar, checked::CheckIntegers, error::Result, exact::ExactConstants, plan::Statement, sketch, slot::SlotTable,
    window::Window,
};

/// A planner that knows the topics and the references of a statement.
pub fn session(statement: &Statement<'_>) -> Result<SessionState> {
    let mut config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    // Fields of JSON are written as they are: `branchName` is not `branchname`.
    options.sql_parser.enable_ident_normalization = false;
    // Both would keep in the plan what one batch was, and so in every later one.
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    options.optimizer.enable_dynamic_filter_pushdown = false;
    // What does not fit into memory is tried again with fewer records, and never spilled.
    let no_disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let runtime = RuntimeEnvBuilder::new().with_disk_manager_builder(no_disk).build_arc()?;
    let builder = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime);
    let mut state = builder.with_default_features().build();
    state.register_expr_planner(Arc::new(ExactConstants))?;
    let context = SessionContext::new_with_state(state);
    context.add_analyzer_rule(Arc::new(CheckIntegers));
    for window in [Window::Tumble, Window::Hop, Window::HopStarts] {
        context.register_udf(window.udf());
    }
    context.register_udf(sketch::estimate_udf());
    context.register_udf(calendar::date_trunc_udf());
    context.register_udf(calendar::to_char_udf());
    context.register_udf(calendar::date_bin_udf());
    let mut slots: Vec<_> =
        statement.inputs.iter().map(|input| (input.name.clone(), Arc::clone(&input.schema))).collect();
    slots.extend(statement.references.iter().map(|reference| (reference.name.clone(), Arc::clone(&reference.schema))));
    for (name, schema) in slots {
        context.register_table(TableReference::bare(name.clone()), Arc::new(SlotTable { name, schema }))?;
    }
    Ok(context.state())
}
