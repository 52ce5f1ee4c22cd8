//! The configuration of `kafka-upstream`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::kafka::{KafkaAuthentication, KafkaSecurity, KafkaServer, ProducerConfig};
use crate::plugin_api::record;

/// Sends requests to a topic of Kafka, in place of a backend.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of Kong's plugin")]
pub(crate) struct Config {
    /// Brokers that know the other brokers of the cluster. At least one is required. Portico also connects to
    /// the addresses that they name.
    pub(super) bootstrap_servers: Vec<KafkaServer>,
    /// Topic of requests that name none. Required. A broker that creates topics creates it.
    pub(super) topic: String,
    /// Name of the query parameter with topics in place of `topic`, separated by commas.
    pub(super) topics_query_arg: Option<String>,
    /// Topics that requests may name, in addition to `topic`. Others are rejected with 400.
    pub(super) allowed_topics: Vec<String>,
    /// How Portico authenticates at the brokers.
    #[serde(deserialize_with = "record")]
    pub(super) authentication: KafkaAuthentication,
    /// TLS of the connections to brokers.
    #[serde(deserialize_with = "record")]
    pub(super) security: KafkaSecurity,
    /// No effect: a plugin has connections of its own.
    pub(super) cluster_name: Option<String>,
    /// Name of the query parameter with the key of the message. Messages with the same key have the same partition,
    /// which their CRC-32 selects, as in Kong.
    pub(super) key_query_arg: Option<String>,
    /// Add the method to the message, as `method`.
    pub(super) forward_method: bool,
    /// Add the path with the query to the message as `uri`, and the parameters of the query as `uri_args`.
    pub(super) forward_uri: bool,
    /// Add the headers to the message, as `headers`. They include credentials, unless plugins remove them.
    pub(super) forward_headers: bool,
    /// Add the body to the message as `body`, and the fields of JSON and of forms as `body_args`. At least one of the
    /// four fields must be true.
    pub(super) forward_body: bool,
    /// Not supported: Lua functions that change messages.
    pub(super) message_by_lua_functions: Vec<String>,
    /// Not supported: schema registries. Messages are JSON.
    pub(super) schema_registry: Option<Value>,
    /// Timeout in milliseconds for connecting to a broker, and for its responses. At most 60000 takes effect.
    pub(super) timeout: u32,
    /// How many milliseconds an idle connection to a broker is used again. At most 600000 takes effect.
    pub(super) keepalive: u32,
    /// No effect: connections are used again within `keepalive`.
    pub(super) keepalive_enabled: bool,
    /// How many replicas must have a message before it counts as accepted: 0 for none, so that nothing is noticed of a
    /// broker that does not accept it, 1 for the leader, or -1 for all that are in sync.
    pub(super) producer_request_acks: i32,
    /// How many milliseconds a broker may wait for the replicas. At most 60000 takes effect.
    pub(super) producer_request_timeout: u32,
    /// Maximum number of messages in a request to a broker.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) producer_request_limits_messages_per_request: usize,
    /// Maximum size in bytes of a request to a broker. Requests whose message would be larger are
    /// rejected with 413.
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub(super) producer_request_limits_bytes_per_request: usize,
    /// How often a message is sent again that was not accepted, or whose partition has another leader.
    #[schemars(range(max = 1000))]
    pub(super) producer_request_retries_max_attempts: u32,
    /// How many milliseconds later it is sent again. At most 60000 takes effect.
    pub(super) producer_request_retries_backoff_timeout: u32,
    /// Whether the client gets its response before brokers have the message, which may then be dropped. If not, the
    /// response is sent when brokers have confirmed the message.
    pub(super) producer_async: bool,
    /// How many milliseconds messages wait for others, unless there are enough for a request. At most 3600000 takes
    /// effect.
    pub(super) producer_async_flush_timeout: u32,
    /// Maximum number of messages that wait. `--max-queued-bytes` limits their size, together with that of all other
    /// plugins. The oldest are dropped first.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) producer_async_buffering_limits_messages_in_memory: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            bootstrap_servers: Vec::new(),
            topic: String::new(),
            topics_query_arg: None,
            allowed_topics: Vec::new(),
            authentication: KafkaAuthentication::default(),
            security: KafkaSecurity::default(),
            cluster_name: None,
            key_query_arg: None,
            forward_method: false,
            forward_uri: false,
            forward_headers: false,
            forward_body: true,
            message_by_lua_functions: Vec::new(),
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

impl Config {
    pub(super) fn producer(&self) -> ProducerConfig<'_> {
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
