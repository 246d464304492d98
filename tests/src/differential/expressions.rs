//! Random expressions of a wanted kind over the columns in scope.

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

use super::{
    expr::Expr,
    statement::{floor_us, time_of},
    value::{Type, decimal_text},
};
use crate::differential::expr::Dialect;

/// A kind of expression: types that can replace each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Whole,
    Double,
    Decimal,
    Bool,
    Time,
}

pub const KINDS: [Kind; 6] = [Kind::Text, Kind::Whole, Kind::Double, Kind::Decimal, Kind::Bool, Kind::Time];

impl Kind {
    pub fn of(of: &Type) -> Option<Self> {
        Some(match of {
            Type::Text => Self::Text,
            Type::Int | Type::Big => Self::Whole,
            Type::Double => Self::Double,
            Type::Decimal(..) => Self::Decimal,
            Type::Bool => Self::Bool,
            Type::Time => Self::Time,
            Type::Object(_) | Type::List(_) => return None,
        })
    }
}

/// Columns that an expression may name.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    pub columns: Vec<Seen>,
    /// Above aggregates: an operation that fails there is NULL.
    pub above: bool,
}

#[derive(Clone, Debug)]
pub struct Seen {
    pub expr: Expr,
    /// Nothing may be computed with it.
    pub wide: bool,
}

/// Makes expressions.
pub struct Maker<'a> {
    pub rng: &'a mut StdRng,
    pub is_off: &'a dyn Fn(&str) -> bool,
    /// How many versions the references have.
    pub versions: usize,
}

const UNITS: [&str; 8] = ["second", "minute", "hour", "day", "week", "month", "quarter", "year"];
const LENGTHS: [(&str, i64); 6] = [
    ("1 second", 1_000_000),
    ("2 seconds", 2_000_000),
    ("10 seconds", 10_000_000),
    ("1 minute", 60_000_000),
    ("7 minutes", 420_000_000),
    ("1 day", 86_400_000_000),
];

impl Maker<'_> {
    pub fn is_on(&self, feature: &str) -> bool {
        !(self.is_off)(feature)
    }

    pub fn chance(&mut self, of: f64) -> bool {
        self.rng.random_bool(of)
    }

    pub fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of.choose(self.rng).expect("a choice of nothing").clone()
    }

    pub fn kind(&mut self) -> Kind {
        self.one(&KINDS)
    }

    /// A column of a kind.
    pub fn column(&mut self, kind: Kind, scope: &Scope, wide_too: bool) -> Option<Expr> {
        let fits: Vec<&Seen> = scope
            .columns
            .iter()
            .filter(|seen| Kind::of(&seen.expr.of) == Some(kind) && (wide_too || !seen.wide))
            .collect();
        fits.choose(self.rng).map(|seen| seen.expr.clone())
    }

    pub fn leaf(&mut self, kind: Kind, scope: &Scope) -> Expr {
        if self.chance(0.85)
            && let Some(column) = self.column(kind, scope, false)
        {
            return column;
        }
        self.literal(kind, scope.above)
    }

    pub fn literal(&mut self, kind: Kind, above: bool) -> Expr {
        let null = self.chance(0.05);
        match kind {
            Kind::Text if null => Expr::same(Type::Text, "CAST(NULL AS VARCHAR)", vec![]),
            Kind::Text => Expr::same(Type::Text, format!("'{}'", self.one(&["a", "b", "", "ä", "null"])), vec![]),
            Kind::Whole if null => Expr::same(Type::Big, "CAST(NULL AS BIGINT)", vec![]),
            Kind::Whole => {
                let number = self.rng.random_range(0..=9);
                if self.chance(0.2) {
                    return Expr::same(Type::Int, format!("CAST({number} AS INT)"), vec![]);
                }
                Expr::call(Type::Big, number.to_string(), format!("CAST({number} AS BIGINT)"), vec![])
            }
            Kind::Double => {
                let eighths: i32 = self.rng.random_range(-40..=40);
                Expr::same(Type::Double, format!("CAST('{}' AS DOUBLE)", f64::from(eighths) / 8.0), vec![])
            }
            Kind::Decimal => {
                let of = Type::Decimal(5, self.rng.random_range(0..=3));
                let Type::Decimal(_, scale) = of else { unreachable!() };
                let text = decimal_text(self.rng.random_range(-999..=999), scale);
                Expr::call(
                    of.clone(),
                    format!("CAST('{text}' AS {})", of.ours()),
                    format!("CAST('{text}' AS {})", of.duck()),
                    vec![],
                )
            }
            Kind::Bool => Expr::same(Type::Bool, self.one(&["true", "false"]), vec![]),
            Kind::Time => {
                let us = 1_704_067_200_000_000 + self.rng.random_range(0..100) * 1_000_000;
                let text = super::value::time_text(us);
                // The type of a column; above aggregates, the type that users write.
                let ours = if above {
                    format!("TIMESTAMP '{text}'")
                } else {
                    format!("arrow_cast('{text}', 'Timestamp(Microsecond, Some(\"UTC\"))')")
                };
                Expr::call(Type::Time, ours, format!("make_timestamp({us})"), vec![])
            }
        }
    }

    /// An expression of a kind, at most `depth` operators deep.
    pub fn expr(&mut self, kind: Kind, scope: &Scope, depth: usize) -> Expr {
        if depth == 0 || self.chance(0.25) {
            return self.leaf(kind, scope);
        }
        if self.is_on("choices") && self.chance(0.2) {
            return self.choice(kind, scope, depth - 1);
        }
        match kind {
            Kind::Text => self.text(scope, depth - 1),
            Kind::Whole => self.whole(scope, depth - 1),
            Kind::Double => self.double(scope, depth - 1),
            Kind::Decimal => self.decimal(scope, depth - 1),
            Kind::Bool => self.truth(scope, depth - 1),
            Kind::Time => self.time(scope, depth - 1),
        }
    }

    /// An expression of exactly this type.
    fn alike(&mut self, of: &Type, scope: &Scope, depth: usize) -> Expr {
        let Some(kind) = Kind::of(of) else { unreachable!("only scalars are computed") };
        let expr = self.expr(kind, scope, depth);
        if expr.of == *of {
            return expr;
        }
        if (of, &expr.of) == (&Type::Big, &Type::Int) {
            return Expr::same(Type::Big, "CAST({0} AS BIGINT)", vec![expr]);
        }
        let null = |name: String| format!("CAST(NULL AS {name})");
        Expr::call(of.clone(), null(of.ours()), null(of.duck()), vec![])
    }

    fn choice(&mut self, kind: Kind, scope: &Scope, depth: usize) -> Expr {
        let first = self.expr(kind, scope, depth);
        let of = first.of.clone();
        let second = self.alike(&of, scope, depth);
        match self.rng.random_range(0..5) {
            0 => Expr::same(of, "COALESCE({0}, {1})", vec![first, second]),
            1 => Expr::same(of, "NULLIF({0}, {1})", vec![first, second]),
            2 if kind != Kind::Bool => {
                let function = self.one(&["greatest", "least"]);
                Expr::same(of, format!("{function}({{0}}, {{1}})"), vec![first, second])
            }
            _ => {
                let condition = self.expr(Kind::Bool, scope, depth);
                let text = self.one(&["CASE WHEN {2} THEN {0} ELSE {1} END", "CASE WHEN {2} THEN {0} END"]);
                Expr::same(of, text, vec![first, second, condition])
            }
        }
        .named("choices")
    }

    fn text(&mut self, scope: &Scope, depth: usize) -> Expr {
        let of = Type::Text;
        match self.rng.random_range(0..10) {
            9 if self.is_on("rare") => {
                let text = self.expr(Kind::Text, scope, depth);
                let (ours, duck) = self.one(&[
                    ("repeat({0}, 2)", "repeat({0}, 2)"),
                    ("concat_ws('-', {0}, 'x')", "concat_ws('-', {0}, 'x')"),
                    ("btrim({0}, 'a')", "trim({0}, 'a')"),
                    ("regexp_replace({0}, '[ab]', 'q')", "regexp_replace({0}, '[ab]', 'q')"),
                    ("translate({0}, 'ab', 'yz')", "translate({0}, 'ab', 'yz')"),
                    ("rpad({0}, 4, '-')", "rpad({0}, 4, '-')"),
                    ("nvl({0}, 'none')", "COALESCE({0}, 'none')"),
                    ("right({0}, 2)", "right({0}, 2)"),
                ]);
                Expr::call(of, ours, duck, vec![text]).named("rare")
            }
            0 => {
                let number = self.expr(Kind::Whole, scope, depth);
                Expr::same(of, "CAST({0} AS VARCHAR)", vec![number]).named("cast_text")
            }
            1 => {
                let number = self.expr(Kind::Decimal, scope, depth);
                Expr::same(of, "CAST({0} AS VARCHAR)", vec![number]).named("cast_text")
            }
            2 => {
                let time = self.expr(Kind::Time, scope, depth);
                Expr::call(of, "to_char({0}, '%Y-%m-%d %H:%M')", "strftime({0}, '%Y-%m-%d %H:%M')", vec![time])
                    .named("to_char")
            }
            3 => {
                let Some(time) = self.column(Kind::Time, scope, false) else { return self.leaf(Kind::Text, scope) };
                let ours = "CAST(date_trunc('second', {0}) AS VARCHAR)";
                let duck = "strftime(date_trunc('second', {0}), '%Y-%m-%dT%H:%M:%SZ')";
                Expr::call(of, ours, duck, vec![time]).named("time_text")
            }
            4 if self.is_on("date_text") && self.chance(0.5) => {
                let Some(time) = self.column(Kind::Time, scope, false) else { return self.leaf(Kind::Text, scope) };
                Expr::same(of, "CAST(CAST({0} AS DATE) AS VARCHAR)", vec![time]).named("date_text")
            }
            4 => {
                let args = vec![self.expr(Kind::Text, scope, depth), self.expr(Kind::Text, scope, depth)];
                Expr::same(of, self.one(&["({0} || {1})", "concat({0}, {1})"]), args).named("texts")
            }
            _ => {
                let text = self.expr(Kind::Text, scope, depth);
                let function = self.one(&[
                    "upper({0})",
                    "lower({0})",
                    "substr({0}, 2)",
                    "trim({0})",
                    "replace({0}, 'a', 'z')",
                    "split_part({0}, '-', 1)",
                    "lpad({0}, 3, 'x')",
                    "reverse({0})",
                    "md5({0})",
                    "left({0}, 1)",
                ]);
                Expr::same(of, function, vec![text]).named("texts")
            }
        }
    }

    fn truth(&mut self, scope: &Scope, depth: usize) -> Expr {
        let of = Type::Bool;
        match self.rng.random_range(0..9) {
            // Only with one version of the references: with several, it is unknown which one a group is joined with.
            0 if scope.above && self.versions == 1 && self.is_on("above_subqueries") && self.chance(0.3) => {
                let arg = self.expr(Kind::Text, scope, depth);
                let text = self.one(&[
                    "({0} IN (SELECT q.key FROM r0 AS q))",
                    "({0} NOT IN (SELECT q.k FROM t0 AS q))",
                    "({0} < (SELECT max(q.key) FROM r0 AS q))",
                ]);
                Expr::same(of, text, vec![arg]).named("above_subqueries")
            }
            0 => {
                let args = vec![self.expr(Kind::Bool, scope, depth), self.expr(Kind::Bool, scope, depth)];
                Expr::same(of, self.one(&["({0} AND {1})", "({0} OR {1})"]), args)
            }
            1 => {
                let arg = self.expr(Kind::Bool, scope, depth);
                Expr::same(of, "(NOT {0})", vec![arg])
            }
            2 => {
                let kind = self.kind();
                let arg = self.expr(kind, scope, depth);
                Expr::same(of, self.one(&["({0} IS NULL)", "({0} IS NOT NULL)"]), vec![arg])
            }
            3 => {
                let arg = self.expr(Kind::Text, scope, depth);
                Expr::same(
                    of,
                    self.one(&[
                        "({0} LIKE '%a%')",
                        "({0} IN ('a', 'b'))",
                        "({0} NOT IN ('a', 'null'))",
                        "starts_with({0}, 'a')",
                    ]),
                    vec![arg],
                )
                .named("likes")
            }
            4 => {
                let arg = self.expr(Kind::Whole, scope, depth);
                Expr::same(of, self.one(&["({0} BETWEEN 0 AND 5)", "({0} IN (1, 2, 3))", "({0} % 2 = 0)"]), vec![arg])
            }
            _ => {
                let kind = self.one(&[Kind::Text, Kind::Whole, Kind::Double, Kind::Decimal, Kind::Time]);
                let args = vec![self.expr(kind, scope, depth), self.expr(kind, scope, depth)];
                let operator = self.one(&["=", "<>", "<", "<=", ">", ">="]);
                Expr::same(of, format!("({{0}} {operator} {{1}})"), args)
            }
        }
    }

    pub fn time(&mut self, scope: &Scope, depth: usize) -> Expr {
        let time = self.expr(Kind::Time, scope, depth);
        match self.rng.random_range(0..4) {
            3 if self.is_on("date_bin") => {
                let by = |dialect| time_of(dialect, &floor_us(dialect, "{0}", 300_000_000));
                Expr::call(Type::Time, "date_bin(INTERVAL '5 minutes', {0})", by(Dialect::Duck), vec![time])
                    .plainly(by(Dialect::Plain))
                    .named("date_bin")
            }
            0 => Expr::same(Type::Time, format!("date_trunc('{}', {{0}})", self.one(&UNITS)), vec![time])
                .named("date_trunc"),
            1 => Expr::same(Type::Time, "({0} + INTERVAL '90 seconds')", vec![time]).named("intervals"),
            _ => self.tumble(time),
        }
    }

    pub fn tumble(&mut self, time: Expr) -> Expr {
        let (length, us) = self.one(&LENGTHS);
        let by = |dialect| time_of(dialect, &floor_us(dialect, "{0}", us));
        Expr::call(Type::Time, format!("tumble({{0}}, INTERVAL '{length}')"), by(Dialect::Duck), vec![time])
            .plainly(by(Dialect::Plain))
            .named("tumble")
    }
}
