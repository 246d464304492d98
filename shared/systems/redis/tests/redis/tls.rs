//! TLS, with the server's certificate checked.

use millstream_core::{Connect as _, Env, Error, TableStore as _};
use millstream_redis::Redis;

use crate::support::{Database, balances, held, ready, setting, texts, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_s_certificate_is_checked() {
    let plain = Database::create().await;
    let number = plain.url.rsplit('/').next().unwrap();
    let url = format!("{}/{number}", setting("MILLSTREAM_TEST_REDIS_TLS"));
    let with_ca = |ca: &str| {
        let env = Env::of([("MILLSTREAM_REDIS_URL", url.clone()), ("MILLSTREAM_REDIS_CA_FILE", ca.to_owned())]);
        Redis::open(&env).unwrap().unwrap().sink("test.function", balances()).unwrap()
    };
    let sink = with_ca(&setting("MILLSTREAM_TEST_CA"));
    let start = ready(&*sink).await;
    let of = [("ann", Some(1), None, 0)];
    write(&*sink, &start, &of).await.unwrap();
    assert_eq!(held(&*sink).await, texts(&of));
    for stranger in [
        with_ca(&setting("MILLSTREAM_TEST_OTHER_CA")),
        Redis::at(&url).unwrap().sink("test.function", balances()).unwrap(),
    ] {
        let error = stranger.prepare(false).await.unwrap_err();
        assert!(matches!(&error, Error::Retry(_)) && error.to_string().contains("certificate"), "{error}");
    }
}
