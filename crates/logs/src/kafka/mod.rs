//! A producer of Kafka's protocol for plugins: it sends messages to topics of a cluster, and reads nothing from them.
//!
//! ```text
//!   messages ─▶ BatchQueue ─▶ BatchedMessages ─┐
//!   messages ─▶ AwaitedMessages ───────────────┴▶ KafkaProducer ─▶ ClusterView: the leader of each partition
//!                                                      └▶ BrokerConnection: SASL, then requests one after the other
//! ```
//!
//! A message is sent again if no broker has confirmed it, so a topic may have it twice. Messages are not compressed.

mod checksum;
mod cluster;
mod config;
mod connection;
mod delivery;
mod message;
mod producer;
mod protocol;
mod record_batch;
mod scram;
mod wire;

#[cfg(test)]
mod tests;

pub(crate) use config::{
    ConfiguredProducer, KafkaAuthentication, KafkaSecurity, KafkaServer, NO_SCHEMA_REGISTRY, ProducerConfig,
    check_topic,
};
pub(crate) use delivery::{AwaitedMessages, BatchedMessages, NotProduced};
pub(crate) use message::KafkaMessage;
