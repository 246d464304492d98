//! The expressions that may stand above an aggregate: those that give the same result, value by value, in every store.
//! All others are refused, with what to write instead.

use std::{collections::BTreeSet, sync::Arc};

use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::{
    common::{
        DFSchema, ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    execution::session_state::SessionState,
    functions::core::coalesce,
    logical_expr::{
        BinaryExpr, Case, Expr, ExprSchemable, Operator,
        expr::{InList, ScalarFunction},
        lit,
        simplify::SimplifyContext,
    },
    optimizer::simplify_expressions::ExprSimplifier,
};
use millstream_core::timestamp_type;

use super::total::{Op, Total, total};
use crate::{
    calendar,
    error::{Result, SqlError},
    sketch, types,
};

/// Functions that every store computes in the same way. The others that are allowed are operations of `total.rs`.
const FUNCTIONS: [&str; 8] =
    ["coalesce", "nullif", "greatest", "least", "character_length", "date_trunc", "date_part", sketch::ESTIMATE];
/// The fields that a timestamp has in every store.
const FIELDS: [&str; 10] = ["year", "quarter", "month", "week", "day", "doy", "dow", "hour", "minute", "second"];
const COMPARISONS: [Operator; 8] = [
    Operator::Eq,
    Operator::NotEq,
    Operator::Lt,
    Operator::LtEq,
    Operator::Gt,
    Operator::GtEq,
    Operator::IsDistinctFrom,
    Operator::IsNotDistinctFrom,
];
/// The longest shift of a timestamp: with a longer one, every result would be outside the years 1 to 9999.
const MAX_SHIFT_US: i64 = 10_000 * 366 * 86_400_000_000;

/// Rewrites expressions over states into total ones.
pub struct WhiteList<'a> {
    schema: &'a DFSchema,
    /// The columns that are keys.
    keys: BTreeSet<&'a str>,
    simplifier: ExprSimplifier,
}

impl<'a> WhiteList<'a> {
    pub fn new(state: &SessionState, schema: &'a DFSchema, keys: BTreeSet<&'a str>) -> Self {
        let context = SimplifyContext::builder()
            .with_schema(Arc::new(schema.clone()))
            .with_config_options(Arc::clone(state.config_options()))
            .build();
        Self { schema, keys, simplifier: ExprSimplifier::new(context) }
    }

    /// The expression with its types made explicit and every operation total.
    pub fn total(&self, expr: Expr) -> Result<Expr> {
        let typed = self.simplifier.coerce(expr, self.schema)?;
        let rewritten = typed.transform_up(|expr| {
            // The closure must return DataFusion's error; ours is its cause.
            self.node(expr)
                .map(Transformed::yes)
                .map_err(|error| datafusion::error::DataFusionError::External(Box::new(error)))
        });
        rewritten.map(|rewritten| rewritten.data).map_err(|error| match error {
            datafusion::error::DataFusionError::External(error) => match error.downcast::<SqlError>() {
                Ok(error) => *error,
                Err(other) => SqlError::new(other.to_string()),
            },
            other => other.into(),
        })
    }

    /// One node, whose children are total.
    fn node(&self, expr: Expr) -> Result<Expr> {
        let computes = !matches!(expr, Expr::Literal(..)) && !is_interval(&self.type_of(&expr)?);
        if computes
            && expr.column_refs().is_empty()
            && let Some(constant) = self.constant(&expr)?
        {
            return Ok(constant);
        }
        match expr {
            // A constant timestamp has nanoseconds.
            Expr::Literal(value, _) if matches!(value.data_type(), DataType::Timestamp(..)) => {
                Ok(Expr::Literal(value.cast_to(&timestamp_type())?, None))
            }
            Expr::Column(_) | Expr::Literal(..) | Expr::Not(_) => Ok(expr),
            Expr::Alias(alias) => Ok(*alias.expr),
            Expr::IsNull(_) | Expr::IsNotNull(_) | Expr::IsTrue(_) | Expr::IsFalse(_) | Expr::IsUnknown(_) => Ok(expr),
            Expr::IsNotTrue(_) | Expr::IsNotFalse(_) | Expr::IsNotUnknown(_) => Ok(expr),
            Expr::BinaryExpr(binary) => self.binary(binary),
            Expr::Negative(inner) => {
                let result = self.type_of(&inner)?;
                self.number(&result, "-")?;
                Ok(total(Op::Negate, vec![*inner], result))
            }
            Expr::Between(between) => {
                let low = self.compare(*between.expr.clone(), Operator::GtEq, *between.low)?;
                let high = self.compare(*between.expr, Operator::LtEq, *between.high)?;
                Ok(if between.negated { Expr::Not(Box::new(low.and(high))) } else { low.and(high) })
            }
            Expr::Case(case) => self.case(case),
            Expr::Cast(cast) => self.cast(*cast.expr, cast.field.data_type()),
            Expr::TryCast(cast) => self.cast(*cast.expr, cast.field.data_type()),
            Expr::InList(list) => self.in_list(list),
            Expr::ScalarFunction(function) if function.func.inner().is::<Total>() => Ok(Expr::ScalarFunction(function)),
            Expr::ScalarFunction(function) => self.function(function),
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_) => {
                Err(SqlError::new(
                    "a subquery can't stand above an aggregate: the table is read long after the events came. Join the \
                     reference in FROM, below the aggregate",
                ))
            }
            other => Err(self.refuse(&other)),
        }
    }

    fn type_of(&self, expr: &Expr) -> Result<DataType> {
        Ok(expr.get_type(self.schema)?)
    }

    /// Computes a constant expression now. What finite numbers don't give, such as the logarithm of -1, is NULL like
    /// everything that can't be computed. `None` if the computation fails: the rules for other expressions apply then.
    fn constant(&self, expr: &Expr) -> Result<Option<Expr>> {
        let of_text = matches!(expr, Expr::Cast(cast) if is_text(&self.type_of(&cast.expr)?));
        let mut is_of_finite = !of_text;
        expr.apply_children(|child| {
            is_of_finite &= !is_endless(child);
            Ok(TreeNodeRecursion::Continue)
        })?;
        match self.simplifier.simplify(expr.clone())? {
            literal if is_of_finite && is_endless(&literal) => {
                Ok(Some(Expr::Literal(ScalarValue::try_from(&self.type_of(&literal)?)?, None)))
            }
            literal @ Expr::Literal(..) => self.node(literal).map(Some),
            _ => Ok(None),
        }
    }

    fn binary(&self, BinaryExpr { left, op, right }: BinaryExpr) -> Result<Expr> {
        let arithmetic = match op {
            Operator::Plus => Some(Op::Add),
            Operator::Minus => Some(Op::Subtract),
            Operator::Multiply => Some(Op::Multiply),
            Operator::Divide => Some(Op::Divide),
            Operator::Modulo => Some(Op::Remainder),
            _ => None,
        };
        let (left_type, right_type) = (self.type_of(&left)?, self.type_of(&right)?);
        match (op, arithmetic) {
            (Operator::And | Operator::Or, _) => Ok(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            (_, Some(arithmetic)) if left_type.is_numeric() && right_type.is_numeric() => {
                let result =
                    self.type_of(&Expr::BinaryExpr(BinaryExpr { left: left.clone(), op, right: right.clone() }))?;
                if arithmetic == Op::Remainder && result.is_floating() {
                    return Err(SqlError::new(
                        "`%` above an aggregate is for integers and decimals: cast to one of them",
                    ));
                }
                Ok(total(arithmetic, vec![*left, *right], result))
            }
            (Operator::Plus | Operator::Minus, _) if is_interval(&left_type) || is_interval(&right_type) => {
                self.shift(*left, op, *right)
            }
            (Operator::Minus, _) if [&left_type, &right_type].iter().all(|side| is_time(side)) => Err(SqlError::new(
                "an interval between two aggregates can't be computed in every store: write extract(epoch FROM …) of \
                 each and subtract them, which gives seconds",
            )),
            (Operator::StringConcat, _) if [&left_type, &right_type].iter().all(|side| is_text(side)) => {
                Ok(Expr::BinaryExpr(BinaryExpr { left, op, right }))
            }
            _ if COMPARISONS.contains(&op) => self.compare(*left, op, *right),
            _ => Err(self.refuse(&Expr::BinaryExpr(BinaryExpr { left, op, right }))),
        }
    }

    /// A comparison of two values of the same type.
    fn compare(&self, left: Expr, op: Operator, right: Expr) -> Result<Expr> {
        let data_type = self.type_of(&left)?;
        self.comparable(&data_type)?;
        let (left, right) = (self.plain(left)?, self.plain(right)?);
        Ok(Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) }))
    }

    fn comparable(&self, data_type: &DataType) -> Result<()> {
        if data_type.is_nested() {
            return Err(SqlError::new(
                "objects and lists can't be compared above an aggregate: compare one of their fields",
            ));
        }
        Ok(())
    }

    fn plain(&self, expr: Expr) -> Result<Expr> {
        let data_type = self.type_of(&expr)?;
        Ok(match expr {
            Expr::Literal(ScalarValue::Float64(Some(value)), _) => lit(value + 0.0),
            Expr::Literal(ScalarValue::Float32(Some(value)), _) => lit(value + 0.0),
            Expr::Literal(..) => expr,
            _ if data_type.is_floating() => total(Op::Plain, vec![expr], data_type),
            _ => expr,
        })
    }

    /// A timestamp and a constant interval.
    fn shift(&self, left: Expr, op: Operator, right: Expr) -> Result<Expr> {
        let (time, interval) =
            if is_interval(&self.type_of(&left)?) && op == Operator::Plus { (right, left) } else { (left, right) };
        let interval = match self.simplifier.simplify(interval)? {
            Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => interval,
            _ => {
                return Err(SqlError::new(
                    "above an aggregate, a timestamp can only be moved by a constant, such as INTERVAL '2 seconds'",
                ));
            }
        };
        let by_us = length_us(interval)?;
        let by_us = if op == Operator::Minus { -by_us } else { by_us };
        let time = self.cast(time, &timestamp_type())?;
        Ok(total(Op::Shift(by_us), vec![time], timestamp_type()))
    }

    fn case(&self, case: Case) -> Result<Expr> {
        let Case { expr: Some(base), when_then_expr, else_expr } = case else { return Ok(Expr::Case(case)) };
        let when = |(when, then): (Box<Expr>, Box<Expr>)| -> Result<_> {
            Ok((Box::new(self.compare(*base.clone(), Operator::Eq, *when)?), then))
        };
        let when_then_expr = when_then_expr.into_iter().map(when).collect::<Result<_>>()?;
        Ok(Expr::Case(Case { expr: None, when_then_expr, else_expr }))
    }

    fn in_list(&self, InList { expr, list, negated }: InList) -> Result<Expr> {
        self.comparable(&self.type_of(&expr)?)?;
        let list = list.into_iter().map(|item| self.plain(item)).collect::<Result<_>>()?;
        Ok(Expr::InList(InList { expr: Box::new(self.plain(*expr)?), list, negated }))
    }

    fn cast(&self, expr: Expr, to: &DataType) -> Result<Expr> {
        let from = self.type_of(&expr)?;
        let times = matches!(
            (&from, to),
            (DataType::Timestamp(..) | DataType::Date32, DataType::Timestamp(..) | DataType::Date32)
        );
        let text = is_text(to) && (from.is_integer() || matches!(from, DataType::Boolean | DataType::Decimal128(..)));
        match to {
            _ if &from == to => Ok(expr),
            _ if is_text(&from) && is_text(to) => Ok(expr),
            DataType::Timestamp(unit, zone) if times => {
                calendar::check_zone(zone.as_deref())?;
                if matches!(unit, TimeUnit::Second | TimeUnit::Millisecond) {
                    return Err(SqlError::new("a cast can't shorten a timestamp: write date_trunc('second', time)"));
                }
                self.known_time(expr)
            }
            _ if text || times || (is_number(&from) && is_number(to)) => Ok(total(Op::Cast, vec![expr], to.clone())),
            _ => {
                let what = format!("a cast from {} to {}", types::name(&from), types::name(to));
                Err(self.refuse_what(&what, &expr))
            }
        }
    }

    /// A time or a date as a time; NULL outside the years 1 to 9999.
    fn known_time(&self, expr: Expr) -> Result<Expr> {
        let op = if self.type_of(&expr)? == DataType::Date32 { Op::Cast } else { Op::Shift(0) };
        Ok(total(op, vec![expr], timestamp_type()))
    }

    fn number(&self, data_type: &DataType, what: &str) -> Result<()> {
        if is_number(data_type) {
            Ok(())
        } else {
            Err(SqlError::new(format!("`{what}` above an aggregate works on numbers only")))
        }
    }

    fn function(&self, function: ScalarFunction) -> Result<Expr> {
        let name = function.func.name().to_owned();
        let expr = Expr::ScalarFunction(function.clone());
        let result = self.type_of(&expr)?;
        let mut args = function.args.clone();
        let places = match args.get(1) {
            Some(Expr::Literal(places, _)) => places.cast_to(&DataType::Int64).ok().and_then(|places| match places {
                ScalarValue::Int64(Some(places)) => {
                    i8::try_from(places).ok().filter(|places| (-15..=15).contains(places))
                }
                _ => None,
            }),
            Some(_) => None,
            None => Some(0),
        };
        let op = match (name.as_str(), places) {
            ("abs", _) => Op::Absolute,
            ("floor", _) => Op::Floor,
            ("ceil", _) => Op::Ceil,
            ("sqrt", _) => Op::SquareRoot,
            ("round", Some(places)) => Op::Round(places),
            ("trunc", Some(places)) => Op::Truncate(places),
            ("round" | "trunc", None) => {
                return Err(SqlError::new(format!(
                    "{name}() above an aggregate takes a constant from -15 to 15 as its second argument"
                )));
            }
            ("nvl", _) => {
                return self.shared_function(ScalarFunction { func: coalesce(), args }, &expr);
            }
            ("date_part", _) if is_epoch(&args) => {
                if !is_time(&self.type_of(&args[1])?) {
                    return Err(self.refuse(&expr));
                }
                let time = self.known_time(args.remove(1))?;
                return Ok(total(Op::Epoch, vec![time], DataType::Float64));
            }
            _ if FUNCTIONS.contains(&name.as_str()) => return self.shared_function(function, &expr),
            _ => return Err(self.refuse(&expr)),
        };
        args.truncate(1);
        self.number(&self.type_of(&args[0])?, &name)?;
        self.number(&result, &name)?;
        let same = self.type_of(&args[0])?.is_floating() == result.is_floating();
        let argument = if same { args.remove(0) } else { self.cast(args.remove(0), &result)? };
        Ok(total(op, vec![argument], result))
    }

    /// A function that every store computes in the same way.
    fn shared_function(&self, function: ScalarFunction, expr: &Expr) -> Result<Expr> {
        let constant = |known: &[&str]| match function.args.first() {
            Some(Expr::Literal(ScalarValue::Utf8(Some(unit)), _)) => known.contains(&unit.to_lowercase().as_str()),
            _ => false,
        };
        let types = function.args.iter().map(|arg| self.type_of(arg)).collect::<Result<Vec<_>>>()?;
        let fits = match function.func.name() {
            "date_trunc" => constant(&calendar::UNITS) && types.get(1) == Some(&timestamp_type()),
            "date_part" => {
                constant(&FIELDS) && matches!(types.get(1), Some(DataType::Timestamp(..) | DataType::Date32))
            }
            "character_length" => types.iter().all(is_text),
            sketch::ESTIMATE => true,
            _ => types.iter().all(|data_type| !data_type.is_nested() || function.func.name() == "coalesce"),
        };
        if !fits {
            return Err(self.refuse(expr));
        }
        let mut function = function;
        if let ("date_part", [unit, time]) = (function.func.name(), function.args.as_slice()) {
            // Stores number the years before the year 1 differently.
            function.args = vec![unit.clone(), self.known_time(time.clone())?];
        }
        if matches!(function.func.name(), "greatest" | "least" | "nullif") {
            function.args = function.args.into_iter().map(|arg| self.plain(arg)).collect::<Result<_>>()?;
        }
        Ok(Expr::ScalarFunction(function))
    }

    fn refuse(&self, expr: &Expr) -> SqlError {
        let what = match expr {
            Expr::ScalarFunction(function) => format!("{}()", function.func.name()),
            Expr::BinaryExpr(binary) => format!("`{}`", binary.op),
            Expr::Like(like) => (if like.case_insensitive { "ILIKE" } else { "LIKE" }).to_owned(),
            Expr::SimilarTo(_) => "SIMILAR TO".to_owned(),
            _ => "this expression".to_owned(),
        };
        self.refuse_what(&what, expr)
    }

    fn refuse_what(&self, what: &str, expr: &Expr) -> SqlError {
        let refs = expr.column_refs();
        let of_keys = !refs.is_empty() && refs.iter().all(|column| self.keys.contains(column.name.as_str()));
        if of_keys && what == "tumble()" {
            // Grouped by both, each time would be a group.
            return SqlError::new(
                "tumble(…) is computed with each event: write it in GROUP BY instead of the time, by its place in SELECT (a name \
                 in GROUP BY is the field's before it is the result's), as in SELECT tumble(time, INTERVAL '1 minute') AS start, \
                 count(*) AS n FROM topic GROUP BY 1",
            );
        }
        let instead = if of_keys {
            "It depends on the groups only: write it in GROUP BY too, where it is computed with each event"
        } else {
            "Show the aggregate as it is and compute this where the table is read. These may stand here: + - * / %, comparisons, \
             AND, OR, NOT, CASE, COALESCE, NULLIF, greatest, least, abs, ceil, floor, round, trunc, sqrt, ||, \
             character_length, casts of numbers, date_trunc, extract, and a timestamp ± INTERVAL"
        };
        SqlError::new(format!("{what} above an aggregate does not mean the same in every store. {instead}"))
    }
}

/// Is it NaN or an infinity?
fn is_endless(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Float64(Some(value)), _) => !value.is_finite(),
        Expr::Literal(ScalarValue::Float32(Some(value)), _) => !value.is_finite(),
        _ => false,
    }
}

/// Are these the arguments of `extract(epoch FROM time)`?
fn is_epoch(args: &[Expr]) -> bool {
    matches!(args, [Expr::Literal(ScalarValue::Utf8(Some(unit)), _), _] if unit.eq_ignore_ascii_case("epoch"))
}

fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_) | DataType::Duration(_))
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..) | DataType::Date32)
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Float32 | DataType::Float64 | DataType::Decimal128(..))
}

/// The length of an interval that is the same at any time.
fn length_us(interval: IntervalMonthDayNano) -> Result<i64> {
    if interval.months != 0 {
        return Err(SqlError::new(
            "months and years differ in length: move a timestamp by days, hours, minutes or seconds",
        ));
    }
    let us = i128::from(interval.days) * 86_400_000_000 + i128::from(interval.nanoseconds / 1_000);
    let short = i64::try_from(us).ok().filter(|us| us.abs() <= MAX_SHIFT_US);
    short.ok_or_else(|| SqlError::new("this interval is longer than 10,000 years"))
}
