//! librdkafka's queues, many records per call. The safe API creates an event and counts references for every single record,
//! which costs more than decompressing it. Only this module and `topic_id` bypass it.
#![expect(unsafe_code, reason = "records are read in place from librdkafka's memory; each block says why it may")]

use std::{
    ffi::{CStr, CString, c_void},
    ptr, slice,
    sync::Arc,
    time::Duration,
};

use millstream_core::{BatchBuilder, Header};
use rdkafka::{
    bindings as c,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::RDKafkaErrorCode,
};

use crate::bell::Bell;

/// Records taken from librdkafka's queue per call.
const CHUNK: usize = 1_000;

/// A queue of records of one partition, and the records taken out of it that were not handed out yet.
pub(crate) struct Queue<C: ConsumerContext + 'static> {
    queue: *mut c::rd_kafka_queue_t,
    /// The topic and partition whose fetching this queue began, if it did.
    started: Option<(*mut c::rd_kafka_topic_t, i32)>,
    taken: Vec<*mut c::rd_kafka_message_t>,
    next: usize,
    /// What librdkafka rings when the queue is no longer empty.
    bell: Option<Arc<Bell>>,
    /// Last, so that the client outlives everything above.
    consumer: Arc<BaseConsumer<C>>,
}

// SAFETY: librdkafka's handles may be used from any thread, messages too; a `Queue` has one owner at a time and lends
// nothing that outlives a borrow of it.
unsafe impl<C: ConsumerContext> Send for Queue<C> {}

impl<C: ConsumerContext> Queue<C> {
    /// Splits a partition off the consumer's own queue. To be called before the partition is assigned: librdkafka looks
    /// at the split when it begins to fetch, so that no record ever goes the common way.
    pub(crate) fn split(consumer: &Arc<BaseConsumer<C>>, topic: &str, partition: i32) -> Option<Self> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client lives as long as `consumer`, `topic` ends in a zero byte, and librdkafka keeps neither.
        let queue =
            unsafe { c::rd_kafka_queue_get_partition(consumer.client().native_ptr(), topic.as_ptr(), partition) };
        if queue.is_null() {
            return None;
        }
        // SAFETY: `queue` is valid; forwarding to null keeps its records in it.
        unsafe { c::rd_kafka_queue_forward(queue, ptr::null_mut()) };
        Some(Self::of(queue, consumer))
    }

    /// A queue of its own, for [`Queue::start`].
    pub(crate) fn new(consumer: &Arc<BaseConsumer<C>>) -> Self {
        // SAFETY: the client lives as long as `consumer`; the call never fails.
        let queue = unsafe { c::rd_kafka_queue_new(consumer.client().native_ptr()) };
        Self::of(queue, consumer)
    }

    fn of(queue: *mut c::rd_kafka_queue_t, consumer: &Arc<BaseConsumer<C>>) -> Self {
        Self { queue, started: None, taken: Vec::with_capacity(CHUNK), next: 0, bell: None, consumer: consumer.clone() }
    }

    /// Has `bell` rung when records come into the empty queue.
    pub(crate) fn ring(&mut self, bell: Arc<Bell>) {
        let opaque = Arc::as_ptr(&bell).cast_mut().cast();
        // SAFETY: librdkafka calls while it holds the queue's lock, which `drop` takes before the bell is gone.
        unsafe { c::rd_kafka_queue_cb_event_enable(self.queue, Some(ring), opaque) };
        self.bell = Some(bell);
    }

    /// The client that fills this queue.
    pub(crate) fn consumer(&self) -> &Arc<BaseConsumer<C>> {
        &self.consumer
    }

    /// Fetches a partition from `offset` on into this queue, outside every group. False when librdkafka won't.
    pub(crate) fn start(&mut self, topic: &str, partition: i32, offset: i64) -> bool {
        self.stop();
        let Ok(name) = CString::new(topic) else { return false };
        // SAFETY: the client lives, `name` ends in a zero byte and is copied, and no configuration means the client's.
        let topic =
            unsafe { c::rd_kafka_topic_new(self.consumer.client().native_ptr(), name.as_ptr(), ptr::null_mut()) };
        if topic.is_null() {
            return false;
        }
        // SAFETY: both handles are valid and stay so until `stop`.
        let started = unsafe { c::rd_kafka_consume_start_queue(topic, partition, offset, self.queue) } == 0;
        if started {
            self.started = Some((topic, partition));
        } else {
            // SAFETY: `topic` came from `rd_kafka_topic_new` and is not used again.
            unsafe { c::rd_kafka_topic_destroy(topic) };
        }
        started
    }

    /// Ends what [`Queue::start`] began, and drops the records that were read ahead.
    pub(crate) fn stop(&mut self) {
        if let Some((topic, partition)) = self.started.take() {
            // SAFETY: `start` made the handle, and it is not used after this.
            unsafe {
                c::rd_kafka_consume_stop(topic, partition);
                c::rd_kafka_topic_destroy(topic);
            }
        }
        self.drop_taken();
    }

    /// Takes records out of librdkafka's queue, if none are at hand; waits up to `wait` for the first.
    pub(crate) fn fill(&mut self, wait: Duration) {
        if self.next < self.taken.len() {
            return;
        }
        self.taken.clear();
        self.next = 0;
        self.take(CHUNK, 0);
        if self.taken.is_empty() && !wait.is_zero() {
            // librdkafka waits until it has as many as it was asked for: one, then.
            self.take(1, wait.as_millis().max(1) as i32);
        }
    }

    fn take(&mut self, records: usize, wait_ms: i32) {
        debug_assert!(self.taken.is_empty() && self.taken.capacity() >= records);
        // SAFETY: `taken` has room for `records` pointers; librdkafka writes as many as it says, and gives them to us.
        unsafe {
            let taken = c::rd_kafka_consume_batch_queue(self.queue, wait_ms, self.taken.as_mut_ptr(), records);
            self.taken.set_len(usize::try_from(taken).unwrap_or(0));
        }
    }

    /// The next record at hand, or what librdkafka says in its place.
    pub(crate) fn peek(&self) -> Option<Result<Record<'_>, Notice>> {
        let message = *self.taken.get(self.next)?;
        // SAFETY: the pointers from `next` on are messages that are ours until `advance`, which needs `&mut self`.
        let message = unsafe { &*message };
        let code = RDKafkaErrorCode::from(message.err);
        Some(if code == RDKafkaErrorCode::NoError {
            Ok(Record { message })
        } else {
            Err(Notice { code, offset: message.offset })
        })
    }

    /// Goes on to the next record.
    pub(crate) fn advance(&mut self) {
        if let Some(message) = self.taken.get(self.next) {
            // SAFETY: the message is ours, and below `next` from now on, so it is not read again.
            unsafe { c::rd_kafka_message_destroy(*message) };
            self.next += 1;
        }
    }

    fn drop_taken(&mut self) {
        while self.next < self.taken.len() {
            self.advance();
        }
    }
}

impl<C: ConsumerContext> Drop for Queue<C> {
    fn drop(&mut self) {
        self.stop();
        if self.bell.is_some() {
            // SAFETY: the queue is valid, and no call is under way when this returns.
            unsafe { c::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut()) };
        }
        // SAFETY: the handle is ours, all its messages are gone, and the client still lives.
        unsafe { c::rd_kafka_queue_destroy(self.queue) };
    }
}

/// What librdkafka calls when a queue is no longer empty.
unsafe extern "C" fn ring(_: *mut c::rd_kafka_t, bell: *mut c_void) {
    // SAFETY: `Queue::ring` has passed a bell, which lives until the queue has been told to ring no more.
    unsafe { &*bell.cast::<Bell>() }.ring();
}

/// An event in a queue that is not a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notice {
    pub(crate) code: RDKafkaErrorCode,
    /// The offset it is about.
    pub(crate) offset: i64,
}

/// A record in librdkafka's memory.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a> {
    message: &'a c::rd_kafka_message_t,
}

impl<'a> Record<'a> {
    pub(crate) fn offset(&self) -> i64 {
        self.message.offset
    }

    /// Milliseconds since 1970, -1 where the log has none; and was it the broker that has stamped the record?
    pub(crate) fn timestamp_ms(&self) -> (i64, bool) {
        let mut kind = c::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid, and `kind` outlives the call.
        let timestamp_ms = unsafe { c::rd_kafka_message_timestamp(self.message, &mut kind) };
        (timestamp_ms, kind == c::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME)
    }

    /// Adds the record to a batch.
    pub(crate) fn push_to(&self, builder: &mut BatchBuilder) {
        let (timestamp_ms, by_broker) = self.timestamp_ms();
        builder.push(self.offset(), timestamp_ms, self.key(), self.value(), self.headers());
        if by_broker {
            builder.stamp_by_log();
        }
    }

    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: librdkafka keeps `key_len` bytes there until the message is destroyed, and null for no key.
        (!self.message.key.is_null())
            .then(|| unsafe { slice::from_raw_parts(self.message.key.cast(), self.message.key_len) })
    }

    pub(crate) fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: librdkafka keeps `len` bytes there until the message is destroyed, and null for a tombstone.
        (!self.message.payload.is_null())
            .then(|| unsafe { slice::from_raw_parts(self.message.payload.cast(), self.message.len) })
    }

    /// Key and value; headers are few and not worth counting twice.
    pub(crate) fn bytes(&self) -> usize {
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        length(self.key()) + length(self.value())
    }

    pub(crate) fn headers(&self) -> Headers<'a> {
        let mut headers = ptr::null_mut();
        if self.may_have_headers() {
            // SAFETY: the message is valid; the headers live as long as it does.
            unsafe { c::rd_kafka_message_headers(self.message, &mut headers) };
        }
        Headers { headers, next: 0, message: self.message }
    }

    /// Are there headers, as far as one can see? librdkafka makes and destroys a parser to find that there are none, which is an
    /// eighth of the cost of reading a record.
    ///
    /// In a record of format 2, which has the epoch of a leader, the value is followed by the number of headers
    /// (<https://kafka.apache.org/documentation/#record>): a zero byte is none.
    fn may_have_headers(&self) -> bool {
        // SAFETY: the message is valid.
        let is_format_2 = unsafe { c::rd_kafka_message_leader_epoch(self.message) } >= 0;
        // An empty value is elsewhere.
        if !is_format_2 || self.message.payload.is_null() || self.message.len == 0 {
            return true;
        }
        // SAFETY: librdkafka hands out a value in place, in the one piece of memory that holds its batch or the broker's answer, and a
        // broker takes no record of format 2 without a number of headers. A message of an older format that follows a batch of
        // format 2 in one answer has that one's epoch; what follows it is the next message or, at the end of the answer, the tagged
        // fields that each answer has since Kafka 2.7.
        unsafe { *self.message.payload.cast::<u8>().add(self.message.len) != 0 }
    }
}

/// The headers of a record, in order.
pub(crate) struct Headers<'a> {
    /// Null where the record has none.
    headers: *mut c::rd_kafka_headers_t,
    next: usize,
    /// What the bytes live as long as.
    #[expect(dead_code, reason = "it carries the lifetime")]
    message: &'a c::rd_kafka_message_t,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.headers.is_null() {
            return None;
        }
        let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the headers are valid while the message is; the three places outlive the call.
        let found = unsafe { c::rd_kafka_header_get_all(self.headers, self.next, &mut name, &mut value, &mut length) };
        if RDKafkaErrorCode::from(found) != RDKafkaErrorCode::NoError {
            return None;
        }
        self.next += 1;
        // SAFETY: on success `name` ends in a zero byte, and both live as long as the message.
        let name = unsafe { CStr::from_ptr(name) }.to_str().unwrap_or("\u{fffd}");
        let value: &[u8] = if value.is_null() {
            &[]
        } else {
            // SAFETY: `length` bytes are there.
            unsafe { slice::from_raw_parts(value.cast(), length) }
        };
        Some((name, value))
    }
}
