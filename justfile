# The build is outside the clone, as in tests/run.
export CARGO_TARGET_DIR := env("CARGO_TARGET_DIR", env("MILLSTREAM_CACHE", env("HOME") / ".cache/millstream") / "target")

# List the recipes
default:
    @just --list

# Run a pipeline here, without any service: events become a table
run pipeline="pipelines/bank":
    cargo run -- dev {{ pipeline }}

# Everything: formatting, lints, directions, all tests on real services
test *args:
    tests/run {{ args }}

# The tests that don't need services
unit *args:
    cargo test --workspace --lib --locked --features millstream-core/faults -- {{ args }}

# Compare generated statements in both stores with DuckDB: a long run
differential *args:
    tests/differential {{ args }}

# Start Kafka, PostgreSQL and PgBouncer (or those that are named) and keep them running; source the printed env file, stop with `just services-stop DIR`
services *names:
    @tests/services start {{ names }}

# Stop the services of a folder and remove their data
services-stop dir="":
    @tests/services stop {{ dir }}

# Formatting, clippy and the direction of dependencies
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked --features millstream-core/faults -- -D warnings
    tests/directions

# The workloads, compared with the bare consumer (the floor)
bench *args:
    bench/run

# Licences, sources and duplicate crates (needs cargo-deny)
deny:
    cargo deny check bans licenses sources
