//! Random aggregates over the columns in scope.

use rand::Rng;

use super::{
    expr::Expr,
    expressions::{Kind, Maker},
    source::Source,
    value::Type,
};

/// An aggregate with its FILTER.
pub fn aggregate(maker: &mut Maker<'_>, source: &Source, depth: usize) -> Expr {
    let filter =
        (maker.is_on("aggregate_filter") && maker.chance(0.2)).then(|| maker.expr(Kind::Bool, &source.scope, 1));
    let scope = &source.scope;
    let depth = if maker.chance(0.5) { 0 } else { depth.min(2) };
    let ordered = !source.multiplied && maker.is_on("first_last");
    let choice = if ordered && maker.chance(0.2) { 8 } else { maker.rng.random_range(0..12) };
    match choice {
        0 => call(filter, Type::Big, "count(*)", "count(*)", vec![]).named("count"),
        1 => {
            let kind = maker.kind();
            let arg = maker.expr(kind, scope, depth);
            call(filter, Type::Big, "count({0})", "count({0})", vec![arg]).named("count")
        }
        2 | 3 => {
            let kind = maker.one(&[Kind::Whole, Kind::Decimal, Kind::Double]);
            let arg = maker.expr(kind, scope, depth);
            let of = match &arg.of {
                Type::Decimal(precision, scale) => Type::Decimal((precision + 10).min(38), *scale),
                Type::Double => Type::Double,
                _ => Type::Big,
            };
            if matches!(arg.of, Type::Decimal(28.., _)) {
                return call(filter, Type::Big, "count({0})", "count({0})", vec![arg]).named("count");
            }
            let duck = if of == Type::Big { "CAST(sum({0}){f} AS BIGINT)" } else { "sum({0}){f}" };
            call(filter, of, "sum({0}){f}", duck, vec![arg]).named("sum")
        }
        4 => {
            let kind = maker.one(&[Kind::Whole, Kind::Decimal, Kind::Double]);
            let arg = maker.expr(kind, scope, depth);
            average(filter, arg)
        }
        5 if maker.is_on("moments") => {
            let arg = maker.expr(Kind::Double, scope, depth);
            let (ours, duck) = maker.one(&[
                ("stddev({0}){f}", "stddev_samp({0}){f}"),
                ("stddev_pop({0}){f}", "stddev_pop({0}){f}"),
                ("var({0}){f}", "var_samp({0}){f}"),
                ("var_pop({0}){f}", "var_pop({0}){f}"),
            ]);
            call(filter, Type::Double, ours, duck, vec![arg]).named("moments")
        }
        6 => {
            let arg = maker.expr(Kind::Bool, scope, depth);
            let function = maker.one(&["bool_and({0}){f}", "bool_or({0}){f}"]);
            call(filter, Type::Bool, function, function, vec![arg]).named("bools")
        }
        7 if maker.is_on("approx_distinct") => {
            let kind = maker.one(&[Kind::Text, Kind::Whole, Kind::Bool]);
            let arg = maker.column(kind, scope, false).unwrap_or_else(|| Expr::same(Type::Bool, "true", vec![]));
            let duck = "count(DISTINCT {0}){f}";
            call(filter, Type::Big, "approx_distinct({0}){f}", duck, vec![arg]).named("approx_distinct").wide()
        }
        8 | 9 if ordered => {
            let kind = maker.kind();
            let arg = maker.column(kind, scope, true).unwrap_or_else(|| maker.expr(kind, scope, 1));
            let name = maker.one(&["first", "last"]);
            let of = arg.of.clone();
            if maker.is_on("ignore_nulls") && maker.chance(0.4) {
                let and = filter.as_ref().map_or("", |_| " AND {1}");
                let by =
                    |function: &str| format!("{function}({{0}} ORDER BY t._ord) FILTER (WHERE {{0}} IS NOT NULL{and})");
                let args = std::iter::once(arg).chain(filter.clone()).collect();
                let ours = match filter {
                    Some(_) => format!("{name}_value({{0}}) FILTER (WHERE {{1}}) IGNORE NULLS"),
                    None => format!("{name}_value({{0}}) IGNORE NULLS"),
                };
                return Expr::call(of, ours, by(name), args)
                    .plainly(by(&format!("{name}_value")))
                    .named("ignore_nulls")
                    .wide();
            }
            let ours = format!("{name}_value({{0}}){{f}}");
            let plain = format!(
                "{name}_value({{0}} ORDER BY t._ord){}",
                if filter.is_some() { " FILTER (WHERE {1})" } else { "" }
            );
            call(filter, of, &ours, &format!("{name}({{0}} ORDER BY t._ord){{f}}"), vec![arg])
                .plainly(plain)
                .named("first_last")
                .wide()
        }
        _ => {
            let kind = maker.kind();
            let kind = if kind == Kind::Bool { Kind::Time } else { kind };
            let wide = maker.chance(0.3).then(|| maker.column(kind, scope, true)).flatten();
            let is_wide = wide.is_some();
            let arg = wide.unwrap_or_else(|| maker.expr(kind, scope, depth));
            let function = maker.one(&["min({0}){f}", "max({0}){f}"]);
            let of = arg.of.clone();
            let call = call(filter, of, function, function, vec![arg]).named("min_max");
            if is_wide { call.wide() } else { call }
        }
    }
}

/// `{f}` in a text marks the place of the FILTER; its condition is the last argument.
fn call(filter: Option<Expr>, of: Type, ours: &str, duck: &str, mut args: Vec<Expr>) -> Expr {
    let clause = filter.as_ref().map(|_| format!(" FILTER (WHERE {{{}}})", args.len())).unwrap_or_default();
    args.extend(filter);
    let place =
        |text: &str| if text.contains("{f}") { text.replace("{f}", &clause) } else { format!("{text}{clause}") };
    Expr::call(of, place(ours), place(duck), args)
}

fn average(filter: Option<Expr>, arg: Expr) -> Expr {
    match arg.of.clone() {
        Type::Decimal(precision, scale) if precision + 10 <= 28 => {
            let to = scale + 4;
            let of = Type::Decimal((precision + 4).min(38), to);
            let duck = format!(
                "CAST(decimal_text((unscaled(sum({{0}}){{f}}) * CAST(10000 AS HUGEINT)) // CAST(count({{0}}){{f}} AS HUGEINT), {to}) AS {})",
                of.duck()
            );
            call(filter, of, "avg({0}){f}", &duck, vec![arg]).named("avg_decimal")
        }
        Type::Decimal(..) => call(filter, Type::Big, "count({0})", "count({0})", vec![arg]).named("count"),
        _ => call(filter, Type::Double, "avg({0}){f}", "avg({0}){f}", vec![arg]).named("avg"),
    }
}
