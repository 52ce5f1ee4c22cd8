//! What remains of the plugins of a request until its end: which have run, and what they log.

use std::sync::Arc;
use std::time::Duration;

use http::header::VARY;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use crate::forwarding_fields::X_REQUEST_ID;
use crate::plugin_api::completed_request::LoggedTls;
use crate::plugin_api::{ChangedFields, CompletedRequest, KeptBytes, RequestLine, RequestSummary, ResponseSource};
use crate::plugin_chain::Chain;
use crate::plugin_chain::chain::ChainState;
use crate::proxy::buffer_budget::BufferedBytes;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::record::request_facts::RequestFacts;
use crate::turn_clock;

/// One run of a plugin chain, kept with the request until its response is complete.
pub(in crate::proxy) struct PluginRun {
    pub(in crate::proxy) chain: Arc<Chain>,
    pub(in crate::proxy) state: ChainState,
    /// When the head of the response was received or generated.
    pub(in crate::proxy) responded_at: Option<Instant>,
    /// Where the response comes from.
    pub(in crate::proxy) source: ResponseSource,
    /// The target and the host of the request, if a plugin reads them in the response phase.
    pub(in crate::proxy) request_line: Option<Box<RequestLine>>,
    /// The bytes of the response that are in memory until it is sent: those of a body that was collected.
    pub(in crate::proxy) kept_body: KeptBody,
    /// The same for encoders.
    pub(in crate::proxy) kept_encoders: Vec<BufferedBytes>,
}

/// The bytes of a body in memory, and of those that it has replaced.
#[derive(Default)]
pub(in crate::proxy) struct KeptBody(Vec<Box<dyn KeptBytes>>);

impl KeptBody {
    /// How many bytes were taken.
    pub(in crate::proxy) fn bytes(&self) -> usize {
        self.0.iter().map(|kept| kept.bytes()).sum()
    }

    pub(in crate::proxy) fn add(&mut self, kept: BufferedBytes) {
        self.0.push(Box::new(kept));
    }

    pub(in crate::proxy) fn add_all(&mut self, kept: Vec<Box<dyn KeptBytes>>) {
        self.0.extend(kept);
    }
}

impl PluginRun {
    /// Moves the headers that do not depend on the endpoint to the response that replaces another one.
    pub(in crate::proxy) fn keep_headers(&self, former: &mut HeaderMap, headers: &mut HeaderMap) {
        keep_headers_of_request(former, headers);
        self.state.response_headers.carry_over(former, headers);
    }

    /// The fields that plugins change which only the consumer or its groups have.
    pub(in crate::proxy) fn fields_of_request(&self) -> Option<ChangedFields> {
        self.state.fields_of_request()
    }

    /// Records how long a body filter of a plugin took.
    pub(in crate::proxy) fn record_body_filter(&mut self, plugin: &'static str, duration: Duration) {
        self.state.timings.record_body_filter(plugin, duration);
    }

    /// The name of the authenticated consumer: its username, otherwise its custom ID, otherwise its ID.
    pub(in crate::proxy) fn consumer_name(&self) -> Option<Arc<str>> {
        let consumer = self.state.identity.consumer.as_ref()?;
        let name = consumer.username.as_ref().or(consumer.custom_id());
        Some(name.map_or_else(|| Arc::from(&**consumer.reported_id()), |name| Arc::clone(name.text())))
    }

    /// Runs the log phase of the plugins and records how long they took.
    pub(in crate::proxy) fn run_log(
        &self,
        exchange: &ClientExchange,
        facts: &RequestFacts,
        status: StatusCode,
        total: Duration,
    ) {
        exchange.worker().counters.record_plugins(self.state.timings.all());
        if !self.chain.may_log(&self.state) {
            return;
        }
        let sent_at = exchange.activity.sent_at.get();
        let sent = sent_at.filter(|_| self.source == ResponseSource::Service);
        let summary = RequestSummary {
            status,
            source: self.source,
            total,
            upstream: sent.zip(self.responded_at).map(|(sent, responded)| responded - sent),
            bytes_in: exchange.activity.bytes_in.get(),
            bytes_out: facts.bytes_out,
        };
        let since_start = |time: Instant| time.saturating_duration_since(exchange.activity.started_at.get());
        let request = CompletedRequest {
            id: &facts.request_id,
            started_at: turn_clock::to_system_time(exchange.activity.started_at.get()),
            started_instant: exchange.activity.started_at.get(),
            heads: facts.heads.as_deref(),
            tls: exchange.tls.as_deref().map(|tls| LoggedTls {
                version: tls.version,
                cipher: tls.cipher,
                server_name: tls.server_name.as_deref(),
            }),
            attempts: facts.attempts.as_slice(),
            authorizations: &facts.authorizations,
            before_upstream: sent_at.map(since_start),
            until_response: self.responded_at.map(since_start),
            error: facts.error,
            credentials: self.chain.credential_locations(),
        };
        self.chain.log(&self.state, &summary, &request);
    }
}

/// Copies the headers that depend on the request, not on the response that is replaced: its ID, and CORS.
pub(in crate::proxy) fn keep_headers_of_request(former: &HeaderMap, headers: &mut HeaderMap) {
    for (name, value) in former {
        if name == VARY {
            headers.append(name, value.clone());
        } else if name == X_REQUEST_ID || name.as_str().starts_with("access-control-") {
            headers.entry(name).or_insert_with(|| value.clone());
        }
    }
}
