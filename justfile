# The build lies outside the clone, as in tests/run.
export CARGO_TARGET_DIR := env("CARGO_TARGET_DIR", env("MILLSTREAM_CACHE", env("HOME") / ".cache/millstream") / "target")

# List the recipes
default:
    @just --list

# Run a pipeline here, with nothing else installed: events become a table
run pipeline="pipelines/bank":
    cargo run -- dev {{ pipeline }}

# Everything: formatting, lints, directions, all tests on real services
test *args:
    tests/run {{ args }}

# The tests that need no service
unit *args:
    cargo test --workspace --lib --locked --features millstream-core/faults -- {{ args }}

# Generated statements in both stores against DuckDB: a long run
differential *args:
    tests/differential {{ args }}

# Start Kafka, PostgreSQL and PgBouncer and keep them; source the env file that is printed, stop with `just services-stop DIR`
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

# The workloads, beside the bare consumer (the floor)
bench *args:
    bench/run

# Licences, sources and doubled crates (needs cargo-deny)
deny:
    cargo deny check bans licenses sources
