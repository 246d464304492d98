//! Total expressions in PostgreSQL's SQL. Each operation of `total.rs` gives the same result here, value by value,
//! whatever the reader's time zone, language or settings are.

use arrow::datatypes::DataType;
use datafusion::{
    common::{DFSchema, ScalarValue},
    logical_expr::{BinaryExpr, Case, Expr, ExprSchemable, Operator, expr::ScalarFunction},
};

use millstream_core::quote_identifier;

use super::total::{MAX_ADDEND, MAX_DOUBLE, MAX_EXACT, MIN_DOUBLE, Op, Total, shiftable};
use crate::{
    error::{Result, SqlError},
    sketch,
};

/// Writes expressions over the columns of `schema` as SQL.
pub struct Postgres<'a> {
    pub schema: &'a DFSchema,
}

/// A type in PostgreSQL, as the sink stores it.
pub fn type_name(data_type: &DataType) -> Result<String> {
    Ok(match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint".to_owned(),
        DataType::Int32 | DataType::UInt16 => "integer".to_owned(),
        DataType::Int64 | DataType::UInt32 => "bigint".to_owned(),
        DataType::UInt64 => "numeric(20,0)".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double precision".to_owned(),
        DataType::Decimal128(precision, scale) => format!("numeric({precision},{scale})"),
        DataType::Timestamp(..) => "timestamp with time zone".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Binary => "bytea".to_owned(),
        data_type if data_type.is_nested() => "jsonb".to_owned(),
        _ => return Err(SqlError::new("a column of this type can't be shown: cast it to string or to a number")),
    })
}

/// A text literal that is read the same in every database. In a plain literal, a setting decides what a backslash
/// means.
fn text(value: &str) -> String {
    let quoted = value.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

impl Postgres<'_> {
    pub fn sql(&self, expr: &Expr) -> Result<String> {
        let of = |expr: &Expr| self.sql(expr);
        Ok(match expr {
            Expr::Column(column) => quote_identifier(&column.name),
            Expr::Literal(value, _) => literal(value)?,
            Expr::Not(inner) => format!("(NOT {})", of(inner)?),
            Expr::IsNull(inner) => format!("({} IS NULL)", of(inner)?),
            Expr::IsNotNull(inner) => format!("({} IS NOT NULL)", of(inner)?),
            Expr::IsTrue(inner) => format!("({} IS TRUE)", of(inner)?),
            Expr::IsFalse(inner) => format!("({} IS FALSE)", of(inner)?),
            Expr::IsUnknown(inner) => format!("({} IS UNKNOWN)", of(inner)?),
            Expr::IsNotTrue(inner) => format!("({} IS NOT TRUE)", of(inner)?),
            Expr::IsNotFalse(inner) => format!("({} IS NOT FALSE)", of(inner)?),
            Expr::IsNotUnknown(inner) => format!("({} IS NOT UNKNOWN)", of(inner)?),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let op = match op {
                    Operator::And => "AND",
                    Operator::Or => "OR",
                    Operator::StringConcat => "||",
                    Operator::Eq => "=",
                    Operator::NotEq => "<>",
                    Operator::Lt => "<",
                    Operator::LtEq => "<=",
                    Operator::Gt => ">",
                    Operator::GtEq => ">=",
                    Operator::IsDistinctFrom => "IS DISTINCT FROM",
                    Operator::IsNotDistinctFrom => "IS NOT DISTINCT FROM",
                    _ => return Err(not_listed(expr)),
                };
                format!("({} {op} {})", self.by_bytes(left)?, of(right)?)
            }
            Expr::Case(case) => self.case(case)?,
            Expr::InList(list) => {
                let items = list.list.iter().map(of).collect::<Result<Vec<_>>>()?.join(", ");
                format!("({}{} IN ({items}))", self.by_bytes(&list.expr)?, if list.negated { " NOT" } else { "" })
            }
            Expr::ScalarFunction(function) => self.function(function, expr)?,
            other => return Err(not_listed(other)),
        })
    }

    /// Texts compare by their bytes, whatever the database's language is.
    fn by_bytes(&self, expr: &Expr) -> Result<String> {
        let sql = self.sql(expr)?;
        Ok(if expr.get_type(self.schema)? == DataType::Utf8 { format!("({sql} COLLATE \"C\")") } else { sql })
    }

    fn case(&self, case: &Case) -> Result<String> {
        let mut sql = "CASE".to_owned();
        for (when, then) in &case.when_then_expr {
            sql += &format!(" WHEN {} THEN {}", self.sql(when)?, self.sql(then)?);
        }
        if let Some(otherwise) = &case.else_expr {
            sql += &format!(" ELSE {}", self.sql(otherwise)?);
        }
        Ok(format!("({sql} END)"))
    }

    fn function(&self, function: &ScalarFunction, expr: &Expr) -> Result<String> {
        if let Some(total) = function.func.inner().downcast_ref::<Total>() {
            return self.total(total, &function.args);
        }
        let args = function.args.iter().map(|arg| self.sql(arg)).collect::<Result<Vec<_>>>()?;
        Ok(match (function.func.name(), args.as_slice()) {
            ("coalesce", args) => format!("COALESCE({})", args.join(", ")),
            ("nullif", [_, other]) => format!("NULLIF({}, {other})", self.by_bytes(&function.args[0])?),
            (name @ ("greatest" | "least"), [_, others @ ..]) => {
                let first = self.by_bytes(&function.args[0])?;
                format!(
                    "{}({})",
                    name.to_uppercase(),
                    std::iter::once(&first).chain(others).cloned().collect::<Vec<_>>().join(", ")
                )
            }
            ("character_length", [value]) => format!("char_length({value})"),
            ("date_trunc", [unit, time]) => format!("date_trunc({unit}, {time}, 'UTC')"),
            ("date_part", [unit, time]) => {
                format!("trunc(date_part({unit}, {time} AT TIME ZONE 'UTC'))::integer")
            }
            (sketch::ESTIMATE, [column]) => sketch::estimate_sql(column),
            _ => return Err(not_listed(expr)),
        })
    }

    fn total(&self, total: &Total, args: &[Expr]) -> Result<String> {
        let sql = args.iter().map(|arg| self.sql(arg)).collect::<Result<Vec<_>>>()?;
        let types = args.iter().map(|arg| Ok(arg.get_type(self.schema)?)).collect::<Result<Vec<_>>>()?;
        let double = |at: usize| types[at].is_floating();
        match (total.op, sql.as_slice()) {
            (Op::Plain, [a]) => Ok(format!("({a} + '0'::{})", type_name(&total.result)?)),
            (Op::Shift(by_us), [time]) => Ok(shift(time, by_us)),
            (Op::Epoch, [time]) => {
                let us = format!("(extract(epoch FROM {time}) * 1000000)::bigint::float8");
                Ok(format!("({us} / {} + {})", number(1e6), number(0.0)))
            }
            (Op::Cast, [a]) => cast(a, &types[0], &total.result),
            (op, [a, b]) if double(0) => Ok(doubles(op, a, b, &total.result)),
            (op, [a]) if double(0) => Ok(double_alone(op, a, &total.result)),
            (op, [a, b]) => exact(op, a, b, &total.result),
            (op, [a]) => exact_alone(op, a, &total.result),
            _ => Err(SqlError::new("internal: an operation has more than two arguments")),
        }
    }
}

fn not_listed(expr: &Expr) -> SqlError {
    SqlError::new(format!("internal: a view can't hold {expr}"))
}

fn literal(value: &ScalarValue) -> Result<String> {
    let data_type = value.data_type();
    if value.is_null() {
        return Ok(if data_type == DataType::Null {
            "NULL".to_owned()
        } else {
            format!("NULL::{}", type_name(&data_type)?)
        });
    }
    Ok(match value {
        ScalarValue::Boolean(Some(value)) => value.to_string(),
        ScalarValue::Utf8(Some(value)) | ScalarValue::Utf8View(Some(value)) | ScalarValue::LargeUtf8(Some(value)) => {
            format!("{}::text", text(value))
        }
        ScalarValue::Float32(Some(value)) => format!("'{value:e}'::real"),
        ScalarValue::Float64(Some(value)) => format!("'{value:e}'::float8"),
        // DataFusion and PostgreSQL write the years 1 to 9999 in the same way.
        value if matches!(data_type, DataType::Timestamp(..)) => format!("'{}'::timestamptz", value_text(value)?),
        value
            if matches!(data_type, DataType::Date32)
                || data_type.is_integer()
                || matches!(data_type, DataType::Decimal128(..)) =>
        {
            format!("'{}'::{}", value_text(value)?, type_name(&data_type)?)
        }
        _ => {
            return Err(SqlError::new(
                "this constant can't stand above an aggregate: cast it to string or to a number",
            ));
        }
    })
}

fn value_text(value: &ScalarValue) -> Result<String> {
    let column = value.to_array()?;
    let column = if matches!(column.data_type(), DataType::Timestamp(..)) {
        arrow::compute::cast(&column, &millstream_core::timestamp_type())
    } else {
        Ok(column)
    };
    let text = column.and_then(|column| arrow::util::display::array_value_to_string(&column, 0));
    text.map_err(|_| SqlError::new("this constant can't be written as text"))
}

/// `body` over values that are computed once, under the names `a`, `b`, …. A value that `body` uses once is put in
/// directly.
fn over(values: &[String], body: impl FnOnce(&[String]) -> String) -> String {
    let simple = |value: &String| {
        !value.contains(['(', ' ']) || value.starts_with('"') && value.ends_with('"') && !value.contains('(')
    };
    if values.iter().all(simple) {
        return body(values);
    }
    let names: Vec<String> = ["v.a", "v.b"].iter().take(values.len()).map(|name| (*name).to_owned()).collect();
    let columns: Vec<String> =
        values.iter().zip(["a", "b"]).map(|(value, name)| format!("{value} AS {name}")).collect();
    // OFFSET 0 keeps the planner from repeating the expressions wherever their values are used.
    format!("(SELECT {} FROM (SELECT {} OFFSET 0) AS v)", body(&names), columns.join(", "))
}

/// `value` (exact, unbounded) as `result`, NULL where it doesn't fit.
fn fitting(value: String, result: &DataType) -> Result<String> {
    let name = type_name(result)?;
    let fits = match result {
        DataType::Decimal128(precision, scale) => {
            let digits = i32::from(*precision) - i32::from(*scale);
            format!("abs(#) < '1e{digits}'::numeric")
        }
        integer => {
            let (low, high) = bounds(integer)?;
            format!("# BETWEEN {low} AND {high}")
        }
    };
    Ok(over(&[value], |v| format!("(CASE WHEN {} THEN {}::{name} END)", fits.replace('#', &v[0]), v[0])))
}

fn bounds(integer: &DataType) -> Result<(i128, i128)> {
    Ok(match integer {
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
        DataType::Int64 => (i64::MIN.into(), i64::MAX.into()),
        DataType::UInt8 => (0, u8::MAX.into()),
        DataType::UInt16 => (0, u16::MAX.into()),
        DataType::UInt32 => (0, u32::MAX.into()),
        DataType::UInt64 => (0, u64::MAX.into()),
        _ => return Err(SqlError::new("internal: not an integer")),
    })
}

fn scale_of(result: &DataType) -> i8 {
    if let DataType::Decimal128(_, scale) = result { *scale } else { 0 }
}

fn number(value: f64) -> String {
    format!("'{value:e}'::float8")
}

fn exact(op: Op, a: &str, b: &str, result: &DataType) -> Result<String> {
    let values = [format!("{a}::numeric"), format!("{b}::numeric")];
    let scale = scale_of(result);
    let sum = |sign: &str| format!("({} {sign} {})", values[0], values[1]);
    match op {
        Op::Add => fitting(sum("+"), result),
        Op::Subtract => fitting(sum("-"), result),
        Op::Multiply => fitting(format!("trunc({}, {scale})", sum("*")), result),
        Op::Divide | Op::Remainder => {
            let quotient = over(&values, |v| {
                let (a, b) = (&v[0], &v[1]);
                let of = match op {
                    Op::Remainder => format!("{a} % {b}"),
                    _ if scale == 0 => format!("div({a}, {b})"),
                    // Cut, not rounded: div() is the only division that doesn't choose a scale of its own.
                    _ => format!("div({a} * '1e{scale}'::numeric, {b}) * '1e-{scale}'::numeric"),
                };
                format!("(CASE WHEN {b} <> 0 THEN {of} END)")
            });
            fitting(quotient, result)
        }
        _ => Err(SqlError::new("internal: not an operation on two exact numbers")),
    }
}

fn exact_alone(op: Op, a: &str, result: &DataType) -> Result<String> {
    let a = format!("{a}::numeric");
    fitting(
        match op {
            Op::Negate => format!("(- {a})"),
            Op::Absolute => format!("abs({a})"),
            Op::Floor => format!("floor({a})"),
            Op::Ceil => format!("ceil({a})"),
            // round() of numeric rounds half away from zero.
            Op::Round(places) => format!("round({a}, {places})"),
            Op::Truncate(places) => format!("trunc({a}, {places})"),
            _ => return Err(SqlError::new("internal: not an operation on an exact number")),
        },
        result,
    )
}

fn doubles(op: Op, a: &str, b: &str, result: &DataType) -> String {
    let (largest, smallest, addend) = (number(MAX_DOUBLE), number(MIN_DOUBLE), number(MAX_ADDEND));
    let (zero, one, finite) = (number(0.0), number(1.0), number(f64::MAX));
    let values = [a, b].map(|value| format!("{value}::float8"));
    let body = |v: &[String]| {
        let (a, b) = (&v[0], &v[1]);
        let cases = match op {
            Op::Add | Op::Subtract => {
                let sign = if op == Op::Add { '+' } else { '-' };
                format!("WHEN abs({a}) <= {addend} AND abs({b}) <= {addend} THEN {a} {sign} {b}")
            }
            Op::Multiply => format!(
                "WHEN {a} = {zero} OR {b} = {zero} THEN {zero} \
                 WHEN abs({b}) >= {one} THEN CASE WHEN abs({a}) <= {largest} / abs({b}) THEN {a} * {b} END \
                 WHEN abs({a}) >= {smallest} / abs({b}) THEN {a} * {b} ELSE {zero}"
            ),
            _ => format!(
                "WHEN {b} = {zero} THEN NULL \
                 WHEN abs({b}) >= {one} THEN CASE WHEN abs({a}) >= {smallest} * abs({b}) THEN {a} / {b} ELSE {zero} END \
                 WHEN abs({a}) <= {largest} * abs({b}) THEN {a} / {b}"
            ),
        };
        format!(
            "(CASE WHEN {a} IS NULL OR {b} IS NULL OR abs({a}) > {finite} OR abs({b}) > {finite} THEN NULL {cases} END)"
        )
    };
    narrowed(over(&values, body), result)
}

/// A double as the floating-point type `result`.
fn narrowed(double: String, result: &DataType) -> String {
    // Adding zero drops the sign of `-0.0`, so that every store shows the same zero.
    let double = format!("({double} + {})", number(0.0));
    if *result == DataType::Float32 {
        let limit = number(f64::from(f32::MAX));
        // A value that a real can't tell from zero is zero.
        let smallest = number(1e-37);
        return over(&[double], |v| {
            format!(
                "(CASE WHEN abs({0}) < {smallest} THEN '0'::real WHEN abs({0}) <= {limit} THEN {0}::real END)",
                v[0]
            )
        });
    }
    double
}

fn double_alone(op: Op, a: &str, result: &DataType) -> String {
    let finite = number(f64::MAX);
    let body = |v: &[String]| {
        let a = &v[0];
        let value = match op {
            Op::Negate => format!("- {a}"),
            Op::Absolute => format!("abs({a})"),
            Op::Floor => format!("floor({a})"),
            Op::Ceil => format!("ceil({a})"),
            Op::Round(places) => scaled(a, places, half_away),
            Op::Truncate(places) => scaled(a, places, |value| format!("trunc({value})")),
            _ => format!("CASE WHEN {a} >= {} THEN sqrt({a}) END", number(0.0)),
        };
        format!("(CASE WHEN abs({a}) <= {finite} THEN {value} END)")
    };
    narrowed(over(&[format!("{a}::float8")], body), result)
}

fn scaled(a: &str, places: i8, round: impl Fn(String) -> String) -> String {
    let factor = format!("'1e{}'::float8", places.unsigned_abs());
    let rounded = match places {
        0 => round(a.to_owned()),
        1.. => format!("{} / {factor}", round(format!("{a} * {factor}"))),
        _ => format!("{} * {factor}", round(format!("{a} / {factor}"))),
    };
    let (large, small, zero) = (number(MAX_EXACT), number(MIN_DOUBLE), number(0.0));
    format!("CASE WHEN abs({a}) >= {large} THEN {a} WHEN abs({a}) < {small} THEN {zero} ELSE {rounded} END")
}

/// Rounds half away from zero. PostgreSQL's own round() of a double rounds half to even.
fn half_away(value: String) -> String {
    over(&[value], |v| {
        let half = number(0.5);
        format!(
            "(trunc({0}) + CASE WHEN abs({0} - trunc({0})) >= {half} THEN sign({0}) ELSE {1} END)",
            v[0],
            number(0.0)
        )
    })
}

fn cast(a: &str, from: &DataType, to: &DataType) -> Result<String> {
    let name = type_name(to)?;
    let (exact_to, double_to) = (to.is_integer() || matches!(to, DataType::Decimal128(..)), to.is_floating());
    Ok(match from {
        from if from.is_floating() && double_to => narrowed(format!("{a}::float8"), to),
        from if from.is_floating() && exact_to => fitting(double_to_exact(a, to), to)?,
        // Convert the digits first, then scale: arrow does it in this order.
        DataType::Decimal128(_, scale) if double_to => {
            narrowed(format!("(({a} * '1e{scale}'::numeric)::double precision / '1e{scale}'::float8)"), to)
        }
        from if from.is_integer() && double_to => narrowed(format!("{a}::float8"), to),
        DataType::Decimal128(..) if to.is_integer() => fitting(format!("trunc({a})"), to)?,
        from if from.is_numeric() && exact_to => fitting(format!("round({a}::numeric, {})", scale_of(to)), to)?,
        DataType::Timestamp(..) if *to == DataType::Date32 => format!("({a} AT TIME ZONE 'UTC')::date"),
        DataType::Date32 if matches!(to, DataType::Timestamp(..)) => over(&[a.to_owned()], |v| {
            let (low, high) = ("'0001-01-01'::date", "'9999-12-31'::date");
            format!("(CASE WHEN {0} BETWEEN {low} AND {high} THEN {0}::timestamp AT TIME ZONE 'UTC' END)", v[0])
        }),
        _ => format!("{a}::{name}"),
    })
}

/// Goes through bigint: no other cast keeps all digits of a whole double.
fn double_to_exact(a: &str, to: &DataType) -> String {
    let (scale, limit) = (scale_of(to), number(MAX_EXACT));
    let near = |condition: &str, then: &str| format!("(CASE WHEN abs({condition}) < {limit} THEN {then} END)");
    let digits = over(&[format!("{a}::float8")], |v| {
        let moved = over(&[format!("{} * '1e{scale}'::float8", v[0])], |v| {
            let whole = if to.is_integer() { format!("trunc({})", v[0]) } else { half_away(v[0].clone()) };
            near(&v[0], &format!("{whole}::bigint::numeric"))
        });
        near(&v[0], &moved)
    });
    format!("({digits} * '1e-{scale}'::numeric)")
}

fn shift(time: &str, by_us: i64) -> String {
    let (hours, rest) = (by_us / 3_600_000_000, by_us % 3_600_000_000);
    let sign = if rest < 0 { "-" } else { "" };
    let (seconds, us) = (rest.unsigned_abs() / 1_000_000, rest.unsigned_abs() % 1_000_000);
    // In hours: a day has 23 to 25 of them in the reader's time zone.
    let bounds = shiftable(by_us);
    let (low, high) = (instant(*bounds.start()), instant(*bounds.end()));
    if bounds.is_empty() {
        return "NULL::timestamptz".to_owned();
    }
    // The bounds are checked before the shift: PostgreSQL has no times before the year -4713.
    let by = format!(" + '{hours} hours {sign}{seconds}.{us:06} seconds'::interval");
    let by = if by_us == 0 { "" } else { &by };
    over(&[time.to_owned()], |v| format!("(CASE WHEN {0} BETWEEN {low} AND {high} THEN {0}{by} END)", v[0]))
}

fn instant(us: i64) -> String {
    let value = ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()));
    // Every instant of these years has a literal.
    literal(&value).unwrap_or_default()
}
