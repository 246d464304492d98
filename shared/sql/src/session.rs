//! The planner's options, its functions, and the tables that a statement may name.

use std::sync::Arc;

use datafusion::{
    catalog::TableProvider,
    common::TableReference,
    execution::{
        FunctionRegistry, SessionStateBuilder,
        context::SessionContext,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        runtime_env::RuntimeEnvBuilder,
        session_state::SessionState,
    },
    optimizer::{Analyzer, AnalyzerRule},
    prelude::SessionConfig,
};

use crate::{
    bound,
    calendar::{self, Microseconds},
    casts::{self, NamedCasts},
    checked::CheckIntegers,
    error::Result,
    exact::ExactConstants,
    keywords::Matching,
    language,
    mixed::MixedNumbers,
    sketch,
    slot::SlotTable,
    statement::Statement,
    window::Window,
};

/// A planner that knows the topics and the references of a statement.
pub fn session(statement: &Statement<'_>) -> Result<SessionState> {
    let mut config = config();
    // These optimizations would store facts about one batch in the plan, where they would apply to every later batch.
    let optimizer = &mut config.options_mut().optimizer;
    optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    optimizer.enable_dynamic_filter_pushdown = false;
    optimizer.enable_join_dynamic_filter_pushdown = false;
    optimizer.enable_topk_dynamic_filter_pushdown = false;
    optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    // A batch that doesn't fit into memory is retried with fewer records, and never spilled to disk.
    let no_disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let inputs = statement.inputs.iter().map(|input| (&input.name, &input.schema));
    let references = statement.references.iter().map(|reference| (&reference.name, &reference.schema));
    let slots = inputs.chain(references).map(|(name, schema)| {
        let slot = SlotTable { name: name.clone(), schema: Arc::clone(schema) };
        (name.clone(), Arc::new(slot) as Arc<dyn TableProvider>)
    });
    session_over(config, RuntimeEnvBuilder::new().with_disk_manager_builder(no_disk), slots)
}

/// A planner that knows these tables, and all functions that a pipeline's statement may call.
pub fn session_over(
    config: SessionConfig,
    runtime: RuntimeEnvBuilder,
    tables: impl IntoIterator<Item = (String, Arc<dyn TableProvider>)>,
) -> Result<SessionState> {
    let context = context(config, runtime)?;
    for window in [Window::Tumble, Window::Hop, Window::HopStarts] {
        context.register_udf(window.udf());
    }
    context.register_udf(sketch::estimate_udf());
    context.register_udf(casts::marker_udf());
    for (name, table) in tables {
        context.register_table(TableReference::bare(name), table)?;
    }
    Ok(context.state())
}

/// How statements are parsed, both in a pipeline and in a query over its tables.
pub fn config() -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    // Names of JSON fields keep their case: `branchName` is not `branchname`.
    options.sql_parser.enable_ident_normalization = false;
    // Nothing would limit the recursion.
    options.execution.enable_recursive_ctes = false;
    config
}

/// A planner without tables, in which expressions mean the same as in pipelines.
pub fn context(config: SessionConfig, runtime: RuntimeEnvBuilder) -> Result<SessionContext> {
    let mut rules = typing();
    rules.push(Arc::new(CheckIntegers));
    let builder = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime.build_arc()?);
    let mut state = builder.with_default_features().with_analyzer_rules(rules).build();
    state.register_expr_planner(Arc::new(ExactConstants))?;
    state.register_expr_planner(Arc::new(NamedCasts))?;
    bound::register(&mut state)?;
    let context = SessionContext::new_with_state(state);
    context.register_udf(calendar::date_trunc_udf());
    context.register_udf(calendar::to_char_udf());
    context.register_udf(calendar::date_bin_udf());
    context.register_udf(language::detect_language_udf());
    for matching in Matching::BOTH {
        context.register_udf(matching.udf());
    }
    Ok(context)
}

/// The rules that give every expression its type.
pub fn typing() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![Arc::new(Microseconds), Arc::new(MixedNumbers)];
    rules.extend(Analyzer::new().rules);
    rules
}
