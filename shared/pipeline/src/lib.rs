//! The pipeline file: what a team writes, read and checked once, for every command, function and test.
//!
//! ```
//! use millstream_pipeline::{Function, Pipeline, System};
//!
//! let text = r#"
//! name: shop
//! topics:
//!   orders:
//!     partitions: 3
//!     schema: { product: string not null, price: "decimal(18,2) not null", at: timestamp not null }
//!     event_time: at
//! functions:
//!   sales:
//!     uses: aggregate
//!     from: orders
//!     sql: |
//!       SELECT tumble(at, INTERVAL '1 minute') AS minute, product, sum(price) AS revenue
//!       FROM orders GROUP BY 1, 2
//!     into: postgres.sales
//! "#;
//! let pipeline = Pipeline::parse(text, "shop/pipeline.yaml".as_ref()).unwrap();
//! let sales = &pipeline.functions["sales"];
//! assert_eq!((sales.into.system, sales.into.name.as_str()), (System::Postgres, "sales"));
//! assert_eq!(sales.sql.as_ref().unwrap().line, 13, "where an error in the SQL is reported");
//! assert_eq!(Function::id(&pipeline.name, "sales"), "shop.sales");
//!
//! let mistakes = Pipeline::parse(&text.replace("from:", "form:"), "shop/pipeline.yaml".as_ref()).unwrap_err();
//! assert!(mistakes[0].to_string().starts_with("shop/pipeline.yaml:11:5: unknown field `form` in function `sales`"));
//! ```
//!
//! All mistakes of a file are told at once, each with its line and column, what is allowed there, and what was probably
//! meant. Whether the SQL itself is right is for `millstream-sql`, which knows it; [`Located`] tells it where the SQL
//! stands. Terraform and Bicep read the same file with readers of their own, so it is plain YAML 1.2 with nothing clever.
//!
//! Addresses and secrets are never in that file: each system reads its own from the environment.

mod diagnostic;
mod fields;
mod function;
mod generate;
mod node;
mod pipeline;
mod reference;
mod schema;
mod topic;
mod types;

pub use diagnostic::Diagnostic;
pub use function::{Function, Located, System, Target, Uses};
pub use generate::{Generate, Generator};
pub use millstream_core::{Compression, Late, Limits as Batch, OnGap, Start, Tombstones};
pub use pipeline::{MAX_FILE_BYTES, Pipeline};
pub use reference::{ExpectedLetters, Fixture, Reference, ReferenceFrom};
pub use topic::{Format, Topic};
pub use types::EPOCH_METADATA;
