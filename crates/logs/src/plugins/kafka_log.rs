//! `kafka-log`: sends a JSON object about each request to a topic of Kafka.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: log
//! plugin: kafka-log
//! config:
//!   bootstrap_servers: [{host: kafka.shop.svc, port: 9093}]
//!   topic: requests
//!   security: {ssl: true}
//!   authentication:
//!     strategy: sasl
//!     mechanism: SCRAM-SHA-512
//!     user: gateway
//!     password: {secretKeyRef: {name: kafka, key: password}}
//! ---
//! apiVersion: v1
//! kind: Secret
//! metadata:
//!   name: kafka
//! stringData:
//!   password: only-for-trying-it-out
//! ```
//!
//! Requests never wait for a broker. Messages wait in a queue, and are sent together. A message that no broker has
//! confirmed is sent again, so the topic may have it twice. The metrics `portico_plugin_queue_…` count what is sent and
//! what is dropped.
//!
//! The objects are those of the plugin `http-log`, without credentials.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::diagnostic::Diagnostic;
use crate::kafka::NO_SCHEMA_REGISTRY;
use crate::kafka::{
    BatchedMessages, ConfiguredProducer, KafkaAuthentication, KafkaMessage, KafkaSecurity, KafkaServer, ProducerConfig,
};
use crate::log_delivery::DeliveryReports;
use crate::plugin_api::batch_queue::{BatchQueue, QueueSettings};
use crate::plugin_api::dumped_fields::DumpedFields;
use crate::plugin_api::fields::UrlEncodedForm;
use crate::plugin_api::{BuildCx, LogCx, Phases, Plugin, PluginKind, record};
use crate::plugin_kit::log_fields::CustomFields;

/// Sends logs of requests to a topic of Kafka.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Brokers that know the other brokers of the cluster. At least one is required. Portico also connects to
    /// the addresses that they name.
    bootstrap_servers: Vec<KafkaServer>,
    /// Topic of the messages. Required. A broker that creates topics creates it.
    topic: String,
    /// How Portico authenticates at the brokers.
    #[serde(deserialize_with = "record")]
    authentication: KafkaAuthentication,
    /// TLS of the connections to brokers.
    #[serde(deserialize_with = "record")]
    security: KafkaSecurity,
    /// No effect: a plugin has connections of its own.
    cluster_name: Option<String>,
    /// Name of the query parameter with the key of the message. Messages with the same key have the same partition,
    /// which their CRC-32 selects, as in Kong.
    key_query_arg: Option<String>,
    /// Fields to add to the objects: the value of each field is that of an expression in a subset of Lua, as in
    /// http-log.
    custom_fields_by_lua: BTreeMap<String, String>,
    /// Not supported: schema registries. Messages are JSON.
    schema_registry: Option<Value>,
    /// Timeout in milliseconds for connecting to a broker, and for its responses. At most 60000 takes effect.
    timeout: u32,
    /// How many milliseconds an idle connection to a broker is used again. At most 600000 takes effect.
    keepalive: u32,
    /// No effect: connections are used again within `keepalive`.
    keepalive_enabled: bool,
    /// How many replicas must have a message before it counts as accepted: 0 for none, so that nothing is noticed of a
    /// broker that does not accept it, 1 for the leader, or -1 for all that are in sync.
    producer_request_acks: i32,
    /// How many milliseconds a broker may wait for the replicas. At most 60000 takes effect.
    producer_request_timeout: u32,
    /// Maximum number of messages in a request to a broker.
    #[schemars(range(min = 1, max = 1_000_000))]
    producer_request_limits_messages_per_request: usize,
    /// Maximum size in bytes of a request to a broker. Larger messages are dropped.
    #[schemars(range(min = 1024, max = 16_777_216))]
    producer_request_limits_bytes_per_request: usize,
    /// How often a message is sent again that was not accepted, or whose partition has another leader.
    #[schemars(range(max = 1000))]
    producer_request_retries_max_attempts: u32,
    /// How many milliseconds later it is sent again. At most 60000 takes effect.
    producer_request_retries_backoff_timeout: u32,
    /// Whether messages wait for others. If not, they are sent at once, and requests do not wait for them either.
    producer_async: bool,
    /// How many milliseconds messages wait for others, unless there are enough for a request. At most 3600000 takes
    /// effect.
    producer_async_flush_timeout: u32,
    /// Maximum number of messages that wait. `--max-queued-bytes` limits their size, together with that of all other
    /// plugins. The oldest are dropped first.
    #[schemars(range(min = 1, max = 1_000_000))]
    producer_async_buffering_limits_messages_in_memory: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            bootstrap_servers: Vec::new(),
            topic: String::new(),
            authentication: KafkaAuthentication::default(),
            security: KafkaSecurity::default(),
            cluster_name: None,
            key_query_arg: None,
            custom_fields_by_lua: BTreeMap::new(),
            schema_registry: None,
            timeout: 10_000,
            keepalive: 60_000,
            keepalive_enabled: false,
            producer_request_acks: 1,
            producer_request_timeout: 2000,
            producer_request_limits_messages_per_request: 200,
            producer_request_limits_bytes_per_request: 1 << 20,
            producer_request_retries_max_attempts: 10,
            producer_request_retries_backoff_timeout: 100,
            producer_async: true,
            producer_async_flush_timeout: 1000,
            producer_async_buffering_limits_messages_in_memory: 50_000,
        }
    }
}

pub(crate) struct KafkaLog {
    queue: Arc<BatchQueue>,
    topic: Arc<str>,
    key_parameter: Option<Box<str>>,
    custom_fields: CustomFields,
}

impl PluginKind for KafkaLog {
    const NAME: &'static str = "kafka-log";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 5;
    const PHASES: Phases = Phases::LOG;
    const FAIL_CLOSED: bool = false;
    const DUMPED_FIELDS: &'static [DumpedFields] =
        &[DumpedFields::new(&["schema_registry"], NO_SCHEMA_REGISTRY, "3.11")];
    const LOGS_SESSIONS: bool = true;
    type Config = Config;
    type Plugin = KafkaLog;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let custom_fields = CustomFields::parse(&config.custom_fields_by_lua, &mut invalid);
        let configured = config.producer().build(cx).map_err(|errors| invalid.extend(errors));
        let (Ok(ConfiguredProducer { producer, queue, name }), []) = (configured, &invalid[..]) else {
            return Err(invalid);
        };
        let delay = if config.producer_async { queue.max_coalescing_delay } else { Duration::ZERO };
        let settings = QueueSettings { max_coalescing_delay: delay, ..queue };
        // Messages that wait are kept while the configuration stays the same.
        let queue = cx.state.get_or_create(&format!("{name} {delay:?}"), || {
            let reports = DeliveryReports::new("bootstrap_servers", cx);
            BatchQueue::start(settings, Arc::new(BatchedMessages::new(producer, reports)), cx)
        });
        let key_parameter = config.key_query_arg.map(String::into_boxed_str);
        Ok(KafkaLog { queue, topic: config.topic.into(), key_parameter, custom_fields })
    }
}

impl Plugin for KafkaLog {
    fn log(&self, cx: &LogCx<'_>) {
        let value = self.custom_fields.object(cx);
        let message = KafkaMessage::new(Arc::clone(&self.topic), self.key(cx), value, cx.request.started_at);
        self.queue.push_for(&cx.names.namespace, message.to_entry());
    }

    fn logs_heads(&self) -> bool {
        true
    }
}

impl KafkaLog {
    /// The key of a message. A credential is none, since it would be in the topic.
    fn key(&self, cx: &LogCx<'_>) -> Option<Bytes> {
        let name = self.key_parameter.as_deref()?.as_bytes();
        let query = cx.request.heads?.target.query()?;
        if cx.request.credentials.has_parameter(name) {
            return None;
        }
        let pair = UrlEncodedForm(query.as_bytes()).pairs().find(|pair| *pair.name() == *name)?;
        pair.value().map(|value| Bytes::from(value.into_owned()))
    }
}

impl Config {
    fn producer(&self) -> ProducerConfig<'_> {
        ProducerConfig {
            topic: &self.topic,
            bootstrap_servers: &self.bootstrap_servers,
            authentication: &self.authentication,
            security: &self.security,
            schema_registry: self.schema_registry.as_ref(),
            timeout: self.timeout,
            keepalive: self.keepalive,
            acks: self.producer_request_acks,
            request_timeout: self.producer_request_timeout,
            messages_per_request: self.producer_request_limits_messages_per_request,
            bytes_per_request: self.producer_request_limits_bytes_per_request,
            max_retries: self.producer_request_retries_max_attempts,
            backoff: self.producer_request_retries_backoff_timeout,
            flush_timeout: self.producer_async_flush_timeout,
            messages_in_memory: self.producer_async_buffering_limits_messages_in_memory,
        }
    }
}
