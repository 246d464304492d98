//! One SQLite file: log, tables, fences and dead letters for the laptop and the tests.
