//! Integer arithmetic that fails instead of wrapping: DataFusion's own `+`, `-` and `*` wrap, and so does negation.

use arrow::{compute::kernels::numeric, datatypes::DataType};
use datafusion::{
    common::{
        DFSchema, DataFusionError, Result,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{
        BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
        ScalarUDFImpl, Signature, Volatility,
    },
    optimizer::AnalyzerRule,
};

use crate::rewrite;

/// Replaces integer arithmetic by [`Checked`], once types are known.
#[derive(Debug)]
pub struct CheckIntegers;

impl AnalyzerRule for CheckIntegers {
    fn name(&self) -> &'static str {
        "check_integers"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        rewrite::expressions(plan, &|expr, schema| expr.transform_up(|expr| checked(expr, schema)))
    }
}

fn checked(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let is_integer = |expr: &Expr| Ok::<_, DataFusionError>(expr.get_type(schema)?.is_integer());
    let call = |op, args: Vec<Expr>| {
        let signature = Signature::any(args.len(), Volatility::Immutable);
        Ok(Transformed::yes(ScalarUDF::new_from_impl(Checked { op, signature }).call(args)))
    };
    match &expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_integer(left)? && is_integer(right)? => {
            let op = match op {
                Operator::Plus => Op::Add,
                Operator::Minus => Op::Subtract,
                Operator::Multiply => Op::Multiply,
                _ => return Ok(Transformed::no(expr)),
            };
            call(op, vec![left.as_ref().clone(), right.as_ref().clone()])
        }
        Expr::Negative(inner) if is_integer(inner)? => call(Op::Negate, vec![inner.as_ref().clone()]),
        _ => Ok(Transformed::no(expr)),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Op {
    Add,
    Subtract,
    Multiply,
    Negate,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    op: Op,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.op {
            Op::Add => "__checked_add",
            Op::Subtract => "__checked_subtract",
            Op::Multiply => "__checked_multiply",
            Op::Negate => "__checked_negate",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let result = match self.op {
            Op::Add => numeric::add(&arrays[0], &arrays[1]),
            Op::Subtract => numeric::sub(&arrays[0], &arrays[1]),
            Op::Multiply => numeric::mul(&arrays[0], &arrays[1]),
            Op::Negate => numeric::neg(arrays[0].as_ref()),
        };
        Ok(ColumnarValue::Array(result?))
    }
}
