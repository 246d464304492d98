//! The full run.

use millstream_core::Compression::{Gzip, Lz4, None as Uncompressed, Zstd};

use crate::{
    Failure, Place,
    backlog::{Kind, Shape},
    cached, cold,
    drain::{self, Beside},
    files, fill, hop, keep, latency, needed,
    table::Row,
};

const BANK: Shape = Shape::Bank { broken_every: 0 };
/// The duration of a round of a latency, in seconds.
const SECONDS: u64 = 15;
/// A cold start is short: it takes more rounds to say something.
const STARTS: usize = 21;

/// All workloads, one after the other. Its rows are told on stderr as they come, so that a failure late in a run loses nothing.
pub async fn measure(place: &Place, rounds: usize) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    let mut add = |added: Vec<Row>| {
        for row in &added {
            eprintln!("{row}");
        }
        rows.extend(added);
    };
    let bank = |events, partitions, compression| Kind { shape: BANK, events, partitions, compression };
    let of = |shape, events| Kind { shape, events, partitions: fill::PARTITIONS, compression: Gzip };
    let workloads = [
        ("W1, gzip", bank(5_000_000, 3, Gzip), Beside { broken_every: 1_000_000, ..Beside::default() }),
        ("W1, zstd", bank(5_000_000, 3, Zstd), Beside::default()),
        ("W1, lz4", bank(5_000_000, 3, Lz4), Beside::default()),
        ("W1, uncompressed", bank(5_000_000, 3, Uncompressed), Beside::default()),
        ("W1, gzip, 1 million", bank(1_000_000, 3, Gzip), Beside::default()),
        ("W1, gzip, 100 partitions", bank(5_000_000, 100, Gzip), Beside::default()),
        // With this many partitions, a group of the bank has a part in each: PostgreSQL merges a row for every two records. This one tells
        // what the partitions themselves cost.
        (
            "100 groups a batch, 100 partitions",
            Kind { partitions: 100, ..of(Shape::Accounts(100), 5_000_000) },
            Beside::default(),
        ),
        ("1 group a batch", of(Shape::Accounts(1), 5_000_000), Beside::default()),
        ("100 groups a batch", of(Shape::Accounts(100), 5_000_000), Beside::default()),
        ("100,000 groups a batch", of(Shape::Accounts(100_000), 1_000_000), Beside::default()),
        ("nested, 2 kB", of(Shape::Wide, 300_000), Beside::default()),
    ];
    for (name, kind, beside) in workloads {
        add(drain::w1(place, name, kind, rounds, beside).await?);
    }
    add(drain::w1(place, "W1, gzip, 50 million", bank(50_000_000, 3, Gzip), rounds.min(3), Beside::default()).await?);
    add(files::w2(place, 1_000_000, rounds).await?);
    add(hop::w3(place, 2_000_000, rounds).await?);
    add(keep::w4(place, &needed("MILLSTREAM_TEST_CASSANDRA")?, 300_000, rounds).await?);
    for rate in [1_000, 20_000] {
        for wait in [None, Some("5ms")] {
            add(latency::measure(place, (rate, SECONDS), wait, rounds).await?);
        }
    }
    add(cached::measure(place, &needed("MILLSTREAM_TEST_REDIS")?, (500, SECONDS), rounds).await?);
    add(cold::measure(place, STARTS).await?);
    add(vec![cold::package(&place.aggregate)?]);
    Ok(rows)
}
