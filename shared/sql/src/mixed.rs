//! Decimals next to doubles, before types are coerced: DataFusion would turn both into decimals with fifteen digits
//! after the decimal point, which leaves few digits to the left of it.

use arrow::datatypes::DataType;
use datafusion::{
    common::{
        DFSchema, Result, ScalarValue,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, Subquery, Union, cast,
        expr::{Between, Case, InList, InSubquery},
    },
    optimizer::AnalyzerRule,
};

use crate::{compare::compares, exact::exact, rewrite};

/// A value next to a double becomes a double. A constant next to a decimal becomes a decimal, of the same type if that
/// type holds the constant.
#[derive(Debug)]
pub struct MixedNumbers;

impl AnalyzerRule for MixedNumbers {
    fn name(&self) -> &'static str {
        "mixed_numbers"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let of_node = |node| {
            let rewritten = rewrite::of_node(node, &|expr, schema| expr.transform_up(|expr| node_of(expr, schema)))?;
            rewritten.map_data(|node| match node {
                LogicalPlan::Join(join) => of_join(join),
                LogicalPlan::Union(union) => of_union(union),
                node => Ok(node),
            })
        };
        Ok(plan.transform_up_with_subqueries(of_node)?.data)
    }
}

/// How values that end up with one type are used.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    Compared,
    /// One of them is the result.
    Chosen,
}

fn node_of(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let expr = match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let [left, right] = aligned([*left, *right], schema, Use::Compared);
            Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) })
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let [expr, low, high] = aligned([*expr, *low, *high], schema, Use::Compared).map(Box::new);
            Expr::Between(Between { expr, negated, low, high })
        }
        Expr::InList(InList { expr, list, negated }) => {
            let (expr, list) = one_and_others(*expr, list, schema, Use::Compared);
            Expr::InList(InList { expr: Box::new(expr), list, negated })
        }
        Expr::Case(case) => of_case(case, schema),
        Expr::ScalarFunction(mut function) => {
            let from = match function.name() {
                "coalesce" | "nvl" | "nullif" | "greatest" | "least" | "make_array" => 0,
                // Its first argument is only tested for null.
                "nvl2" => 1,
                _ => return Ok(Transformed::no(Expr::ScalarFunction(function))),
            };
            let values = function.args.split_off(from.min(function.args.len()));
            function.args.extend(all(values, schema, Use::Chosen));
            Expr::ScalarFunction(function)
        }
        Expr::InSubquery(within) => of_subquery(within, schema)?,
        other => return Ok(Transformed::no(other)),
    };
    Ok(Transformed::yes(expr))
}

fn of_case(Case { expr, when_then_expr, else_expr }: Case, schema: &DFSchema) -> Expr {
    let (mut whens, mut thens): (Vec<Expr>, Vec<Expr>) =
        when_then_expr.into_iter().map(|(when, then)| (*when, *then)).unzip();
    let expr = expr.map(|base| {
        let (base, others) = one_and_others(*base, std::mem::take(&mut whens), schema, Use::Compared);
        whens = others;
        Box::new(base)
    });
    let cases = thens.len();
    thens.extend(else_expr.map(|otherwise| *otherwise));
    let mut thens = all(thens, schema, Use::Chosen);
    let else_expr = thens.split_off(cases).pop().map(Box::new);
    let when_then_expr = whens.into_iter().map(Box::new).zip(thens.into_iter().map(Box::new)).collect();
    Expr::Case(Case { expr, when_then_expr, else_expr })
}

fn of_subquery(InSubquery { expr, subquery, negated }: InSubquery, schema: &DFSchema) -> Result<Expr> {
    let (ours, theirs) = (expr.get_type(schema)?, subquery.subquery.schema().field(0).data_type().clone());
    let (expr, subquery) = match (is_decimal(&ours), is_decimal(&theirs)) {
        (true, false) if theirs.is_floating() => (Box::new(cast(*expr, DataType::Float64)), subquery),
        (false, true) if ours.is_floating() => {
            let plan = as_doubles(subquery.subquery.as_ref().clone(), &[true])?;
            (expr, Subquery { subquery: plan.into(), ..subquery })
        }
        _ => (expr, subquery),
    };
    Ok(Expr::InSubquery(InSubquery { expr, subquery, negated }))
}

/// In a join's equalities, each side has its own schema.
fn of_join(mut join: Join) -> Result<LogicalPlan> {
    for (left, right) in &mut join.on {
        let (of_left, of_right) = (left.get_type(join.left.schema())?, right.get_type(join.right.schema())?);
        if is_decimal(&of_left) && of_right.is_floating() {
            *left = cast(left.clone(), DataType::Float64);
        } else if of_left.is_floating() && is_decimal(&of_right) {
            *right = cast(right.clone(), DataType::Float64);
        }
    }
    Ok(LogicalPlan::Join(join))
}

fn of_union(union: Union) -> Result<LogicalPlan> {
    let types = |column: usize| union.inputs.iter().map(move |input| input.schema().field(column).data_type());
    let mixed: Vec<bool> = (0..union.schema.fields().len())
        .map(|column| types(column).any(is_decimal) && types(column).any(DataType::is_floating))
        .collect();
    let inputs = union.inputs.iter().map(|input| Ok(as_doubles(input.as_ref().clone(), &mixed)?.into()));
    // The union still has the types of its parts before they were rewritten.
    Ok(LogicalPlan::Union(Union::try_new_with_loose_types(inputs.collect::<Result<_>>()?)?))
}

/// The plan with the decimals among the `wanted` columns as doubles.
fn as_doubles(plan: LogicalPlan, wanted: &[bool]) -> Result<LogicalPlan> {
    let schema = plan.schema();
    if !schema.fields().iter().zip(wanted).any(|(field, wanted)| *wanted && is_decimal(field.data_type())) {
        return Ok(plan);
    }
    let columns = schema.iter().zip(wanted).map(|((qualifier, field), wanted)| {
        let column = Expr::Column((qualifier, field).into());
        if *wanted && is_decimal(field.data_type()) {
            cast(column, DataType::Float64).alias_qualified(qualifier.cloned(), field.name())
        } else {
            column
        }
    });
    let columns = columns.collect::<Vec<_>>();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal128(..) | DataType::Decimal256(..))
}

fn one_and_others(one: Expr, others: Vec<Expr>, schema: &DFSchema, they_are: Use) -> (Expr, Vec<Expr>) {
    let mut all = all(std::iter::once(one).chain(others).collect(), schema, they_are);
    let others = all.split_off(1);
    (all.remove(0), others)
}

fn aligned<const N: usize>(exprs: [Expr; N], schema: &DFSchema, they_are: Use) -> [Expr; N] {
    let mut aligned = all(exprs.to_vec(), schema, they_are).into_iter();
    // There is one for each expression.
    exprs.map(|expr| aligned.next().unwrap_or(expr))
}

/// Aligns expressions that end up with one type.
fn all(exprs: Vec<Expr>, schema: &DFSchema, they_are: Use) -> Vec<Expr> {
    let types: Vec<DataType> = exprs.iter().map(|expr| expr.get_type(schema).unwrap_or(DataType::Null)).collect();
    if !types.iter().any(is_decimal) || !types.iter().any(DataType::is_floating) {
        return exprs;
    }
    let exact: Vec<Expr> = exprs.iter().cloned().map(exact).collect();
    let constants: Vec<Option<Decimal>> = exact.iter().zip(&exprs).map(|(new, old)| Decimal::new(old, new)).collect();
    let doubles = types.iter().zip(&constants).any(|(of, constant)| of.is_floating() && constant.is_none());
    let fitting: Vec<Option<Expr>> =
        constants.iter().map(|constant| constant.as_ref().map(|constant| constant.among(&types))).collect();
    let too_fine = they_are == Use::Compared
        && constants.iter().flatten().any(|constant| types.iter().any(|of| constant.has_no_room_beside(of)));
    let one = |((expr, of), constant): ((Expr, &DataType), Option<Expr>)| match constant {
        // A constant with more digits than a wide decimal equals none of its values. A double of 53 bits still tells
        // the constant from all of them.
        _ if (doubles || too_fine) && is_decimal(of) => cast(expr, DataType::Float64),
        Some(constant) if !doubles && !too_fine => constant,
        _ => expr,
    };
    exprs.into_iter().zip(&types).zip(fitting).map(one).collect()
}

/// A constant exactly as written: `unscaled / 10^scale`.
struct Decimal {
    unscaled: i128,
    precision: u8,
    scale: i8,
}

impl Decimal {
    /// The constant that `old` became, if it was a double.
    fn new(old: &Expr, new: &Expr) -> Option<Self> {
        match new {
            Expr::Literal(ScalarValue::Decimal128(Some(unscaled), precision, scale), _) if old != new => {
                Some(Self { unscaled: *unscaled, precision: *precision, scale: *scale })
            }
            _ => None,
        }
    }

    /// The constant with the first of the `types` that holds it, or with a type of its own.
    fn among(&self, types: &[DataType]) -> Expr {
        let of =
            |precision, scale, unscaled| Expr::Literal(ScalarValue::Decimal128(Some(unscaled), precision, scale), None);
        let fitting = types.iter().find_map(|data_type| {
            let DataType::Decimal128(precision, scale) = *data_type else { return None };
            let more = u32::try_from(scale - self.scale).ok()?;
            let unscaled = self.unscaled.checked_mul(10_i128.checked_pow(more)?)?;
            (unscaled.unsigned_abs() < 10_u128.checked_pow(precision.into())?).then(|| of(precision, scale, unscaled))
        });
        fitting.unwrap_or_else(|| of(self.precision, self.scale, self.unscaled))
    }

    /// Is there no type of 38 digits that holds both this constant and all values of the decimal?
    fn has_no_room_beside(&self, data_type: &DataType) -> bool {
        let DataType::Decimal128(precision, scale) = *data_type else { return false };
        self.scale > scale && i16::from(precision) - i16::from(scale) + i16::from(self.scale) > 38
    }
}
