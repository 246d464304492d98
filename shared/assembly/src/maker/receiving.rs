use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::{Request, Response};
use millstream_core::{Env, Result};
use millstream_host::Receive;
use millstream_ingest::Webhook;
use millstream_pipeline::{Topic, Webhook as Declared};

use super::{Count, Sending};

/// Takes records over HTTP.
pub(super) struct Receiving {
    id: String,
    webhook: Webhook,
    count: Arc<Count>,
}

impl Receiving {
    pub(super) fn new(
        sending: Sending,
        name: &str,
        topic: (&str, &Topic),
        (declared, key): (&Declared, Option<&str>),
        env: &Env,
    ) -> Result<Self> {
        let Sending { id, producer, clock, count, .. } = sending;
        let webhook = Webhook::new(name, topic, declared, key, env, producer, clock)?;
        Ok(Self { id, webhook, count })
    }
}

#[async_trait]
impl Receive for Receiving {
    fn function(&self) -> &str {
        &self.id
    }

    fn max_body_bytes(&self) -> usize {
        self.webhook.max_bytes()
    }

    fn max_in_flight(&self) -> usize {
        self.webhook.max_in_flight()
    }

    fn admit(&self, head: &Request<()>) -> Result<(), Box<Response<Bytes>>> {
        self.webhook.admit(head)
    }

    fn refuse_too_large(&self) -> Response<Bytes> {
        self.webhook.refuse_too_large()
    }

    fn refuse_busy(&self) -> Response<Bytes> {
        self.webhook.refuse_busy()
    }

    async fn receive(&self, request: Request<Bytes>) -> Response<Bytes> {
        self.webhook.receive(request, |positions| self.count.add(positions)).await
    }
}
