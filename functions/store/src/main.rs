//! The `store` function as a deployable: on Lambda, in a container, or as a local process.
//!
//! It reads `MILLSTREAM_PIPELINE` (the pipeline file), `MILLSTREAM_FUNCTION` (which of its functions) and the connections
//! from its environment.

fn main() -> std::process::ExitCode {
    millstream_assembly::function_main(millstream_pipeline::Uses::Store)
}
