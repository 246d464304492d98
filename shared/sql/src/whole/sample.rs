//! A part of the groups, chosen by their keys alone.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray},
    compute::unary,
    datatypes::{DataType, Float32Type, Float64Type},
    error::ArrowError,
    row::{RowConverter, SortField},
};
use datafusion::{
    common::Result,
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use twox_hash::XxHash64;

/// Which keys are in a sample: those whose hash is small enough. The same keys for the same seed, wherever they come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sample {
    seed: u64,
    /// The largest hash that is in it.
    most: u64,
}

impl Sample {
    /// About this share of the keys, above 0 and at most 1; another seed gives other keys.
    pub fn new(share: f64, seed: u64) -> Self {
        // A float above the largest number becomes the largest number.
        Self { seed, most: (share * u64::MAX as f64) as u64 }
    }

    /// Which rows of these key columns are in it. There is at least one column.
    ///
    /// # Errors
    /// Of a type that can't be compared.
    pub fn mask(&self, keys: &[ArrayRef]) -> Result<BooleanArray, ArrowError> {
        let fields = keys.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let keys: Vec<ArrayRef> = keys.iter().map(one_zero).collect();
        let rows = RowConverter::new(fields)?.convert_columns(&keys)?;
        Ok(rows.iter().map(|row| Some(XxHash64::oneshot(self.seed, row.as_ref()) <= self.most)).collect())
    }

    /// Is the row with these keys in it?
    pub(super) fn of(self, keys: Vec<Expr>) -> Expr {
        let signature = Signature::variadic_any(Volatility::Immutable);
        ScalarUDF::new_from_impl(InSample { sample: self, signature }).call(keys)
    }
}

/// Turns -0.0 into 0.0, and every NaN into the same one: stores and groups don't tell them apart.
pub fn one_zero(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => Arc::new(unary::<_, _, Float64Type>(column.as_primitive::<Float64Type>(), |value| {
            if value.is_nan() { f64::NAN } else { value + 0.0 }
        })),
        DataType::Float32 => Arc::new(unary::<_, _, Float32Type>(column.as_primitive::<Float32Type>(), |value| {
            if value.is_nan() { f32::NAN } else { value + 0.0 }
        })),
        _ => Arc::clone(column),
    }
}

/// [`Sample::mask`] as a function of the plain engine.
#[derive(Debug, PartialEq, Eq, Hash)]
struct InSample {
    sample: Sample,
    signature: Signature,
}

impl ScalarUDFImpl for InSample {
    fn name(&self) -> &'static str {
        "__in_sample"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let keys = args.args.iter().map(|key| key.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array(Arc::new(self.sample.mask(&keys)?)))
    }
}
