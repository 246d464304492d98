//! The id that a broker gave a topic (KIP-516). rust-rdkafka does not wrap librdkafka's `DescribeTopics`; this module does,
//! for one topic and its id.
#![expect(unsafe_code, reason = "librdkafka's admin calls; each block says why it may")]

use std::{
    ffi::{CStr, CString},
    ptr,
    time::Duration,
};

use rdkafka::{
    bindings as c,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::RDKafkaErrorCode as Code,
};

/// How much longer the answer is waited for than librdkafka itself waits.
const GRACE: Duration = Duration::from_secs(1);

/// The topic's id as text; none where the brokers know no ids. Waits for at most `timeout` and [`GRACE`].
pub(crate) fn topic_id<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<String>, Code> {
    let name = CString::new(topic).map_err(|_| Code::InvalidTopic)?;
    let client = client.client().native_ptr();
    // SAFETY: the client outlives this function, and so everything that is made of it here and destroyed by its guard.
    let queue = Owned(unsafe { c::rd_kafka_queue_new(client) }, c::rd_kafka_queue_destroy);
    // SAFETY: as above.
    let options = Owned(
        unsafe { c::rd_kafka_AdminOptions_new(client, c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS) },
        c::rd_kafka_AdminOptions_destroy,
    );
    let mut names = [name.as_ptr()];
    // SAFETY: the names end in a zero byte and are copied.
    let topics = Owned(
        unsafe { c::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()) },
        c::rd_kafka_TopicCollection_destroy,
    );
    let timeout_ms = timeout.as_millis() as i32;
    // SAFETY: the options are valid, and no text of an error is asked for.
    unsafe { c::rd_kafka_AdminOptions_set_request_timeout(options.0, timeout_ms, ptr::null_mut(), 0) };
    // SAFETY: all four handles are valid; librdkafka copies the names and options, and keeps the queue by its own count.
    unsafe { c::rd_kafka_DescribeTopics(client, topics.0, options.0, queue.0) };
    let patience_ms = (timeout + GRACE).as_millis() as i32;
    // SAFETY: the queue is valid. Nothing else is ever put into it.
    let event = Owned(unsafe { c::rd_kafka_queue_poll(queue.0, patience_ms) }, c::rd_kafka_event_destroy);
    if event.0.is_null() {
        return Err(Code::OperationTimedOut);
    }
    // SAFETY: the event is valid until it is destroyed at the end of this function, after the last look at its parts.
    unsafe { id_in(event.0) }
}

/// # Safety
/// `event` must be valid.
unsafe fn id_in(event: *mut c::rd_kafka_event_t) -> Result<Option<String>, Code> {
    // SAFETY: by the contract of this function; all that is asked for lives as long as the event, and each pointer is looked
    // at before it is followed.
    unsafe {
        no_error(Code::from(c::rd_kafka_event_error(event)))?;
        let result = c::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(Code::Fail);
        }
        let mut count = 0;
        let described = c::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if described.is_null() || count == 0 {
            return Err(Code::UnknownTopic);
        }
        // None stands for no error.
        let error = c::rd_kafka_TopicDescription_error(*described);
        if !error.is_null() {
            no_error(Code::from(c::rd_kafka_error_code(error)))?;
        }
        let id = c::rd_kafka_TopicDescription_topic_id(*described);
        if id.is_null() || is_zero(id) {
            return Ok(None);
        }
        let text = c::rd_kafka_Uuid_base64str(id);
        Ok((!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned()))
    }
}

/// # Safety
/// `id` must be valid.
unsafe fn is_zero(id: *const c::rd_kafka_Uuid_t) -> bool {
    // SAFETY: by the contract of this function.
    unsafe { c::rd_kafka_Uuid_least_significant_bits(id) == 0 && c::rd_kafka_Uuid_most_significant_bits(id) == 0 }
}

fn no_error(code: Code) -> Result<(), Code> {
    if code == Code::NoError { Ok(()) } else { Err(code) }
}

/// A handle of librdkafka, with what destroys it.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the handle came from librdkafka, has no other owner and is not used again.
            unsafe { (self.1)(self.0) };
        }
    }
}
