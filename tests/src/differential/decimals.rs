//! Random decimals, with the digits that DataFusion's rules give them.

use rand::Rng;

use super::{
    expr::Expr,
    expressions::{Kind, Maker, Scope},
    value::Type,
};

impl Maker<'_> {
    pub fn decimal(&mut self, scope: &Scope, depth: usize) -> Expr {
        match self.rng.random_range(0..9) {
            0 | 1 => {
                let other = self.one(&[Kind::Decimal, Kind::Whole]);
                let args = [self.expr(Kind::Decimal, scope, depth), self.expr(other, scope, depth)];
                let ((p1, s1), (p2, s2)) = (digits(&args[0].of), digits(&args[1].of));
                let scale = s1.max(s2);
                let precision = ((p1 - s1).max(p2 - s2) + scale + 1).min(38);
                let sign = self.one(&["+", "-"]);
                self.decimals(precision, scale, sign, args).named("decimals")
            }
            2 => {
                let other = self.one(&[Kind::Decimal, Kind::Whole]);
                let args = [self.leaf(Kind::Decimal, scope), self.leaf(other, scope)];
                let ((p1, s1), (p2, s2)) = (digits(&args[0].of), digits(&args[1].of));
                if p1 + p2 + 1 > 38 {
                    return args.into_iter().next().expect("two arguments");
                }
                self.decimals(p1 + p2 + 1, s1 + s2, "*", args).named("decimals")
            }
            3 => self.quotient(scope, depth),
            4 => {
                let number = self.expr(Kind::Whole, scope, depth);
                let of = Type::Decimal(22, self.one(&[0, 2]));
                Expr::call(
                    of.clone(),
                    format!("CAST({{0}} AS {})", of.ours()),
                    format!("CAST({{0}} AS {})", of.duck()),
                    vec![number],
                )
                .named("cast_decimal")
            }
            5 => {
                let number = self.expr(Kind::Decimal, scope, depth);
                let (precision, scale) = digits(&number.of);
                let to = self.rng.random_range(0..=scale);
                let of = Type::Decimal((precision + 1).min(38), to);
                Expr::call(
                    of.clone(),
                    format!("CAST({{0}} AS {})", of.ours()),
                    format!("CAST({{0}} AS {})", of.duck()),
                    vec![number],
                )
                .named("cast_decimal")
            }
            6 => {
                let number = self.expr(Kind::Decimal, scope, depth);
                let (precision, scale) = digits(&number.of);
                let to = self.rng.random_range(0..=scale);
                // DuckDB may choose another scale, so the result is cast to the expected one.
                let of = Type::Decimal((precision + 1).min(38), scale);
                let by = |name: String| format!("CAST(round({{0}}, {to}) AS {name})");
                Expr::call(of.clone(), by(of.ours()), by(of.duck()), vec![number]).named("rounding")
            }
            _ => {
                let number = self.expr(Kind::Decimal, scope, depth);
                let of = number.of.clone();
                Expr::same(of, self.one(&["abs({0})", "(- {0})"]), vec![number]).named("decimals")
            }
        }
    }

    fn decimals(&mut self, precision: u8, scale: u8, operator: &str, args: [Expr; 2]) -> Expr {
        let of = Type::Decimal(precision, scale);
        let wide =
            |index: usize| format!("CAST({{{index}}} AS {})", Type::Decimal(38, digits(&args[index].of).1).duck());
        let duck = format!("CAST(({} {operator} {}) AS {})", wide(0), wide(1), of.duck());
        Expr::call(of, format!("({{0}} {operator} {{1}})"), duck, args.into())
    }

    /// DataFusion cuts a quotient of decimals at four more digits than the numerator has.
    fn quotient(&mut self, scope: &Scope, depth: usize) -> Expr {
        let args = vec![self.leaf(Kind::Decimal, scope), self.expr(Kind::Decimal, scope, depth)];
        let ((p1, s1), (_, s2)) = (digits(&args[0].of), digits(&args[1].of));
        let scale = s1 + 4;
        if p1 + s2 + 4 > 38 {
            return args.into_iter().next().expect("two arguments");
        }
        let of = Type::Decimal((p1 + s2 + 4).min(38), scale);
        let power = "0".repeat(usize::from(s2 + 4));
        let zero = format!("CAST(0 AS {})", args[1].of.ours());
        let duck_of = |divisor: &str| {
            format!(
                "CAST(decimal_text((unscaled({{0}}) * CAST('1{power}' AS HUGEINT)) // unscaled({divisor}), {scale}) AS {})",
                of.duck()
            )
        };
        if scope.above && self.is_on("division") {
            return Expr::call(of.clone(), "({0} / {1})", duck_of("{1}"), args).named("division");
        }
        Expr::call(of.clone(), format!("({{0}} / NULLIF({{1}}, {zero}))"), duck_of("NULLIF({1}, 0)"), args)
            .named("decimal_division")
    }
}

/// The digits of a number as a decimal: all of them, and those after the decimal point.
pub fn digits(of: &Type) -> (u8, u8) {
    match of {
        Type::Decimal(precision, scale) => (*precision, *scale),
        Type::Int => (10, 0),
        _ => (20, 0),
    }
}
