//! `kafka-upstream`: sends requests to a topic of Kafka, in place of a backend.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: orders
//! plugin: kafka-upstream
//! config:
//!   bootstrap_servers: [{host: kafka.shop.svc, port: 9092}]
//!   topic: orders
//!   forward_method: true
//!   forward_uri: true
//!   producer_async: false
//! ```
//!
//! A topic takes the place of the backend: the request is never forwarded, and the rule needs no backend. The client
//! gets 200 and `{"message":"message sent"}`. What other plugins and the authorization server of the rule reject does
//! not reach the topic. The message is a JSON object with the request that a backend would get: as other plugins, the
//! authorization server and the filters of the rule have changed it. Mirrors, timeouts and retries cannot apply, so a
//! rule with them is invalid; sessions have no effect.
//!
//! By default the client gets its response before brokers have the message, as in Kong: the message may be lost if
//! brokers do not respond, or if Portico stops. With `producer_async: false` the client gets its response when brokers
//! have confirmed the message, or otherwise 500. A message that no broker has confirmed is sent again, so the topic may
//! have it twice.

mod config;
mod message;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode, request};

use crate::diagnostic::Diagnostic;
use crate::kafka::NO_SCHEMA_REGISTRY;
use crate::kafka::{AwaitedMessages, BatchedMessages, ConfiguredProducer, KafkaMessage, NotProduced, check_topic};
use crate::log_delivery::DeliveryReports;
use crate::plugin_api::batch_queue::BatchQueue;
use crate::plugin_api::dumped_fields::DumpedFields;
use crate::plugin_api::fields::UrlEncodedForm;
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind};
use crate::plugin_api::reply::ReplyBody;
use crate::plugin_api::{BackendReplacement, Plugin, ReplaceBackendCx, Reply};
use config::Config;
use message::MessageParts;

pub(crate) struct KafkaUpstream {
    delivery: MessageDelivery,
    parts: MessageParts,
    topic: Arc<str>,
    topics_parameter: Option<Box<str>>,
    allowed_topics: Box<[Arc<str>]>,
    key_parameter: Option<Box<str>>,
    max_message: usize,
}

enum MessageDelivery {
    Queued(Arc<BatchQueue>),
    Awaited(Arc<AwaitedMessages>),
}

/// The messages of a request, or the reply if there are none.
type Prepared = Result<Vec<KafkaMessage>, Box<Reply>>;

impl PluginKind for KafkaUpstream {
    const NAME: &'static str = "kafka-upstream";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 751;
    const PHASES: Phases = Phases::REPLACE_BACKEND;
    // Requests to a topic must not reach a backend.
    const FAIL_CLOSED: bool = true;
    const DUMPED_FIELDS: &'static [DumpedFields] =
        &[DumpedFields::new(&["schema_registry"], NO_SCHEMA_REGISTRY, "3.11")];
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let parts = MessageParts {
            method: config.forward_method,
            uri: config.forward_uri,
            headers: config.forward_headers,
            body: config.forward_body,
        };
        if parts == MessageParts::default() {
            let message = "and the three other fields `forward_…` are false, so messages would be empty";
            invalid.push(Diagnostic::in_config("forward_body", message, "set at least one of them to true"));
        }
        if !config.message_by_lua_functions.is_empty() {
            let remedy = "remove it, and select parts of the request with the fields `forward_…`";
            let message = "is not supported: messages are not changed by Lua";
            invalid.push(Diagnostic::in_config("message_by_lua_functions", message, remedy));
        }
        for (index, topic) in config.allowed_topics.iter().enumerate() {
            check_topic(&format!("allowed_topics[{index}]"), topic, &mut invalid);
        }
        if config.topics_query_arg.is_none() && !config.allowed_topics.is_empty() {
            let message = "has no effect without `topics_query_arg`";
            let remedy = "set `topics_query_arg` to the name of the query parameter, or remove it";
            invalid.push(Diagnostic::in_config("allowed_topics", message, remedy));
        }
        let configured = config.producer().build(cx).map_err(|errors| invalid.extend(errors));
        let (Ok(ConfiguredProducer { producer, queue, name }), []) = (configured, &invalid[..]) else {
            return Err(invalid);
        };
        let reports = || DeliveryReports::of("messages", "bootstrap_servers", cx);
        // Messages that wait are kept while the configuration stays the same.
        let delivery = if config.producer_async {
            let start = || BatchQueue::start(queue, Arc::new(BatchedMessages::new(producer, reports())), cx);
            MessageDelivery::Queued(cx.state.get_or_create(&name, start))
        } else {
            let start = || AwaitedMessages::start(producer, reports(), cx);
            MessageDelivery::Awaited(cx.state.get_or_create(&name, start))
        };
        Ok(KafkaUpstream {
            delivery,
            parts,
            topic: config.topic.into(),
            topics_parameter: config.topics_query_arg.map(String::into_boxed_str),
            allowed_topics: config.allowed_topics.into_iter().map(Arc::from).collect(),
            key_parameter: config.key_query_arg.map(String::into_boxed_str),
            max_message: config.producer_request_limits_bytes_per_request,
        })
    }
}

impl Plugin for KafkaUpstream {
    fn replace_backend<'a>(&'a self, cx: &'a mut ReplaceBackendCx<'_>) -> BackendReplacement<'a> {
        let messages = match self.prepare(cx) {
            Ok(messages) => messages,
            Err(reply) => return BackendReplacement::Reply(reply),
        };
        match &self.delivery {
            MessageDelivery::Queued(queue) => {
                messages.iter().for_each(|message| queue.push_for(&cx.route.namespace, message.to_entry()));
                BackendReplacement::Reply(sent())
            }
            MessageDelivery::Awaited(awaited) => BackendReplacement::Wait(Box::pin(async move {
                match awaited.send(cx.route, messages).await {
                    Ok(()) => sent(),
                    Err(NotProduced::Failed) => not_sent(),
                    Err(NotProduced::Busy) => {
                        let message = "Too many messages are waiting";
                        Reply::negotiated(StatusCode::SERVICE_UNAVAILABLE, message, "kafka_busy")
                    }
                }
            })),
        }
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        self.parts.body.then_some(self.max_message)
    }

    fn buffers_body(&self, _head: &request::Parts) -> bool {
        self.parts.body
    }
}

impl KafkaUpstream {
    fn prepare(&self, cx: &ReplaceBackendCx<'_>) -> Prepared {
        let query = cx.head.uri.query().unwrap_or_default();
        let topics = self.topics(query)?;
        let key = self.key_parameter.as_deref().and_then(|name| parameter(query, name)).map(Bytes::from);
        let Some(value) = self.parts.message(cx) else {
            let message = "The body is not valid for its Content-Type";
            return Err(Reply::negotiated(StatusCode::BAD_REQUEST, message, "invalid_body"));
        };
        let messages = topics.into_iter();
        let messages: Vec<_> =
            messages.map(|topic| KafkaMessage::new(topic, key.clone(), value.clone(), cx.now)).collect();
        if messages.iter().any(|message| !message.fits(self.max_message)) {
            let message = "The message is too large";
            return Err(Reply::negotiated(StatusCode::PAYLOAD_TOO_LARGE, message, "message_too_large"));
        }
        Ok(messages)
    }

    /// The topics that a request names, or else the configured one.
    fn topics(&self, query: &str) -> Result<Vec<Arc<str>>, Box<Reply>> {
        let named = self.topics_parameter.as_deref().and_then(|name| parameter(query, name));
        let Some(named) = named else { return Ok(vec![Arc::clone(&self.topic)]) };
        let mut topics = Vec::new();
        for name in named.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let mut known = std::iter::once(&self.topic).chain(&self.allowed_topics);
            let Some(topic) = known.find(|topic| topic.as_bytes() == name) else {
                let message = "The topic is not allowed";
                return Err(Reply::negotiated(StatusCode::BAD_REQUEST, message, "topic_not_allowed"));
            };
            // A request cannot have more messages than there are topics.
            if !topics.contains(topic) {
                topics.push(Arc::clone(topic));
            }
        }
        Ok(topics)
    }
}

/// The value of the first parameter with this name.
fn parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    let pair = UrlEncodedForm(query.as_bytes()).pairs().find(|pair| *pair.name() == *name.as_bytes())?;
    pair.value().map(|value| value.into_owned())
}

/// The reply of Kong's plugin.
fn sent() -> Box<Reply> {
    let body = ReplyBody::Raw(Bytes::from_static(br#"{"message":"message sent"}"#));
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    Box::new(Reply { status: StatusCode::OK, headers, body, reason: Reply::NO_REASON })
}

/// The reply if no broker has confirmed the message.
fn not_sent() -> Box<Reply> {
    Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, "An unexpected error occurred", "message_not_sent")
}
