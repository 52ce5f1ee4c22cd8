//! The fields that the plugins for Kafka have in common, and the producer that they describe.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::connection::{Mechanism, Sasl};
use super::producer::{KafkaProducer, ProducerSettings};
use super::protocol::Acks;
use super::scram::ScramHash;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::batch_queue::QueueSettings;
use crate::plugin_api::consumers::{hex, sha256};
use crate::plugin_api::dumped_fields::DumpedValue;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::remote::{MAX_REMOTE_TIMEOUT, Remote, RemoteTls};

/// A server that knows the brokers of the cluster.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KafkaServer {
    /// Host: a Service of the cluster, such as `kafka.shop` or `kafka.shop.svc`, another DNS name, or an IP address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// How Portico authenticates at the brokers.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct KafkaAuthentication {
    /// The only strategy.
    pub strategy: Option<AuthenticationStrategy>,
    /// The SASL mechanism. If unset, Portico does not authenticate.
    pub mechanism: Option<SaslMechanism>,
    /// Name of the user.
    pub user: Option<String>,
    /// Password of the user. Write a reference to a Secret.
    pub password: Option<String>,
    /// Whether `user` and `password` are those of a delegation token. Requires SCRAM.
    pub tokenauth: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AuthenticationStrategy {
    Sasl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum SaslMechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// TLS of the connections to brokers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct KafkaSecurity {
    /// Whether to use TLS.
    pub ssl: Option<bool>,
    /// Whether to verify the certificates of the brokers with the system's root certificates.
    pub ssl_verify: bool,
    /// Not supported: client certificates. Use `authentication`.
    pub certificate_id: Option<String>,
}

impl Default for KafkaSecurity {
    fn default() -> Self {
        KafkaSecurity { ssl: None, ssl_verify: true, certificate_id: None }
    }
}

/// The fields of a plugin's configuration.
#[derive(Clone, Copy)]
pub(crate) struct ProducerConfig<'c> {
    pub topic: &'c str,
    pub bootstrap_servers: &'c [KafkaServer],
    pub authentication: &'c KafkaAuthentication,
    pub security: &'c KafkaSecurity,
    pub schema_registry: Option<&'c Value>,
    pub timeout: u32,
    pub keepalive: u32,
    pub acks: i32,
    pub request_timeout: u32,
    pub messages_per_request: usize,
    pub bytes_per_request: usize,
    pub max_retries: u32,
    pub backoff: u32,
    pub flush_timeout: u32,
    pub messages_in_memory: usize,
}

/// What a valid configuration describes.
pub(crate) struct ConfiguredProducer {
    pub producer: Arc<KafkaProducer>,
    pub queue: QueueSettings,
    /// The name of everything in the state of plugins that depends on the configuration.
    pub name: String,
}

/// `schema_registry` without a URL.
pub(crate) const NO_SCHEMA_REGISTRY: DumpedValue = DumpedValue::Record(&[(
    "confluent",
    DumpedValue::Record(&[
        ("authentication", DumpedValue::Anything),
        ("key_schema", DumpedValue::Anything),
        ("ssl_verify", DumpedValue::Anything),
        ("ttl", DumpedValue::Anything),
        ("url", DumpedValue::Nothing),
        ("value_schema", DumpedValue::Anything),
    ]),
)]);

impl ProducerConfig<'_> {
    /// Validates the configuration. A producer of the same configuration is used again.
    pub(crate) fn build(&self, cx: &BuildCx<'_>) -> Result<ConfiguredProducer, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        check_topic("topic", self.topic, &mut invalid);
        self.check_unsupported(&mut invalid);
        self.check_ranges(&mut invalid);
        let acks = self.acks(&mut invalid);
        let sasl = self.sasl(cx, &mut invalid);
        let bootstrap = self.bootstrap(cx, &mut invalid);
        let (Some(acks), []) = (acks, &invalid[..]) else { return Err(invalid) };
        let backoff = cx.limited_duration("producer_request_retries_backoff_timeout", self.backoff, MAX_DELAY);
        let request_timeout = cx.limited_duration("producer_request_timeout", self.request_timeout, MAX_REMOTE_TIMEOUT);
        let settings = ProducerSettings {
            // The broker responds at the latest after the timeout of the request.
            response_timeout: bootstrap[0].timeout.max(request_timeout),
            bootstrap,
            sasl,
            acks,
            request_timeout,
            idle_limit: cx.limited_duration("keepalive", self.keepalive, MAX_KEEP_ALIVE),
            max_messages: self.messages_per_request,
            max_bytes: self.bytes_per_request,
            max_retries: self.max_retries,
            backoff,
        };
        let queue = QueueSettings {
            max_batch_size: self.messages_per_request,
            max_coalescing_delay: cx.limited_duration(
                "producer_async_flush_timeout",
                self.flush_timeout,
                MAX_FLUSH_TIMEOUT,
            ),
            max_entries: self.messages_in_memory,
            max_bytes: MAX_QUEUED_BYTES,
            // The producer itself sends messages again.
            max_retry_time: None,
            initial_retry_delay: backoff,
            max_retry_delay: backoff,
            concurrency: NonZeroUsize::MIN,
        };
        let password = self.authentication.password.as_deref();
        let fingerprint = format!("{settings:?} {queue:?} {:?} {password:?}", self.authentication.user);
        let name = format!("{} Kafka {}", cx.object, hex(&sha256(fingerprint.as_bytes())));
        let services = Arc::clone(cx.services);
        let producer = cx.state.get_or_create(&name, || KafkaProducer::new(settings, services));
        Ok(ConfiguredProducer { producer, queue, name })
    }

    fn check_unsupported(&self, invalid: &mut Vec<Diagnostic>) {
        if self.security.certificate_id.is_some() {
            let message = "is not supported: there are no client certificates for brokers";
            let remedy = "remove it, and authenticate with `authentication`";
            invalid.push(Diagnostic::in_config("security.certificate_id", message, remedy));
        }
        let is_set = |value: &&Value| !value.is_null() && value.as_object().is_none_or(|fields| !fields.is_empty());
        if self.schema_registry.filter(is_set).is_some() {
            let message = "is not supported: messages are JSON without a schema";
            let remedy = "remove it, and let consumers read JSON";
            invalid.push(Diagnostic::in_config("schema_registry", message, remedy));
        }
    }

    fn check_ranges(&self, invalid: &mut Vec<Diagnostic>) {
        let mut check = |field: &str, is_valid: bool, value: &dyn std::fmt::Display, range: &str| {
            if !is_valid {
                let message = format!("{value} is out of range");
                invalid.push(Diagnostic::in_config(field, message, format!("use {range}")));
            }
        };
        for (field, time) in [
            ("timeout", self.timeout),
            ("keepalive", self.keepalive),
            ("producer_request_timeout", self.request_timeout),
            ("producer_request_retries_backoff_timeout", self.backoff),
        ] {
            check(field, time > 0, &time, "a number of milliseconds of at least 1");
        }
        let messages = self.messages_per_request;
        let field = "producer_request_limits_messages_per_request";
        check(field, COUNTS.contains(&messages), &messages, "an integer from 1 to 1000000");
        let field = "producer_async_buffering_limits_messages_in_memory";
        check(
            field,
            COUNTS.contains(&self.messages_in_memory),
            &self.messages_in_memory,
            "an integer from 1 to 1000000",
        );
        let bytes = self.bytes_per_request;
        let field = "producer_request_limits_bytes_per_request";
        check(field, REQUEST_BYTES.contains(&bytes), &bytes, "an integer from 1024 to 16777216");
        let retries = self.max_retries;
        check("producer_request_retries_max_attempts", retries <= MAX_RETRIES, &retries, "an integer from 0 to 1000");
    }

    fn acks(&self, invalid: &mut Vec<Diagnostic>) -> Option<Acks> {
        let acks = match self.acks {
            0 => Some(Acks::None),
            1 => Some(Acks::Leader),
            -1 => Some(Acks::All),
            _ => None,
        };
        if acks.is_none() {
            let message = format!("{} is not a number of acknowledgments", self.acks);
            let remedy = "use 0 for none, 1 for that of the leader, or -1 for all replicas";
            invalid.push(Diagnostic::in_config("producer_request_acks", message, remedy));
        }
        acks
    }

    fn sasl(&self, cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) -> Option<Sasl> {
        let KafkaAuthentication { mechanism, user, password, tokenauth, .. } = self.authentication;
        let Some(mechanism) = mechanism else {
            if user.is_some() || password.is_some() || *tokenauth == Some(true) {
                let remedy = "set it to PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512";
                invalid.push(Diagnostic::in_config("authentication.mechanism", "is missing", remedy));
            }
            return None;
        };
        for (field, value) in [("authentication.user", user), ("authentication.password", password)] {
            let value = value.as_deref().unwrap_or_default();
            if value.is_empty() {
                let remedy = "set it, or remove `authentication.mechanism`";
                invalid.push(Diagnostic::in_config(field, "is missing", remedy));
            } else if value.contains('\0') || value.len() > MAX_CREDENTIAL {
                let remedy = "use at most 4096 bytes of text";
                invalid.push(Diagnostic::in_config(field, "is too long or has a NUL character", remedy));
            }
        }
        let is_token = *tokenauth == Some(true);
        let mechanism = match mechanism {
            SaslMechanism::Plain => Mechanism::Plain,
            SaslMechanism::ScramSha256 => Mechanism::Scram { hash: ScramHash::Sha256, is_token },
            SaslMechanism::ScramSha512 => Mechanism::Scram { hash: ScramHash::Sha512, is_token },
        };
        if mechanism == Mechanism::Plain {
            if is_token {
                let remedy = "set the mechanism to SCRAM-SHA-256 or SCRAM-SHA-512";
                let message = "requires SCRAM: brokers accept no token with PLAIN";
                invalid.push(Diagnostic::in_config("authentication.tokenauth", message, remedy));
            }
            if self.security.ssl != Some(true) {
                let message = "PLAIN without TLS sends the password in plain text";
                let remedy = "set `security.ssl: true`, or use SCRAM-SHA-512";
                cx.note(Diagnostic::in_config("authentication.mechanism", message, remedy));
            }
        }
        let text = |value: &Option<String>| Arc::from(value.as_deref().unwrap_or_default());
        Some(Sasl { mechanism, user: text(user), password: text(password) })
    }

    /// At least one server, unless something was added to `invalid`.
    fn bootstrap(&self, cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) -> Vec<Remote> {
        if self.bootstrap_servers.is_empty() {
            let remedy = "list at least one broker, such as {host: kafka.shop.svc, port: 9092}";
            invalid.push(Diagnostic::in_config("bootstrap_servers", "is missing", remedy));
        }
        if self.bootstrap_servers.len() > MAX_SERVERS {
            let message = format!("{} servers are too many", self.bootstrap_servers.len());
            invalid.push(Diagnostic::in_config("bootstrap_servers", message, "list at most 64 brokers"));
        }
        let timeout = cx.limited_duration("timeout", self.timeout, MAX_REMOTE_TIMEOUT);
        let tls = RemoteTls { server_name: None, verify: self.security.ssl_verify, files: None };
        let mut remotes = Vec::new();
        for (index, KafkaServer { host, port }) in self.bootstrap_servers.iter().enumerate() {
            let field = format!("bootstrap_servers[{index}]");
            if host.is_empty() {
                let remedy = "set it to the name of a broker, such as kafka.shop.svc";
                invalid.push(Diagnostic::in_config(format!("{field}.host"), "is missing", remedy));
            } else {
                invalid.extend(cx.check_host(format!("{field}.host"), host));
            }
            if *port == 0 {
                let remedy = "set it to the port of the broker, from 1 to 65535";
                invalid.push(Diagnostic::in_config(format!("{field}.port"), "0 is not a valid port", remedy));
            }
            remotes.push(Remote {
                host: host.clone(),
                port: *port,
                namespace: cx.namespace().map(str::to_owned),
                tls: (self.security.ssl == Some(true)).then(|| tls.clone()),
                timeout,
            });
        }
        remotes
    }
}

/// Adds to `invalid` if this is no name of a topic.
pub(crate) fn check_topic(field: &str, topic: &str, invalid: &mut Vec<Diagnostic>) {
    let is_character = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if topic.is_empty() {
        invalid.push(Diagnostic::in_config(field, "is missing", "set it to the name of the topic"));
    } else if topic.len() > MAX_TOPIC || matches!(topic, "." | "..") || !topic.bytes().all(is_character) {
        let remedy = "use at most 249 letters, digits, `.`, `_` and `-`";
        invalid.push(Diagnostic::in_config(field, "is not the name of a topic", remedy));
    }
}

const COUNTS: std::ops::RangeInclusive<usize> = 1..=1_000_000;
const REQUEST_BYTES: std::ops::RangeInclusive<usize> = 1024..=16 << 20;
/// The limit of Kafka's brokers.
const MAX_TOPIC: usize = 249;
const MAX_SERVERS: usize = 64;
const MAX_RETRIES: u32 = 1000;
const MAX_CREDENTIAL: usize = 4096;
/// The longest time between two attempts.
const MAX_DELAY: Duration = Duration::from_secs(60);
const MAX_FLUSH_TIMEOUT: Duration = Duration::from_secs(3600);
/// The longest time after which an idle connection is used again.
const MAX_KEEP_ALIVE: Duration = Duration::from_secs(600);
/// The bytes of messages that wait in a queue.
const MAX_QUEUED_BYTES: usize = 64 << 20;
