//! The minimum and maximum of doubles in one total order: NaN is the greatest, as in PostgreSQL. All NaNs are one
//! value, and so are `0.0` and `-0.0`.
//!
//! DataFusion's own `min` and `max` prefer a value that can't be compared, so that a NaN hides all values before it.
//! Here they run over integers that have the same order as the doubles; the result is turned back into a double.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray},
    datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type},
};
use datafusion::{
    common::{Result, internal_err},
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

/// A floating-point `expr` as an integer with the same order.
pub fn ordinal(expr: Expr) -> Expr {
    Turn::Ordinal.udf().call(vec![expr])
}

/// The floating-point value of an [`ordinal`].
pub fn of_ordinal(expr: Expr) -> Expr {
    Turn::Double.udf().call(vec![expr])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Turn {
    Ordinal,
    Double,
}

impl Turn {
    fn udf(self) -> ScalarUDF {
        ScalarUDF::new_from_impl(Turned { to: self, signature: Signature::any(1, Volatility::Immutable) })
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Turned {
    to: Turn,
    signature: Signature,
}

impl ScalarUDFImpl for Turned {
    fn name(&self) -> &'static str {
        match self.to {
            Turn::Ordinal => "__ordinal",
            Turn::Double => "__of_ordinal",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match &types[0] {
            DataType::Float64 => DataType::Int64,
            DataType::Float32 => DataType::Int32,
            DataType::Int64 => DataType::Float64,
            DataType::Int32 => DataType::Float32,
            other => return internal_err!("{other} is neither a double nor the ordinal of one"),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let column = args.args[0].to_array(args.number_rows)?;
        let turned: ArrayRef = match column.data_type() {
            DataType::Float64 => Arc::new(column.as_primitive::<Float64Type>().unary::<_, Int64Type>(ordinal_64)),
            DataType::Float32 => Arc::new(column.as_primitive::<Float32Type>().unary::<_, Int32Type>(ordinal_32)),
            DataType::Int64 => Arc::new(
                column.as_primitive::<Int64Type>().unary::<_, Float64Type>(|at| f64::from_bits(flipped_64(at) as u64)),
            ),
            DataType::Int32 => Arc::new(
                column.as_primitive::<Int32Type>().unary::<_, Float32Type>(|at| f32::from_bits(flipped_32(at) as u32)),
            ),
            other => return internal_err!("{other} is neither a double nor the ordinal of one"),
        };
        Ok(ColumnarValue::Array(turned))
    }
}

fn ordinal_64(value: f64) -> i64 {
    let one = if value.is_nan() { f64::NAN } else { value + 0.0 };
    flipped_64(one.to_bits() as i64)
}

fn ordinal_32(value: f32) -> i32 {
    let one = if value.is_nan() { f32::NAN } else { value + 0.0 };
    flipped_32(one.to_bits() as i32)
}

/// The lower a negative number is, the greater are its bits after the sign: they are flipped. Flipping twice restores
/// them.
fn flipped_64(bits: i64) -> i64 {
    bits ^ (bits >> 63 & i64::MAX)
}

fn flipped_32(bits: i32) -> i32 {
    bits ^ (bits >> 31 & i32::MAX)
}
