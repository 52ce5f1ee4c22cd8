//! How messages reach a producer: in the batches of a queue, or one after the other for requests that wait.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::debug;

use super::message::KafkaMessage;
use super::producer::KafkaProducer;
use crate::log_delivery::DeliveryReports;
use crate::plugin_api::RouteNames;
use crate::plugin_api::batch_queue::{BatchOutcome, BatchSender, DEFAULT_QUEUED_BYTES, HeldBytes, QueuedBytes};
use crate::plugin_api::kind::BuildCx;

/// Sends the batches of a queue, whose entries are those of [`KafkaMessage::to_entry`].
pub(crate) struct BatchedMessages {
    producer: Arc<KafkaProducer>,
    reports: Arc<DeliveryReports>,
}

impl BatchedMessages {
    pub(crate) fn new(producer: Arc<KafkaProducer>, reports: Arc<DeliveryReports>) -> Self {
        BatchedMessages { producer, reports }
    }
}

impl BatchSender for BatchedMessages {
    fn encode(&self, entries: &[Bytes]) -> Bytes {
        match entries {
            [only] => only.clone(),
            entries => entries.concat().into(),
        }
    }

    fn send(&self, body: Bytes) -> BoxFuture<'static, bool> {
        self.deliver(body).map(|outcome| outcome == BatchOutcome::Accepted).boxed()
    }

    fn deliver(&self, body: Bytes) -> BoxFuture<'static, BatchOutcome> {
        let (producer, reports) = (Arc::clone(&self.producer), Arc::clone(&self.reports));
        async move {
            let messages = KafkaMessage::from_entries(body).expect("the entries of this queue are messages");
            let mut failures = producer.produce(&messages).await.into_iter().flatten();
            let first = failures.next();
            let rejected = u64::from(first.is_some()) + failures.count() as u64;
            reports.update(first);
            // The producer itself has sent them again as often as it may.
            if rejected == 0 { BatchOutcome::Accepted } else { BatchOutcome::AcceptedInPart { rejected } }
        }
        .boxed()
    }
}

/// Messages of requests that wait until brokers have confirmed them. Those that wait at the same time are sent
/// together.
pub(crate) struct AwaitedMessages {
    calls: mpsc::Sender<AwaitedCall>,
    queued: Arc<QueuedBytes>,
}

struct AwaitedCall {
    messages: Vec<KafkaMessage>,
    done: oneshot::Sender<bool>,
    /// Released when the messages are.
    held: HeldBytes,
}

/// Why a message was not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotProduced {
    /// Too many others wait.
    Busy,
    /// The conditions of the object and the log have the reason.
    Failed,
}

impl AwaitedMessages {
    /// Starts the task that sends messages, which ends when this is dropped.
    pub(crate) fn start(producer: Arc<KafkaProducer>, reports: Arc<DeliveryReports>, cx: &BuildCx<'_>) -> Self {
        let (calls, waiting) = mpsc::channel(MAX_CALLS);
        cx.services.spawn(Box::pin(send_calls(producer, reports, waiting)));
        AwaitedMessages { calls, queued: QueuedBytes::of(cx.state, DEFAULT_QUEUED_BYTES) }
    }

    /// Waits until all messages of a request are confirmed, which count for the namespace of its route.
    pub(crate) async fn send(&self, route: &RouteNames, messages: Vec<KafkaMessage>) -> Result<(), NotProduced> {
        let mut held = self.queued.hold(&route.namespace);
        if !held.try_add(messages.iter().map(KafkaMessage::size).sum()) {
            return Err(NotProduced::Busy);
        }
        let (done, result) = oneshot::channel();
        self.calls.try_send(AwaitedCall { messages, done, held }).map_err(|_| NotProduced::Busy)?;
        match timeout(MAX_WAIT, result).await {
            Ok(Ok(true)) => Ok(()),
            _ => Err(NotProduced::Failed),
        }
    }
}

async fn send_calls(
    producer: Arc<KafkaProducer>,
    reports: Arc<DeliveryReports>,
    mut waiting: mpsc::Receiver<AwaitedCall>,
) {
    let max_messages = producer.settings().max_messages;
    while let Some(first) = waiting.recv().await {
        let mut calls = vec![first];
        let mut count = calls[0].messages.len();
        while count < max_messages
            && let Ok(call) = waiting.try_recv()
        {
            count += call.messages.len();
            calls.push(call);
        }
        // Requests whose clients are gone need no message.
        calls.retain(|call| !call.done.is_closed());
        if calls.is_empty() {
            continue;
        }
        let (mut messages, mut owners, mut waiting_calls) = (Vec::new(), Vec::new(), Vec::new());
        for (index, call) in calls.into_iter().enumerate() {
            owners.extend(std::iter::repeat_n(index, call.messages.len()));
            waiting_calls.push(WaitingCall { open: call.messages.len(), done: Some(call.done), _held: call.held });
            messages.extend(call.messages);
        }
        // A request whose messages are confirmed does not wait for those of others.
        let mut settle = |place: usize, is_confirmed: bool| waiting_calls[owners[place]].settle(is_confirmed);
        let results = producer.produce_each(&messages, &mut settle).await;
        reports.update(results.into_iter().flatten().next());
    }
}

/// A call whose messages are on their way.
struct WaitingCall {
    /// Messages that are neither confirmed nor refused.
    open: usize,
    /// `None` once the request has its result.
    done: Option<oneshot::Sender<bool>>,
    _held: HeldBytes,
}

impl WaitingCall {
    fn settle(&mut self, is_confirmed: bool) {
        self.open = self.open.saturating_sub(1);
        if (self.open == 0 || !is_confirmed)
            && let Some(done) = self.done.take()
            && done.send(is_confirmed).is_err()
        {
            debug!(is_confirmed, "The client of a message for Kafka has not waited for it");
        }
    }
}

/// Requests that wait for one producer.
const MAX_CALLS: usize = 1024;
/// The longest time that a request waits, whatever the number of retries is.
const MAX_WAIT: Duration = Duration::from_secs(60);
