//! Orders as the pipeline `orders` reads them, and what its stores, reports and cache must hold.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use millstream_core::NewRecord;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;

/// How many customers are known; an order may name one more, who isn't.
const CUSTOMERS: i64 = 40;
const COUNTRIES: [&str; 5] = ["BE", "CH", "DE", "GR", "NL"];
const STATUSES: [&str; 4] = ["placed", "paid", "shipped", "cancelled"];
/// The names in `pipelines/orders/products.parquet`, from number 1.
const PRODUCTS: [&str; 12] =
    ["Lamp", "Chair", "Desk", "Kettle", "Pan", "Knife", "Novel", "Atlas", "Tent", "Stove", "Boots", "Rope"];
/// 2026-11-20T23:30:00Z.
const FIRST_MS: i64 = 1_795_217_400_000;
const HOUR_MS: i64 = 3_600_000;

/// One event of an order, as it was sent.
#[derive(Clone, Debug)]
pub struct Order {
    /// The order.
    pub id: String,
    status: &'static str,
    customer: i64,
    product: usize,
    quantity: i64,
    cents: i64,
    paid_from: &'static str,
    at_ms: i64,
    is_broken: bool,
}

/// The country of a customer; none of one who isn't known.
fn country(customer: i64) -> Option<&'static str> {
    (customer <= CUSTOMERS).then(|| COUNTRIES[customer as usize % COUNTRIES.len()])
}

/// The records of the topic of customers: each of them twice, an older and a newer one.
pub fn customers() -> Vec<NewRecord> {
    let record = |customer: i64, country: &str, at_ms: i64| {
        let value =
            json!({ "customer_id": customer, "name": format!("c{customer}"), "country": country, "at": time(at_ms) });
        NewRecord { value: Some(value.to_string().into_bytes()), ..NewRecord::default() }
    };
    let both = |customer| {
        [
            record(customer, country(customer).unwrap(), FIRST_MS - HOUR_MS),
            record(customer, "XX", FIRST_MS - 2 * HOUR_MS),
        ]
    };
    (1..=CUSTOMERS).flat_map(both).collect()
}

/// `count` events of `count / 4` orders, out of order; one in `bad_every` is broken.
pub fn orders(seed: u64, count: usize, bad_every: usize) -> Vec<Order> {
    let mut random = StdRng::seed_from_u64(seed);
    let event = |at: usize| Order {
        id: format!("o-{}-{}", seed, random.random_range(0..count.div_ceil(4))),
        status: STATUSES[random.random_range(0..STATUSES.len())],
        customer: random.random_range(1..=CUSTOMERS + 1),
        product: random.random_range(0..=PRODUCTS.len()),
        quantity: random.random_range(1..6),
        cents: random.random_range(100..700_000),
        paid_from: if random.random_range(0..10) == 0 {
            "XX"
        } else {
            COUNTRIES[random.random_range(0..COUNTRIES.len())]
        },
        // Times in an order may go back, and none comes twice: the last event of a customer is one event.
        at_ms: FIRST_MS + (at as i64 * 7 + random.random_range(0..7)) * 997 % (2 * HOUR_MS),
        is_broken: at % bad_every == bad_every - 1,
    };
    (0..count).map(event).collect()
}

fn time(at_ms: i64) -> String {
    DateTime::from_timestamp_millis(at_ms).unwrap().to_rfc3339_opts(SecondsFormat::Millis, true)
}

impl Order {
    /// The record in the topic.
    pub fn record(&self) -> NewRecord {
        let amount = format!("{}.{:02}", self.cents / 100, self.cents % 100);
        let value = json!({
            "order_id": self.id, "status": self.status, "customer_id": self.customer, "product_id": self.product + 1,
            "quantity": self.quantity, "amount": amount, "method": "card", "paid_from": self.paid_from, "at": time(self.at_ms),
        });
        let value =
            if self.is_broken { value.to_string().replace("\"quantity\"", "\"pieces\"") } else { value.to_string() };
        NewRecord { key: Some(self.id.clone().into_bytes()), value: Some(value.into_bytes()), ..NewRecord::default() }
    }

    /// Can it be read?
    pub fn is_good(&self) -> bool {
        !self.is_broken
    }

    fn is_paid(&self) -> bool {
        self.is_good() && self.status == "paid"
    }

    fn is_suspicious(&self) -> bool {
        let is_abroad = country(self.customer).is_some_and(|country| country != self.paid_from);
        self.paid_from == "XX" || is_abroad && self.cents >= 100_000
    }

    /// Is it among the critical payments?
    pub fn is_critical(&self) -> bool {
        self.is_paid() && (self.is_suspicious() || self.cents >= 500_000)
    }

    /// Status, customer and cents: what is compared of an event.
    pub fn state(&self) -> (String, i64, i64) {
        (self.status.to_owned(), self.customer, self.cents)
    }
}

/// By hour (in seconds since 1970) and product: payments, pieces and cents.
pub type Revenue = BTreeMap<(i64, Option<String>), (i64, i64, i64)>;

/// What the report of revenue must hold.
pub fn revenue<'a>(orders: impl IntoIterator<Item = &'a Order>) -> Revenue {
    let mut revenue = Revenue::new();
    for order in orders.into_iter().filter(|order| order.is_paid()) {
        let product = PRODUCTS.get(order.product).map(|name| (*name).to_owned());
        let sums = revenue.entry((order.at_ms.div_euclid(HOUR_MS) * 3_600, product)).or_default();
        *sums = (sums.0 + 1, sums.1 + order.quantity, sums.2 + order.cents);
    }
    revenue
}

/// By hour (in seconds since 1970) and customer: payments and cents.
pub fn suspicious<'a>(orders: impl IntoIterator<Item = &'a Order>) -> BTreeMap<(i64, i64), (i64, i64)> {
    let mut payments = BTreeMap::<_, (i64, i64)>::new();
    for order in orders.into_iter().filter(|order| order.is_paid() && order.is_suspicious()) {
        let sums = payments.entry((order.at_ms.div_euclid(HOUR_MS) * 3_600, order.customer)).or_default();
        *sums = (sums.0 + 1, sums.1 + order.cents);
    }
    payments
}

/// By customer: how many events, and the time of the last one in milliseconds since 1970.
pub fn last_orders<'a>(orders: impl IntoIterator<Item = &'a Order>) -> BTreeMap<i64, (i64, i64)> {
    let mut last = BTreeMap::<_, (i64, i64)>::new();
    for order in orders.into_iter().filter(|order| order.is_good()) {
        let (events, at_ms) = last.entry(order.customer).or_insert((0, i64::MIN));
        (*events, *at_ms) = (*events + 1, (*at_ms).max(order.at_ms));
    }
    last
}
