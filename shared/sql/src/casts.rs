//! Expressions that differ only in a CAST: DataFusion leaves casts out of names, and refuses two columns with the same
//! name.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::{
    common::{
        Result,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{
        ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        planner::{ExprPlanner, PlannerResult, RawAggregateExpr},
    },
    sql::sqlparser::ast::{self, Visit, VisitMut, Visitor, VisitorMut},
};

use crate::rewrite;

/// Makes the casts in an aggregate's arguments part of its name.
#[derive(Debug)]
pub struct NamedCasts;

impl ExprPlanner for NamedCasts {
    fn plan_aggregate(&self, mut aggregate: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        for argument in &mut aggregate.args {
            if has_cast(argument)? {
                let name = argument.to_string();
                *argument = argument.clone().alias(name);
            }
        }
        Ok(PlannerResult::Original(aggregate))
    }
}

fn has_cast(expr: &Expr) -> Result<bool> {
    let mut found = false;
    expr.apply(|expr| {
        found |= matches!(expr, Expr::Cast(_) | Expr::TryCast(_));
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// The function that marks a cast; its second argument is the type as a text. A call's arguments are part of its name.
const MARKER: &str = "__cast_to";

/// Marks casts in a grouped SELECT if one value is cast to several types, or stands there both with and without a cast.
pub fn mark(select: &mut ast::Select) {
    let ast::GroupByExpr::Expressions(groups, _) = &select.group_by else { return };
    if groups.is_empty() {
        return;
    }
    let shown = select.projection.iter().filter_map(|item| match item {
        ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    });
    let mut casts = Casts { of: groups.iter().chain(shown).map(|expr| (value(expr), None)).collect() };
    // These visitors never return `Break`.
    let _ = select.projection.visit(&mut casts);
    let _ = select.group_by.visit(&mut casts);
    let mut marks = Marks { casts: casts.of };
    let _ = VisitMut::visit(&mut select.projection, &mut marks);
    let _ = VisitMut::visit(&mut select.group_by, &mut marks);
    let _ = VisitMut::visit(&mut select.having, &mut marks);
}

/// A value as a text; a column is written without its table.
fn value(expr: &ast::Expr) -> String {
    match expr {
        ast::Expr::CompoundIdentifier(parts) => parts.last().map(ToString::to_string).unwrap_or_default(),
        ast::Expr::Nested(inner) => value(inner),
        other => other.to_string(),
    }
}

/// The types that values are cast to; `None` for a value without a cast.
struct Casts {
    of: Vec<(String, Option<String>)>,
}

impl Visitor for Casts {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
        if let ast::Expr::Cast { expr, data_type, .. } = expr {
            self.of.push((value(expr), Some(data_type.to_string())));
        }
        ControlFlow::Continue(())
    }
}

struct Marks {
    casts: Vec<(String, Option<String>)>,
}

impl VisitorMut for Marks {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        if let ast::Expr::Cast { expr: of, data_type, .. } = expr {
            let (of, to) = (value(of), Some(data_type.to_string()));
            if self.casts.iter().any(|(other, type_of_other)| *other == of && *type_of_other != to) {
                let text = ast::Value::SingleQuotedString(to.unwrap_or_default());
                *expr = call(vec![ast::Expr::value(text), expr.clone()]);
            }
        }
        ControlFlow::Continue(())
    }
}

fn call(args: Vec<ast::Expr>) -> ast::Expr {
    let args = args.into_iter().map(|arg| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(arg))).collect();
    ast::Expr::Function(ast::Function {
        name: ast::ObjectName::from(vec![ast::Ident::new(MARKER)]),
        uses_odbc_syntax: false,
        parameters: ast::FunctionArguments::None,
        args: ast::FunctionArguments::List(ast::FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// The plan without the marks; columns keep the names that the marks gave them.
pub fn unmarked(plan: LogicalPlan) -> Result<LogicalPlan> {
    rewrite::expressions(plan, &|expr, _| {
        expr.transform_up(|expr| match expr {
            Expr::ScalarFunction(mut function) if function.name() == MARKER => Ok(function
                .args
                .pop()
                .map_or_else(|| Transformed::no(Expr::ScalarFunction(function.clone())), Transformed::yes)),
            expr => Ok(Transformed::no(expr)),
        })
    })
}

/// The function that marks a cast; it returns its first argument unchanged.
pub fn marker_udf() -> ScalarUDF {
    ScalarUDF::new_from_impl(Marker { signature: Signature::any(2, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker {
    signature: Signature,
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &'static str {
        MARKER
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.last().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(args.args[1].clone())
    }
}
