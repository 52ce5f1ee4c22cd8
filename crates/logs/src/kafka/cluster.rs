//! What a producer knows about a cluster: its brokers, the leaders of partitions, and open connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::BrokerConnection;
use super::message::KafkaMessage;
use super::protocol::{Broker, ErrorCode, Metadata, PartitionMetadata};
use crate::kafka::checksum::crc32;
use crate::plugin_api::remote::is_host;

/// The host and the port of a broker.
pub(super) type BrokerAddress = (String, u16);

/// Replaced in parts whenever a broker responds with metadata.
#[derive(Default)]
pub(super) struct ClusterView {
    brokers: HashMap<i32, BrokerAddress>,
    topics: HashMap<Arc<str>, KnownTopic>,
    /// As many at an address as were used at a time: several brokers may have the same one, that of a proxy.
    connections: HashMap<BrokerAddress, Vec<BrokerConnection>>,
    /// Which partition messages without a key get, and which server gets the first request.
    pub(super) turn: usize,
}

/// A broker with its open connection. It is taken out of the view while requests are sent, so that a connection is
/// dropped with the future that waits for its response.
pub(super) struct BrokerLink {
    pub(super) address: BrokerAddress,
    /// `None` before the first request and after an error.
    pub(super) connection: Option<BrokerConnection>,
}

struct KnownTopic {
    partitions: Vec<PartitionMetadata>,
    known_since: Instant,
}

/// A partition and the broker that leads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LedPartition {
    pub(super) leader: i32,
    pub(super) index: i32,
}

impl ClusterView {
    /// Whether the leaders of a topic are not known.
    pub(super) fn is_unknown(&self, topic: &str) -> bool {
        self.topics.get(topic).is_none_or(|known| known.known_since.elapsed() > MAX_AGE)
    }

    /// Forgets the leaders of a topic, which may have changed.
    pub(super) fn forget(&mut self, topic: &str) {
        self.topics.remove(topic);
    }

    /// Takes what a broker has responded. Returns the error of each topic that it knows nothing about.
    pub(super) fn learn(&mut self, metadata: Metadata, topics: &[Arc<str>]) -> Vec<(Arc<str>, ErrorCode)> {
        let is_usable = |broker: &Broker| broker.port != 0 && broker.host.len() <= 253 && is_host(&broker.host);
        let brokers = metadata.brokers.into_iter().filter(is_usable);
        self.brokers = brokers.take(MAX_BROKERS).map(|broker| (broker.id, (broker.host, broker.port))).collect();
        let mut errors = Vec::new();
        for topic in topics {
            let found = metadata.topics.iter().find(|found| *found.name == **topic);
            match found {
                Some(found) if found.error.is_none() && !found.partitions.is_empty() => {
                    let mut partitions = found.partitions.clone();
                    // The order of a response may change, and that of the partitions selects one by a key.
                    partitions.sort_by_key(|partition| partition.index);
                    let known = KnownTopic { partitions, known_since: Instant::now() };
                    self.topics.insert(Arc::clone(topic), known);
                }
                Some(found) if !found.error.is_none() => errors.push((Arc::clone(topic), found.error)),
                _ => errors.push((Arc::clone(topic), UNKNOWN_TOPIC)),
            }
        }
        errors
    }

    /// The partition of a message. Messages with a key have one by its CRC-32, as in Kong; all others of a turn have
    /// the same one, so that few batches have many messages. `None` while the partition has no leader.
    pub(super) fn partition_of(&self, message: &KafkaMessage) -> Option<LedPartition> {
        let partitions = &self.topics.get(&message.topic)?.partitions;
        let led = |partition: &PartitionMetadata| {
            let leader = partition.leader.filter(|leader| self.brokers.contains_key(leader))?;
            Some(LedPartition { leader, index: partition.index })
        };
        match &message.key {
            Some(key) => {
                let place = usize::try_from(crc32(key)).unwrap_or_default() % partitions.len();
                led(&partitions[place])
            }
            None => {
                let count = partitions.iter().filter_map(led).count();
                partitions.iter().filter_map(led).nth(self.turn.checked_rem(count)?)
            }
        }
    }

    /// The link to a broker, if its address is known.
    pub(super) fn take_link(&mut self, broker: i32) -> Option<BrokerLink> {
        let address = self.brokers.get(&broker)?.clone();
        Some(self.take_link_to(address))
    }

    /// The link to an address, with a connection that is still open if there is one.
    pub(super) fn take_link_to(&mut self, address: BrokerAddress) -> BrokerLink {
        let kept = self.connections.get_mut(&address);
        let connection = kept.and_then(|kept| std::iter::from_fn(|| kept.pop()).find_map(BrokerConnection::still_open));
        BrokerLink { address, connection }
    }

    /// Keeps the connection of a link for later requests.
    pub(super) fn put_back(&mut self, BrokerLink { address, connection }: BrokerLink) {
        if let Some(connection) = connection {
            self.connections.entry(address).or_default().push(connection);
        }
    }

    /// Closes the connections that were idle for this time.
    pub(super) fn close_idle(&mut self, idle_limit: Duration) {
        self.connections.retain(|_, kept| {
            kept.retain(|connection| connection.is_fresh(idle_limit));
            !kept.is_empty()
        });
    }
}

/// How long leaders are known without another request. Producers of Kafka's own have the same.
const MAX_AGE: Duration = Duration::from_secs(300);
/// More brokers of a cluster are ignored.
const MAX_BROKERS: usize = 1024;
const UNKNOWN_TOPIC: ErrorCode = ErrorCode(3);

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::protocol::TopicMetadata;
    use super::*;

    fn metadata(leaders: &[Option<i32>]) -> Metadata {
        let partition = |(index, leader): (usize, &Option<i32>)| PartitionMetadata {
            index: i32::try_from(index).unwrap(),
            leader: *leader,
        };
        let broker = |(id, host): (i32, &str)| Broker { id, host: host.to_owned(), port: 9092 };
        Metadata {
            brokers: [(1, "a.example"), (2, "b.example"), (3, "c/d"), (4, ""), (5, "e:9092")].map(broker).to_vec(),
            topics: vec![
                TopicMetadata {
                    error: ErrorCode(0),
                    name: "logs".to_owned(),
                    partitions: leaders.iter().enumerate().map(partition).rev().collect(),
                },
                TopicMetadata { error: ErrorCode(29), name: "secret".to_owned(), partitions: Vec::new() },
            ],
        }
    }

    fn message(key: Option<&'static str>) -> KafkaMessage {
        KafkaMessage { topic: Arc::from("logs"), key: key.map(Bytes::from), value: Bytes::new(), timestamp: 0 }
    }

    #[tokio::test(start_paused = true)]
    async fn leaders_are_forgotten_in_time() {
        let mut view = ClusterView::default();
        let topics = ["logs", "secret", "other"].map(Arc::<str>::from);
        assert!(view.is_unknown("logs") && view.partition_of(&message(None)).is_none());
        let errors = view.learn(metadata(&[Some(1)]), &topics);
        assert_eq!(errors, [(topics[1].clone(), ErrorCode(29)), (topics[2].clone(), ErrorCode(3))]);
        assert!(!view.is_unknown("logs") && view.is_unknown("other"));
        tokio::time::advance(MAX_AGE + Duration::from_secs(1)).await;
        assert!(view.is_unknown("logs"));
        view.learn(metadata(&[Some(1)]), &topics[..1]);
        view.forget("logs");
        assert!(view.is_unknown("logs"));
    }

    #[tokio::test]
    async fn keys_keep_their_partition_and_others_take_turns() {
        let mut view = ClusterView::default();
        let topics = [Arc::from("logs")];
        // Broker 3 has no usable host, and the last partition has no leader.
        view.learn(metadata(&[Some(1), Some(2), Some(3), None]), &topics);
        let led = |leader, index| Some(LedPartition { leader, index });
        let mut turns = Vec::new();
        for turn in 0..4 {
            view.turn = turn;
            turns.push(view.partition_of(&message(None)));
        }
        assert_eq!(turns, [led(1, 0), led(2, 1), led(1, 0), led(2, 1)]);
        // 0xCBF43926 % 4 is 2, whose leader is no broker.
        assert_eq!(view.partition_of(&message(Some("123456789"))), None);
        view.learn(metadata(&[Some(1), Some(2), Some(1), None]), &topics);
        assert_eq!(view.partition_of(&message(Some("123456789"))), led(1, 2));
        let mut address = |broker| view.take_link(broker).map(|link| link.address);
        assert_eq!(address(2), Some(("b.example".to_owned(), 9092)));
        assert_eq!([3, 4, 5].map(address), [None, None, None], "these hosts are not usable");
    }
}
