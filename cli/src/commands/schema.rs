use millstream_pipeline::Pipeline;

use crate::{Failure, context::Context};

/// `millstream schema`
pub(super) fn schema(context: &Context) -> Result<(), Failure> {
    context.say_json(&Pipeline::json_schema())
}
