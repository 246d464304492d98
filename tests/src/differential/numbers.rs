//! Random whole numbers and doubles.

use rand::Rng;

use super::{
    expr::Expr,
    expressions::{Kind, Maker, Scope},
    value::Type,
};

const PARTS: [&str; 8] = ["second", "minute", "hour", "day", "dow", "doy", "month", "year"];

impl Maker<'_> {
    pub fn whole(&mut self, scope: &Scope, depth: usize) -> Expr {
        let arithmetic = |args: Vec<Expr>, ours: &str, duck: &str| {
            let of = if args.iter().all(|arg| arg.of == Type::Int) { Type::Int } else { Type::Big };
            Expr::call(of, ours, duck, args).named("arithmetic")
        };
        match self.rng.random_range(0..12) {
            11 if self.is_on("rare") => match self.rng.random_range(0..3) {
                0 => {
                    let arg = self.expr(Kind::Bool, scope, depth);
                    Expr::same(Type::Big, "CAST({0} AS BIGINT)", vec![arg])
                }
                1 => {
                    let arg = self.expr(Kind::Text, scope, depth);
                    let (ours, duck) = self.one(&[
                        ("bit_length({0})", "bit_length({0})"),
                        ("octet_length({0})", "CAST(strlen({0}) AS BIGINT)"),
                        ("ascii({0})", "ascii({0})"),
                    ]);
                    Expr::call(Type::Big, ours, duck, vec![arg])
                }
                _ => {
                    let args = vec![self.expr(Kind::Whole, scope, depth), self.expr(Kind::Whole, scope, depth)];
                    let text = self.one(&["({0} & {1})", "({0} | {1})", "gcd({0}, {1})"]);
                    Expr::same(Type::Big, text, args)
                }
            }
            .named("rare"),
            0 | 1 => {
                let args = vec![self.expr(Kind::Whole, scope, depth), self.expr(Kind::Whole, scope, depth)];
                let text = self.one(&["({0} + {1})", "({0} - {1})"]);
                arithmetic(args, text, text)
            }
            2 => {
                let args = vec![self.expr(Kind::Whole, scope, depth), self.literal(Kind::Whole, scope.above)];
                arithmetic(args, "({0} * {1})", "({0} * {1})")
            }
            3 if scope.above && self.is_on("division") => {
                let args = vec![self.expr(Kind::Whole, scope, depth), self.expr(Kind::Whole, scope, depth)];
                let (ours, duck) = self.one(&[("({0} / {1})", "({0} // {1})"), ("({0} % {1})", "({0} % {1})")]);
                arithmetic(args, ours, duck).named("division")
            }
            3 | 4 => {
                let args = vec![self.expr(Kind::Whole, scope, depth), self.expr(Kind::Whole, scope, depth)];
                let (ours, duck) = self.one(&[
                    ("({0} / NULLIF({1}, 0))", "({0} // NULLIF({1}, 0))"),
                    ("({0} % NULLIF({1}, 0))", "({0} % NULLIF({1}, 0))"),
                ]);
                arithmetic(args, ours, duck)
            }
            5 => {
                let args = vec![self.expr(Kind::Whole, scope, depth)];
                let text = self.one(&["abs({0})", "(- {0})"]);
                arithmetic(args, text, text)
            }
            6 => {
                let text = self.expr(Kind::Text, scope, depth);
                Expr::same(Type::Big, self.one(&["length({0})", "strpos({0}, 'a')"]), vec![text]).named("texts")
            }
            7 | 8 => {
                let time = self.expr(Kind::Time, scope, depth);
                let part = self.one(&PARTS);
                Expr::same(Type::Big, format!("CAST(date_part('{part}', {{0}}) AS BIGINT)"), vec![time])
                    .named("date_part")
            }
            _ => {
                let kind = self.one(&[Kind::Double, Kind::Decimal]);
                let number = if scope.above { self.expr(kind, scope, depth) } else { self.leaf(kind, scope) };
                Expr::call(Type::Big, "CAST({0} AS BIGINT)", "CAST(trunc({0}) AS BIGINT)", vec![number])
                    .named("cast_whole")
            }
        }
    }

    pub fn double(&mut self, scope: &Scope, depth: usize) -> Expr {
        let of = Type::Double;
        match self.rng.random_range(0..9) {
            8 if self.is_on("rare") => {
                let number = self.expr(Kind::Double, scope, depth);
                let (ours, duck) = self.one(&[
                    ("CAST(CAST({0} AS FLOAT) AS DOUBLE)", "CAST(CAST({0} AS FLOAT) AS DOUBLE)"),
                    ("power({0}, 2)", "power({0}, 2)"),
                    ("signum({0})", "CAST(sign({0}) AS DOUBLE)"),
                    ("log2(abs({0}) + CAST(1 AS DOUBLE))", "log2(abs({0}) + CAST(1 AS DOUBLE))"),
                    ("cos({0})", "cos({0})"),
                    ("exp(least({0}, CAST(3 AS DOUBLE)))", "exp(least({0}, CAST(3 AS DOUBLE)))"),
                    ("CAST(CAST({0} AS DECIMAL(20,1)) AS DOUBLE)", "CAST(CAST({0} AS DECIMAL(20,1)) AS DOUBLE)"),
                ]);
                Expr::call(of, ours, duck, vec![number]).named("rare")
            }
            0 | 1 => {
                let args = vec![self.expr(Kind::Double, scope, depth), self.expr(Kind::Double, scope, depth)];
                Expr::same(of, self.one(&["({0} + {1})", "({0} - {1})", "({0} * {1})"]), args).named("floats")
            }
            2 => {
                let args = vec![self.expr(Kind::Double, scope, depth), self.expr(Kind::Double, scope, depth)];
                if scope.above && self.is_on("division") {
                    return Expr::same(of, "({0} / {1})", args).named("division");
                }
                Expr::same(of, "({0} / NULLIF({1}, CAST(0 AS DOUBLE)))", args).named("floats")
            }
            3 => {
                let number = self.expr(Kind::Whole, scope, depth);
                Expr::same(of, "CAST({0} AS DOUBLE)", vec![number]).named("cast_double")
            }
            4 => {
                let number = self.expr(Kind::Decimal, scope, depth);
                Expr::same(of, "CAST({0} AS DOUBLE)", vec![number]).named("cast_double")
            }
            5 => {
                let number = self.expr(Kind::Double, scope, depth);
                if scope.above && self.is_on("division") {
                    return Expr::same(of, self.one(&["sqrt({0})", "ln({0})"]), vec![number]).named("roots");
                }
                Expr::same(of, "sqrt(abs({0}))", vec![number]).named("roots")
            }
            _ => {
                let number = self.expr(Kind::Double, scope, depth);
                let function = self.one(&[
                    "abs({0})",
                    "floor({0})",
                    "ceil({0})",
                    "trunc({0})",
                    "round({0})",
                    "round({0}, 2)",
                    "(- {0})",
                ]);
                Expr::same(of, function, vec![number]).named("rounding")
            }
        }
    }
}
