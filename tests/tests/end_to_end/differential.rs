//! Generated statements over generated records give the same results in both stores as in DuckDB. `tests/differential`
//! runs more of them.

use std::collections::BTreeSet;

use millstream_tests::{
    differential::{Setting, differential},
    setting,
};

async fn run(seed: u64, statements: u64) {
    let summary = differential(Setting {
        statements,
        cuts: 4,
        seed,
        embedded: true,
        postgres: Some(setting("MILLSTREAM_TEST_POSTGRES")),
        jobs: 2,
        without: BTreeSet::new(),
        python: setting("MILLSTREAM_TEST_DUCKDB").into(),
        max_shown: 3,
        shrink: true,
        verbose: false,
    })
    .await;
    assert!(summary.differences.is_empty(), "seed {seed}:\n{summary}");
    assert!(summary.accepted * 10 > summary.statements * 7, "most statements are refused: {summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_the_results_of_other_engines() {
    run(1, 100).await;
    #[expect(clippy::disallowed_methods, reason = "each run has other statements; the seed is printed")]
    let seed = u64::from(rand::random::<u32>());
    run(seed, 50).await;
}
