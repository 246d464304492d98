//! Comparisons of text with numbers: the engine would cast the text, and fail for each record whose text is not a
//! number.

use datafusion::{
    common::{
        DFSchema,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, utils::merge_schema},
};

use crate::{
    error::{Result, SqlError, place_of},
    types,
};

/// Refuses comparisons of text with numbers in the expressions of one node.
pub fn check(node: &LogicalPlan) -> Result<()> {
    let schema = merge_schema(&node.inputs());
    let mut wrong = None;
    node.apply_expressions(|expr| {
        expr.apply(|expr| {
            for (left, right) in compared(expr) {
                wrong = wrong.take().or_else(|| mistake(left, right, &schema, &schema));
            }
            if let Expr::InSubquery(within) = expr
                && let Ok(theirs) = column_of(&within.subquery.subquery)
            {
                wrong =
                    wrong.take().or_else(|| mistake(&within.expr, &theirs, &schema, within.subquery.subquery.schema()));
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    if let LogicalPlan::Join(join) = node {
        for (left, right) in &join.on {
            wrong = wrong.take().or_else(|| mistake(left, right, join.left.schema(), join.right.schema()));
        }
    }
    wrong.map_or(Ok(()), Err)
}

fn column_of(subquery: &LogicalPlan) -> Result<Expr, ()> {
    subquery.schema().columns().into_iter().next().map(Expr::Column).ok_or(())
}

/// The pairs that an expression compares.
fn compared(expr: &Expr) -> Vec<(&Expr, &Expr)> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) => vec![(left, right)],
        Expr::InList(list) => list.list.iter().map(|item| (list.expr.as_ref(), item)).collect(),
        Expr::Between(between) => vec![(&between.expr, &between.low), (&between.expr, &between.high)],
        Expr::Case(case) => {
            let base = case.expr.as_deref();
            base.into_iter()
                .flat_map(|base| case.when_then_expr.iter().map(move |(when, _)| (base, when.as_ref())))
                .collect()
        }
        // All arguments become one type, and a text next to a number becomes a number.
        Expr::ScalarFunction(function)
            if matches!(function.name(), "nullif" | "coalesce" | "nvl" | "greatest" | "least") =>
        {
            let args = function.args.iter().enumerate();
            args.flat_map(|(at, one)| function.args[at + 1..].iter().map(move |other| (one, other))).collect()
        }
        _ => Vec::new(),
    }
}

/// Is it a comparison?
pub fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn mistake(left: &Expr, right: &Expr, of_left: &DFSchema, of_right: &DFSchema) -> Option<SqlError> {
    let (left_type, right_type) = (left.get_type(of_left).ok()?, right.get_type(of_right).ok()?);
    let (text, number, number_type) = match (left_type.is_string(), right_type.is_string()) {
        (true, false) if right_type.is_numeric() => (left, right, right_type),
        (false, true) if left_type.is_numeric() => (right, left, left_type),
        _ => return None,
    };
    let message = match (text, number) {
        (Expr::Literal(value, _), _) => {
            let value = value.try_as_str().flatten()?;
            if value.trim().parse::<f64>().is_ok() {
                return None;
            }
            format!("{} is a number and '{value}' is not: compare it with a number", describe(number))
        }
        (Expr::Column(column), Expr::Literal(value, _)) => format!(
            "`{name}` is a string and {value} a number: compare with '{value}', or write CAST({name} AS {})",
            types::name(&number_type),
            name = column.name(),
        ),
        _ => format!(
            "{} is a string and {} a number: CAST one of them to the type of the other",
            describe(text),
            describe(number)
        ),
    };
    Some(SqlError::new(message).at(place_of(left).or_else(|| place_of(right))))
}

fn describe(expr: &Expr) -> String {
    match expr {
        Expr::Column(column) => format!("`{}`", column.name()),
        Expr::Literal(value, _) => value.to_string(),
        _ => "an expression".into(),
    }
}
