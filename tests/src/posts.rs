//! Posts as the pipeline `tweets` reads them, good and bad, and what it counts.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use millstream_core::NewRecord;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;

/// Texts, and which keywords the pipeline finds in them.
const TEXTS: [(&str, &[&str]); 17] = [
    ("Rust and KAFKA, and rust again", &["rust", "kafka"]),
    ("trust me, my bike is rusty", &[]),
    ("RT @ada: notes on event  streaming", &["event streaming"]),
    ("nothing to see here", &[]),
    ("昨夜東京で地震がありました", &["東京", "地震"]),
    ("İSTANBUL'da hava çok güzel", &["istanbul"]),
    ("Доброе утро, МОСКВА!", &["москва"]),
    ("RT @lukas: Straßenmusik in MÜNCHEN", &["München"]),
    ("서울에서는 비가 내리고 있어요", &["서울"]),
    ("อากาศที่กรุงเทพร้อนมาก", &["กรุงเทพ"]),
    ("kafka 🚀🚀 kafka", &["kafka", "🚀"]),
    ("القاهرة جميلة في المساء", &["القاهرة"]),
    ("नई दिल्ली में ठंड है", &["दिल्ली"]),
    ("#DataEngineering with #Postgres", &["#dataengineering", "postgres"]),
    ("Η Αθήνα το βράδυ", &["Αθήνα"]),
    ("dataengineering without the sign", &[]),
    // Portuguese, and clearly so: none of the languages that go through.
    ("Estamos a mudar toda a nossa plataforma de dados para Kafka, e ninguém dormiu esta semana", &[]),
];
const AUTHORS: [&str; 6] = ["ada", "bjorn", "carla", "dmitri", "eleni", "fatma"];
/// 2026-11-20T23:58:00Z: a longer log has posts before and after midnight.
const FIRST_MS: i64 = 1_795_219_080_000;
const MINUTE_MS: i64 = 60_000;

/// One post, as it was sent.
#[derive(Clone, Debug)]
pub struct Post {
    /// Its number; a post that was sent twice has the same one.
    pub id: i64,
    author: &'static str,
    text: usize,
    at_ms: i64,
    is_broken: bool,
}

/// Per minute (in seconds since 1970) and keyword: posts, and retweets among them.
pub type Counts = BTreeMap<(i64, String), (i64, i64)>;

/// `count` posts of three minutes, out of order and some of them late; one in fifteen is sent twice, and one in
/// `bad_every` is broken.
pub fn posts(seed: u64, count: usize, bad_every: usize) -> Vec<Post> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut posts = Vec::with_capacity(count);
    for at in 0..count {
        let late_ms = if random.random_range(0..10) == 0 { 2 * MINUTE_MS } else { random.random_range(0..5_000) };
        let post = Post {
            id: random.random_range(1..1_000_000_000_000),
            author: AUTHORS[random.random_range(0..AUTHORS.len())],
            text: random.random_range(0..TEXTS.len()),
            at_ms: FIRST_MS + at as i64 * 3 * MINUTE_MS / count as i64 - late_ms,
            is_broken: at % bad_every == bad_every - 1,
        };
        posts.extend((random.random_range(0..15) == 0).then(|| post.clone()));
        posts.push(post);
    }
    posts
}

impl Post {
    /// The record in the topic.
    pub fn record(&self) -> NewRecord {
        let at = DateTime::from_timestamp_millis(self.at_ms).unwrap().to_rfc3339_opts(SecondsFormat::Millis, true);
        let whole = json!({ "id": self.id, "author": self.author, "text": TEXTS[self.text].0, "at": at }).to_string();
        let value = if self.is_broken { whole.replace("\"text\"", "\"txt\"") } else { whole };
        NewRecord {
            key: Some(self.author.into()),
            value: Some(value.into_bytes()),
            timestamp_ms: Some(self.at_ms),
            ..NewRecord::default()
        }
    }

    /// Can it be read?
    pub fn is_good(&self) -> bool {
        !self.is_broken
    }

    /// Does it go through the filter?
    pub fn is_chosen(&self) -> bool {
        self.is_good() && !TEXTS[self.text].1.is_empty()
    }
}

/// What the pipeline must count.
pub fn counts<'a>(posts: impl IntoIterator<Item = &'a Post>) -> Counts {
    let mut counts = Counts::new();
    for post in posts.into_iter().filter(|post| post.is_chosen()) {
        let (text, keywords) = TEXTS[post.text];
        let minute_s = post.at_ms.div_euclid(MINUTE_MS) * 60;
        for keyword in keywords {
            let (all, retweets) = counts.entry((minute_s, (*keyword).to_owned())).or_default();
            *all += 1;
            *retweets += i64::from(text.starts_with("RT @"));
        }
    }
    counts
}
