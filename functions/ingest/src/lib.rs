//! Generator, schedule or HTTP to a topic.
