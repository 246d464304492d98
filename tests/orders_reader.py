"""Reads what the pipeline `orders` has made with the clients that its users have, and compares it with what they make of the
topics themselves. It shares no code with millstream, and not its statements either.

orders_reader.py NAME KAFKA CASSANDRA POSTGRES REDIS PRODUCTS

NAME is the prefix of the topics and of the cache's tables, and the keyspace. A difference is told on stderr and ends it with 1.
"""

import json
import sys
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import cassandra.cluster
import confluent_kafka
import psycopg
import pyarrow.parquet
import redis

name, kafka, cassandra_at, postgres_url, redis_url, products_file = sys.argv[1:]
NEEDED = ["order_id", "status", "customer_id", "product_id", "quantity", "amount", "method", "at"]
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def records(topic):
    """Every record of a topic as (partition, offset, object), partition by partition."""
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": kafka, "group.id": f"{name}-reader", "enable.auto.commit": False, "enable.partition.eof": True}
    )
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    for number in sorted(partitions):
        consumer.assign([confluent_kafka.TopicPartition(topic, number, confluent_kafka.OFFSET_BEGINNING)])
        while True:
            message = consumer.poll(30)
            assert message is not None, f"{topic}/{number} doesn't answer"
            if message.error():
                assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF, message.error()
                break
            yield number, message.offset(), json.loads(message.value())
    consumer.close()


def instant(text):
    return datetime.fromisoformat(text)


def microseconds(at):
    return (at - EPOCH) // timedelta(microseconds=1)


def hour_of(at):
    return at.replace(minute=0, second=0, microsecond=0)


def expected():
    """The good orders, enriched, in the order of their partitions; and the offsets that are taken."""
    customers = {}
    for _, _, customer in records(f"{name}_customers"):
        known = customers.get(customer["customer_id"])
        if known is None or instant(customer["at"]) >= instant(known["at"]):
            customers[customer["customer_id"]] = customer
    products = {row["product_id"]: row for row in pyarrow.parquet.read_table(products_file).to_pylist()}
    for _, _, order in records(f"{name}_orders"):
        if any(order.get(field) is None for field in NEEDED):
            continue
        customer, product = customers.get(order["customer_id"]), products.get(order["product_id"])
        amount, came_from = Decimal(order["amount"]), order.get("paid_from")
        is_abroad = customer is not None and came_from is not None and came_from != customer["country"]
        yield {
            "order_id": order["order_id"],
            "status": order["status"],
            "customer_id": order["customer_id"],
            "customer": customer and customer["name"],
            "product_id": order["product_id"],
            "product": product and product["name"],
            "category": product and product["category"],
            "quantity": order["quantity"],
            "amount": amount,
            "method": order["method"],
            "is_suspicious": came_from == "XX" or (is_abroad and amount >= 1000),
            "at": instant(order["at"]),
        }


def compare(what, found, wanted):
    if found == wanted:
        print(f"{what}: {len(found)} rows, no difference")
        return
    for side, rows, others in [("only found", found, wanted), ("only wanted", wanted, found)]:
        keys = rows if isinstance(rows, dict) else range(len(rows))
        odd = [(key, rows[key]) for key in keys if (key not in others if isinstance(others, dict) else rows[key] not in others)]
        print(f"{what}, {side}: {len(odd)}, such as {odd[:3]}", file=sys.stderr)
    if isinstance(found, dict):
        odd = [(key, found[key], wanted[key]) for key in found.keys() & wanted.keys() if found[key] != wanted[key]]
        print(f"{what}, other: {len(odd)}, such as {odd[:3]}", file=sys.stderr)
    sys.exit(1)


def as_row(values):
    return tuple(values[column] for column in COLUMNS)


orders = list(expected())
COLUMNS = list(orders[0])
newest = {order["order_id"]: as_row(order) for order in orders}

# The event store: each event once, at its place in the topic between; and the newest of each order.
host, port = cassandra_at.rsplit(":", 1)
cluster = cassandra.cluster.Cluster([host], port=int(port), compression=False)
session = cluster.connect(name)
session.default_fetch_size = 2000


def cassandra_row(row):
    values = row._asdict()
    values["at"] = EPOCH + timedelta(microseconds=values["at"])
    return as_row(values)


listed = ", ".join(COLUMNS)
rows = list(session.execute(f"SELECT {listed} FROM order_events", timeout=120))
compare("event store", sorted(map(repr, map(cassandra_row, rows))), sorted(repr(as_row(order)) for order in orders))
rows = session.execute(f"SELECT {listed} FROM order_events_newest", timeout=120)
compare("newest orders", {row.order_id: cassandra_row(row) for row in rows}, newest)
positions = list(session.execute('SELECT "_partition", "_offset", order_id FROM order_events', timeout=120))
between = {(partition, offset): order["order_id"] for partition, offset, order in records(f"{name}_enriched")}
stored = {(row[0], row[1]): row[2] for row in positions}
assert len(stored) == len(positions), "two rows at one position"
odd = [at for at, order in stored.items() if between.get(at) != order]
assert not odd, f"rows that are no record of the topic: {odd[:3]}"
cluster.shutdown()

# The reports.
revenue, suspicious, last = defaultdict(lambda: [0, 0, Decimal(0)]), defaultdict(lambda: [0, Decimal(0)]), {}
for order in orders:
    if order["status"] == "paid":
        sums = revenue[hour_of(order["at"]), order["product"]]
        sums[0], sums[1], sums[2] = sums[0] + 1, sums[1] + order["quantity"], sums[2] + order["amount"]
        if order["is_suspicious"]:
            sums = suspicious[hour_of(order["at"]), order["customer_id"]]
            sums[0], sums[1] = sums[0] + 1, sums[1] + order["amount"]
    events, at = last.get(order["customer_id"], (0, EPOCH))
    last[order["customer_id"]] = (events + 1, max(at, order["at"]))
with psycopg.connect(postgres_url) as connection:
    rows = connection.execute("SELECT hour, product, orders, pieces, revenue FROM revenue").fetchall()
    found = {(row[0].astimezone(timezone.utc), row[1]): [row[2], row[3], row[4]] for row in rows}
    assert len(found) == len(rows)
    compare("revenue", found, dict(revenue))
    rows = connection.execute("SELECT hour, customer_id, payments, amount FROM suspicious_payments").fetchall()
    found = {(row[0].astimezone(timezone.utc), row[1]): [row[2], row[3]] for row in rows}
    assert len(found) == len(rows)
    compare("suspicious payments", found, dict(suspicious))
    rows = connection.execute("SELECT customer_id, events, at, order_id, status FROM last_orders").fetchall()
    compare("last orders", {row[0]: (row[1], row[2].astimezone(timezone.utc)) for row in rows}, last)
    at_last = {(order["customer_id"], order["at"], order["order_id"], order["status"]) for order in orders}
    odd = [row for row in rows if (row[0], row[2].astimezone(timezone.utc), row[3], row[4]) not in at_last]
    assert not odd, f"last orders that no event is: {odd[:3]}"

# The cache.
cache = redis.Redis.from_url(redis_url, decode_responses=True)


def cached(fields):
    read = {"customer_id": int, "product_id": int, "quantity": int, "amount": Decimal, "at": instant, "is_suspicious": "true".__eq__}
    return tuple(
        None if column not in fields else read.get(column, str)(fields[column]) for column in COLUMNS
    )


keys = list(cache.scan_iter(f"{name}_order_states:*", count=5000))
found = {key.split("{", 1)[1][:-1]: cached(cache.hgetall(key)) for key in keys}
compare("order states", found, newest)
critical = [order for order in orders if order["status"] == "paid" and (order["is_suspicious"] or order["amount"] >= 5000)]
told = [entry for key in cache.scan_iter(f"{name}_critical_payments:*") for _, entry in cache.xrange(key)]
key_of = lambda order: (order["order_id"], str(order["customer_id"]), str(Decimal(order["amount"])), str(order["at"])[:19])
found = sorted(key_of({**entry, "at": instant(entry["at"])}) for entry in told)
compare("critical payments", found, sorted(map(key_of, critical)))
