//! Sends messages to the leaders of their partitions, again if a leader has changed or a broker does not respond.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::cluster::{BrokerLink, ClusterView, LedPartition};
use super::connection::{BrokerConnection, Sasl, malformed};
use super::message::{KafkaMessage, RECORD_OVERHEAD};
use super::protocol::{
    Acks, ErrorCode, METADATA, Metadata, PRODUCE, parse_produce_response, write_metadata_request, write_produce_head,
};
use super::record_batch::record_batch;
use super::wire::{MalformedResponse, WireWriter};
use crate::plugin_api::remote::Remote;
use crate::plugin_api::services::PluginServices;

/// Everything that a producer depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProducerSettings {
    /// The servers that know the brokers. There is at least one.
    pub(super) bootstrap: Vec<Remote>,
    pub(super) sasl: Option<Sasl>,
    pub(super) acks: Acks,
    /// How long the broker may wait for the replicas.
    pub(super) request_timeout: Duration,
    /// How long a response may take.
    pub(super) response_timeout: Duration,
    pub(super) idle_limit: Duration,
    pub(super) max_messages: usize,
    pub(super) max_bytes: usize,
    pub(super) max_retries: u32,
    pub(super) backoff: Duration,
}

/// A producer. Its connections are opened by the first message.
pub(crate) struct KafkaProducer {
    settings: ProducerSettings,
    services: Arc<dyn PluginServices>,
    /// Calls of [`KafkaProducer::produce`] run one after the other, which keeps the order of messages.
    view: Mutex<ClusterView>,
}

/// A message that is not confirmed yet.
struct Pending<'m> {
    message: &'m KafkaMessage,
    /// Its place among the results.
    place: usize,
}

/// What became of the messages of one request.
enum Failure {
    /// Another attempt may succeed.
    Retriable(String),
    Final(String),
    /// One of the messages of a batch is the reason, and it is not known which.
    BatchRefused(String),
}

/// What becomes of messages, by their places.
struct MessageOutcomes<'o> {
    /// Why a message is not confirmed so far.
    failures: Vec<Option<String>>,
    /// Called once for each message, when nothing about it can change: with its place, and whether it is confirmed.
    on_settled: &'o mut (dyn FnMut(usize, bool) + Send),
}

impl MessageOutcomes<'_> {
    fn confirm(&mut self, place: usize) {
        self.failures[place] = None;
        (self.on_settled)(place, true);
    }

    fn refuse(&mut self, place: usize, reason: String) {
        self.failures[place] = Some(reason);
        (self.on_settled)(place, false);
    }

    /// Keeps the reason of a message that is sent again.
    fn postpone(&mut self, place: usize, reason: String) {
        self.failures[place] = Some(reason);
    }
}

/// Outcomes that the tasks of several leaders write. It is locked for one response at a time.
type SharedOutcomes<'s, 'o> = parking_lot::Mutex<&'s mut MessageOutcomes<'o>>;

impl KafkaProducer {
    pub(super) fn new(settings: ProducerSettings, services: Arc<dyn PluginServices>) -> Self {
        KafkaProducer { settings, services, view: Mutex::default() }
    }

    pub(super) fn settings(&self) -> &ProducerSettings {
        &self.settings
    }

    /// Sends messages. The result has the reason for each of them that was not confirmed.
    pub(crate) async fn produce(&self, messages: &[KafkaMessage]) -> Vec<Option<String>> {
        self.produce_each(messages, &mut |_, _| ()).await
    }

    /// Does the same, and calls `on_settled` with the place of each message as soon as it is confirmed or refused,
    /// which may be long before the slowest broker has responded.
    pub(super) async fn produce_each(
        &self,
        messages: &[KafkaMessage],
        on_settled: &mut (dyn FnMut(usize, bool) + Send),
    ) -> Vec<Option<String>> {
        let mut outcomes = MessageOutcomes { failures: vec![None; messages.len()], on_settled };
        let mut view = self.view.lock().await;
        view.close_idle(self.settings.idle_limit);
        let mut pending = Vec::new();
        for (place, message) in messages.iter().enumerate() {
            if !message.fits(self.settings.max_bytes) {
                outcomes.refuse(place, format!("a message of {} bytes is too large", message.size()));
            } else {
                pending.push(Pending { message, place });
            }
        }
        for attempt in 0..=self.settings.max_retries {
            if pending.is_empty() {
                break;
            }
            if attempt > 0 {
                sleep(self.settings.backoff).await;
            }
            view.turn = view.turn.wrapping_add(1);
            pending = self.attempt(&mut view, pending, &mut outcomes).await;
        }
        pending.iter().for_each(|message| (outcomes.on_settled)(message.place, false));
        outcomes.failures
    }

    /// Sends messages once. Returns those that are worth another attempt.
    async fn attempt<'m>(
        &self,
        view: &mut ClusterView,
        mut pending: Vec<Pending<'m>>,
        outcomes: &mut MessageOutcomes<'_>,
    ) -> Vec<Pending<'m>> {
        let errors = match self.refresh(view, &pending).await {
            Ok(errors) => errors,
            Err(error) => {
                pending.iter().for_each(|message| outcomes.postpone(message.place, error.clone()));
                return pending;
            }
        };
        pending.retain(|Pending { message, place }| {
            let error = errors.iter().find(|(topic, _)| *topic == message.topic);
            let Some((topic, error)) = error else { return true };
            let reason = format!("topic {topic}: {error}");
            if error.is_retriable() {
                outcomes.postpone(*place, reason);
            } else {
                outcomes.refuse(*place, reason);
            }
            error.is_retriable()
        });
        let mut by_leader: BTreeMap<i32, PartitionMessages<'m>> = BTreeMap::new();
        let mut again = Vec::new();
        for message in pending {
            let topic = &message.message.topic;
            match view.partition_of(message.message) {
                Some(LedPartition { leader, index }) => {
                    let partitions = by_leader.entry(leader).or_default();
                    partitions.entry((Arc::clone(topic), index)).or_default().push(message);
                }
                None => {
                    // An error of the topic says more.
                    let reason = &mut outcomes.failures[message.place];
                    reason.get_or_insert_with(|| format!("topic {topic}: no partition has a leader"));
                    again.push(message);
                }
            }
        }
        let shared = SharedOutcomes::new(outcomes);
        let sending = by_leader.into_iter().map(|(leader, partitions)| {
            let link = view.take_link(leader);
            let shared = &shared;
            async move {
                let Some(mut link) = link else { return (None, no_address(leader, partitions, shared)) };
                let again = self.send_to(&mut link, partitions, shared).await;
                (Some(link), again)
            }
        });
        // A leader that does not respond holds no message of another one.
        let sending: Vec<_> = sending.collect();
        for (link, of_leader) in join_all(sending).await {
            link.into_iter().for_each(|link| view.put_back(link));
            again.extend(of_leader);
        }
        for topic in again.iter().map(|message| &message.message.topic) {
            view.forget(topic);
        }
        again.sort_by_key(|message| message.place);
        again
    }

    /// Asks for the leaders of topics that are not known. Returns the errors of topics.
    async fn refresh(
        &self,
        view: &mut ClusterView,
        pending: &[Pending<'_>],
    ) -> Result<Vec<(Arc<str>, ErrorCode)>, String> {
        let topics = pending.iter().map(|message| &message.message.topic).filter(|topic| view.is_unknown(topic));
        let mut topics: Vec<Arc<str>> = topics.cloned().collect();
        topics.sort();
        topics.dedup();
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let mut failures = Vec::new();
        let count = self.settings.bootstrap.len();
        for index in 0..count {
            let remote = &self.settings.bootstrap[view.turn.wrapping_add(index) % count];
            let names = topics.iter().map(|topic| &**topic);
            let unreadable = format!("{}:{}: {}", remote.host, remote.port, malformed(MalformedResponse));
            let mut link = view.take_link_to((remote.host.clone(), remote.port));
            let response = self.exchange(&mut link, METADATA, |request| write_metadata_request(request, names)).await;
            view.put_back(link);
            match response.and_then(|response| Metadata::parse(&response).map_err(|MalformedResponse| unreadable)) {
                Ok(metadata) => return Ok(view.learn(metadata, &topics)),
                Err(error) => failures.push(error),
            }
        }
        Err(failures.join("; "))
    }

    /// Sends the messages of a leader, in as many requests as their limits need. Returns those that are worth another
    /// attempt.
    async fn send_to<'m>(
        &self,
        link: &mut BrokerLink,
        partitions: PartitionMessages<'m>,
        outcomes: &SharedOutcomes<'_, '_>,
    ) -> Vec<Pending<'m>> {
        let mut again = Vec::new();
        let mut requests: VecDeque<_> =
            split(partitions, self.settings.max_messages, self.settings.max_bytes).into_iter().collect();
        while let Some(request) = requests.pop_front() {
            let outcome = self.send_request(link, &request).await;
            let mut outcomes = outcomes.lock();
            let mut may_continue = true;
            for (partition, mut messages) in request {
                let failure = match &outcome {
                    Ok(failures) => failures.get(&partition),
                    Err(failure) => Some(failure),
                };
                match failure {
                    None => messages.iter().for_each(|message| outcomes.confirm(message.place)),
                    // One message is enough that a broker refuses all, so the halves are sent by themselves.
                    Some(Failure::BatchRefused(_)) if messages.len() > 1 => {
                        let second = messages.split_off(messages.len() / 2);
                        for half in [second, messages] {
                            requests.push_front(PartitionMessages::from([(partition.clone(), half)]));
                        }
                    }
                    Some(Failure::Final(error) | Failure::BatchRefused(error)) => {
                        messages.iter().for_each(|message| outcomes.refuse(message.place, error.clone()));
                    }
                    Some(Failure::Retriable(error)) => {
                        may_continue = false;
                        messages.iter().for_each(|message| outcomes.postpone(message.place, error.clone()));
                        again.extend(messages);
                    }
                }
            }
            if !may_continue {
                break;
            }
        }
        // Later messages must not precede those that are sent again.
        for message in requests.into_iter().flatten().flat_map(|(_, messages)| messages) {
            outcomes.lock().postpone(message.place, "an earlier message was not accepted".to_owned());
            again.push(message);
        }
        again
    }

    /// The failures of one request, by partition.
    async fn send_request(
        &self,
        link: &mut BrokerLink,
        request: &PartitionMessages<'_>,
    ) -> Result<BTreeMap<(Arc<str>, i32), Failure>, Failure> {
        let text = format!("{}:{}", link.address.0, link.address.1);
        let acks = self.settings.acks;
        let request_timeout = i32::try_from(self.settings.request_timeout.as_millis()).unwrap_or(i32::MAX);
        let write = |body: &mut WireWriter| {
            write_produce_head(body, acks, request_timeout);
            write_topics(body, request);
        };
        let response = self.exchange(link, PRODUCE, write).await.map_err(Failure::Retriable)?;
        if acks == Acks::None {
            return Ok(BTreeMap::new());
        }
        let produced = parse_produce_response(&response)
            .map_err(|error| Failure::Retriable(format!("{text}: {}", malformed(error))))?;
        let mut failures = BTreeMap::new();
        for partition in request.keys() {
            let failure = match produced.get(&(&*partition.0, partition.1)) {
                Some(error) if error.is_none() => continue,
                Some(error) => {
                    let message = format!("{text}: topic {}: {error}", partition.0);
                    if error.is_retriable() {
                        Failure::Retriable(message)
                    } else if error.is_about_a_message() {
                        Failure::BatchRefused(message)
                    } else {
                        Failure::Final(message)
                    }
                }
                None => Failure::Retriable(format!("{text}: topic {} has no result", partition.0)),
            };
            failures.insert(partition.clone(), failure);
        }
        Ok(failures)
    }

    /// Sends a request over the connection of a broker, which is opened if there is none. A connection that has failed
    /// is not used again.
    async fn exchange(
        &self,
        link: &mut BrokerLink,
        api: super::protocol::RequestKind,
        write: impl FnOnce(&mut WireWriter),
    ) -> Result<Vec<u8>, String> {
        let (host, port) = &link.address;
        let mut connection = match link.connection.take() {
            Some(connection) => connection,
            None => {
                let remote = Remote { host: host.clone(), port: *port, ..self.settings.bootstrap[0].clone() };
                BrokerConnection::open(&remote, self.settings.sasl.as_ref(), &*self.services).await?
            }
        };
        let limit = self.settings.response_timeout;
        let exchanging = async {
            if api == PRODUCE && self.settings.acks == Acks::None {
                return connection.send(api, write).await.map(|()| Vec::new());
            }
            connection.request(api, write).await
        };
        match timeout(limit, exchanging).await {
            Ok(Ok(response)) => {
                link.connection = Some(connection);
                Ok(response)
            }
            Ok(Err(error)) => Err(format!("{host}:{port}: {error}")),
            Err(_) => Err(format!("{host}:{port}: no response within {limit:?}")),
        }
    }
}

/// All messages of a leader that no broker is known for, to be sent again.
fn no_address<'m>(
    leader: i32,
    partitions: PartitionMessages<'m>,
    outcomes: &SharedOutcomes<'_, '_>,
) -> Vec<Pending<'m>> {
    let messages: Vec<_> = partitions.into_values().flatten().collect();
    for message in &messages {
        outcomes.lock().postpone(message.place, format!("broker {leader} has no address"));
    }
    messages
}

impl std::fmt::Debug for KafkaProducer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KafkaProducer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A topic, and its partitions with their messages.
type TopicMessages<'r, 'm> = (&'r str, Vec<(i32, &'r [Pending<'m>])>);

type PartitionMessages<'m> = BTreeMap<(Arc<str>, i32), Vec<Pending<'m>>>;

/// The messages of one leader as requests, each within both limits. A request has at least one message.
fn split(partitions: PartitionMessages<'_>, max_messages: usize, max_bytes: usize) -> Vec<PartitionMessages<'_>> {
    let mut requests = Vec::new();
    let mut request = PartitionMessages::new();
    let (mut count, mut bytes) = (0, 0);
    for (partition, messages) in partitions {
        for message in messages {
            let size = message.message.size() + RECORD_OVERHEAD;
            if count > 0 && (count >= max_messages || bytes + size > max_bytes) {
                requests.push(std::mem::take(&mut request));
                (count, bytes) = (0, 0);
            }
            (count, bytes) = (count + 1, bytes + size);
            request.entry(partition.clone()).or_default().push(message);
        }
    }
    if count > 0 {
        requests.push(request);
    }
    requests
}

/// The list of topics, each with its list of partitions.
fn write_topics(body: &mut WireWriter, request: &PartitionMessages<'_>) {
    let mut topics: Vec<TopicMessages<'_, '_>> = Vec::new();
    for ((topic, partition), messages) in request {
        match topics.last_mut().filter(|(last, _)| *last == &**topic) {
            Some((_, partitions)) => partitions.push((*partition, messages)),
            None => topics.push((topic, vec![(*partition, messages)])),
        }
    }
    body.length(topics.len());
    for (topic, partitions) in topics {
        body.string(topic);
        body.length(partitions.len());
        for (partition, messages) in partitions {
            body.i32(partition);
            body.bytes(&record_batch(messages.iter().map(|message| message.message)));
        }
    }
}
