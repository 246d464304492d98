//! The pipeline file: what a team writes, read and checked once, for every command, function and test.
//!
//! ```
//! use millstream_pipeline::{Function, Pipeline};
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
//! assert_eq!(sales.into.to_string(), "postgres.sales");
//! let reading = sales.reading().unwrap();
//! assert_eq!(reading.from[0].to_string(), "topic.orders");
//! assert_eq!(reading.sql.line, 13, "where an error in the SQL is reported");
//! assert_eq!(Function::id(&pipeline.name, "sales"), "shop.sales");
//!
//! let mistakes = Pipeline::parse(&text.replace("from:", "form:"), "shop/pipeline.yaml".as_ref()).unwrap_err();
//! assert!(mistakes[0].to_string().starts_with("shop/pipeline.yaml:11:5: unknown field `form` in function `sales`"));
//! ```
//!
//! All mistakes of a file are reported at once, each with its line and column, what is allowed there, and what was probably
//! meant. `millstream-sql` checks the SQL itself; [`Statement`] says where in the file it is. Terraform and Bicep read the
//! same file with readers of their own, so it is plain YAML 1.2 with nothing clever.
//!
//! What can be in a file is written down once, as data: the kinds of functions, the systems, and the fields of each mapping.
//! The reader, [`Pipeline::json_schema`] and [`Pipeline::documentation`] all follow from these rows.
//!
//! Addresses and secrets are never in that file: each system reads its own from the environment.

mod chain;
mod circles;
mod declaration;
mod diagnostic;
mod documentation;
mod feeds;
mod fields;
mod fixture;
mod function;
mod generate;
mod kinds;
mod names;
mod node;
mod pipeline;
mod place;
mod poll;
mod reference;
mod schema;
mod shape;
mod systems;
mod topic;
mod types;
mod webhook;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use fields::{duration_ms, readable_ms};
pub use fixture::{ExpectedLetters, Fixture};
pub use function::{Function, Making, Origin, Reading, Statement, Work};
pub use generate::{Generate, Generator};
pub use kinds::Uses;
pub use millstream_core::{Compression, Late, Limits as Batch, OnGap, Start, Tombstones};
pub use pipeline::{MAX_FILE_BYTES, Pipeline};
pub use place::Place;
pub use poll::{Given, Poll, SECRET_PREFIX};
pub use reference::{Reference, ReferenceFrom};
pub use systems::System;
pub use topic::{Format, Topic};
pub use webhook::Webhook;
