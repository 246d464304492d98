//! Integer arithmetic that fails instead of wrapping: DataFusion's own `+`, `-` and `*` wrap.

use arrow::{compute::kernels::numeric, datatypes::DataType};
use datafusion::{
    common::{
        Result,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{
        BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
        ScalarUDFImpl, Signature, Volatility, expr_rewriter::NamePreserver, utils::merge_schema,
    },
    optimizer::AnalyzerRule,
};

/// Replaces integer arithmetic by [`Checked`], after types are known.
#[derive(Debug)]
pub struct CheckIntegers;

impl AnalyzerRule for CheckIntegers {
    fn name(&self) -> &'static str {
        "check_integers"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(check_node)?.data)
    }
}

fn check_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let checked = expr.transform_up(|expr| {
            let Expr::BinaryExpr(BinaryExpr { left, op, right }) = &expr else { return Ok(Transformed::no(expr)) };
            let integers = left.get_type(&schema)?.is_integer() && right.get_type(&schema)?.is_integer();
            let arithmetic = matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply);
            if !integers || !arithmetic {
                return Ok(Transformed::no(expr));
            }
            let function = ScalarUDF::new_from_impl(Checked::new(*op));
            Ok(Transformed::yes(function.call(vec![left.as_ref().clone(), right.as_ref().clone()])))
        })?;
        Ok(checked.update_data(|expr| name.restore(expr)))
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    op: Operator,
    signature: Signature,
}

impl Checked {
    fn new(op: Operator) -> Self {
        Self { op, signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.op {
            Operator::Plus => "__checked_add",
            Operator::Minus => "__checked_subtract",
            _ => "__checked_multiply",
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
        let (left, right) = (&arrays[0], &arrays[1]);
        let result = match self.op {
            Operator::Plus => numeric::add(left, right),
            Operator::Minus => numeric::sub(left, right),
            _ => numeric::mul(left, right),
        };
        Ok(ColumnarValue::Array(result?))
    }
}
