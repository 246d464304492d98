//! Fakes, the conformance suites and a local Lambda Runtime API, for tests.
