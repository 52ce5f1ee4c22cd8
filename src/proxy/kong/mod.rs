//! Requests of Kong-class rules, where they go other ways than those of the Gateway API (`kong-compat.md` §3.4 to 3.6).
//!
//! ```text
//!   Listener ─ reads slashes as one ─▶ find ─▶ admit ──▶ introduce ─▶ pass_on ─▶ plugins, filters, endpoint
//!                                               └▶ 426, 301, 415        └ path, Host       │
//!                                               client ◀── mark: Via, X-Kong-…  ◀──────────┘
//! ```
//!
//! Path and Host are those of the endpoint before plugins run, so that what a plugin writes there is what counts.

pub(crate) mod introduction;
pub(crate) mod naming;

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, LOCATION, SERVER, TE, TRAILER, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version};
use tokio::time::Instant;

use self::introduction::{append_via, tell_prefix};
use self::naming::KongHeaders;
use super::body::Source;
use super::connection::Peer;
use super::exchange::Exchange;
use super::fault::Fault;
use super::headers::{X_FORWARDED_HOST, is_grpc, lists};
use super::passage;
use super::target::{Host, Path};
use super::upgrade::Upgrade;
use crate::plugin::chain::Protocols;
use crate::plugin::{Scheme, number};
use crate::snapshot::Listener;
use crate::snapshot::kong::{self, Manner, ToHost};
use crate::snapshot::router::MatchedPath;
use crate::snapshot::rule::{Action, Rule};

/// What is kept of a request to the end of its answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kong {
    /// The listener or the rule is one of Kong's. Else only the headers are wanted.
    is_class: bool,
    /// The client says that it can make something of trailers.
    takes_trailers: bool,
}

impl Kong {
    /// What requests have from the start, if the headers are wanted of all.
    pub(crate) fn always(peer: &Peer) -> Option<Kong> {
        (peer.worker.naming.when == KongHeaders::On).then(Kong::default)
    }

    /// The same fault in the words that Kong's clients know.
    pub(crate) fn words(&self, fault: Fault) -> Fault {
        match fault {
            Fault::NoEndpoints if self.is_class => Fault::NoPeer,
            Fault::Refused if self.is_class => Fault::PeerRefused,
            other => other,
        }
    }
}

/// The path as the listener's routes are matched with it.
pub(crate) fn read<'p>(listener: &Listener, path: Path<'p>) -> Path<'p> {
    match listener.is_kong().then(|| kong::normalize(&path.path)).flatten() {
        Some(merged) => Path { path: Cow::Owned(merged), ..path },
        None => path,
    }
}

/// Has what is said of the request be said as Kong would.
pub(crate) fn note(exchange: &mut Exchange) {
    exchange.kong.get_or_insert_default().is_class = true;
}

/// Whether the request was spoken in what the rule asks for. If not it may be sent to where it should have gone.
pub(crate) fn admit<B>(
    manner: &Manner,
    request: &Request<B>,
    host: &Host,
    peer: &Peer,
) -> Result<Option<Response<Source>>, Fault> {
    let Protocols { http, https, grpc, grpcs } = manner.protocols;
    let headers = request.headers();
    let is_secure = || passage::scheme(peer, headers) == Scheme::Https;
    if https && !http && !is_secure() {
        let redirect = manner.https_redirect;
        if redirect.status == StatusCode::UPGRADE_REQUIRED {
            return Err(Fault::HttpsOnly);
        }
        let mut answer = Response::new(Source::Ours(Bytes::new()));
        *answer.status_mut() = redirect.status;
        let location = secure(request.uri(), &forwarded_host(peer, headers, host), redirect.port)?;
        answer.headers_mut().insert(LOCATION, location);
        return Ok(Some(answer));
    }
    if (grpc || grpcs) && !http && !https {
        if request.version() != Version::HTTP_2 {
            return Err(Fault::Http2Only);
        }
        if !is_grpc(headers) {
            return Err(Fault::NotGrpc);
        }
        if !grpc && !is_secure() {
            return Err(Fault::GrpcsOnly);
        }
    }
    Ok(None)
}

/// The same target on the same host, over TLS.
fn secure(uri: &Uri, host: &str, port: u16) -> Result<HeaderValue, Fault> {
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    HeaderValue::try_from(format!("https://{host}{port}{target}")).map_err(|_| Fault::Rewrite)
}

/// A trusted peer knows what the client has asked for.
fn forwarded_host<'h>(peer: &Peer, headers: &'h HeaderMap, host: &'h Host) -> Cow<'h, str> {
    let told = headers.get(X_FORWARDED_HOST).filter(|_| peer.client.trusted);
    match told.and_then(|told| told.to_str().ok()).filter(|told| !told.is_empty()) {
        Some(told) => Cow::Borrowed(told),
        None => host.name(),
    }
}

/// Other protocols than WebSocket are not passed on: the request goes on as if it had not asked for them.
pub(crate) fn upgrading(upgrade: Option<Box<Upgrade>>) -> Option<Box<Upgrade>> {
    upgrade.filter(|upgrade| upgrade.is_websocket())
}

/// Makes the request what the endpoint is to see, but for what plugins and filters write. What was meant for this hop is
/// gone already. Gives the client's target if the request has another one now.
pub(crate) fn pass_on<B>(
    rule: &Rule,
    manner: &Manner,
    matched: MatchedPath<'_>,
    path: &Path<'_>,
    request: &mut Request<B>,
    exchange: &mut Exchange,
) -> Result<Option<Uri>, Fault> {
    let mut before = None;
    name_us(request, exchange);
    let headers = request.headers_mut();
    let kong = exchange.kong.get_or_insert_default();
    kong.takes_trailers = headers.get_all(TE).iter().any(|value| lists(value, "trailers"));
    if let Action::Forward(_) = rule.action {
        // A filter that rewrites the path speaks of the one that was matched.
        let is_rewritten = rule.filters.rewrite.as_ref().is_some_and(|rewrite| rewrite.path.is_some());
        if !is_rewritten {
            let stripped = manner.strip_path.then(|| matched.length(&path.path));
            let prefix = stripped.and_then(|stripped| path.path.get(..stripped));
            tell_prefix(headers, prefix.unwrap_or_default());
            match &manner.rewrite {
                Some(template) => {
                    let rewritten = template.fill(&matched.captures(&path.path), path.query).ok_or(Fault::Rewrite)?;
                    before = Some(std::mem::replace(request.uri_mut(), parsed(rewritten)?));
                }
                None => {
                    let upstream = kong::upstream_path(&manner.path, &path.path, stripped);
                    if *upstream != *request.uri().path() || request.uri().authority().is_some() {
                        before = Some(std::mem::replace(request.uri_mut(), target(&upstream, path.query)?));
                    }
                }
            }
        }
        if let ToHost::Named(host) = &manner.host {
            request.headers_mut().insert(HOST, host.clone());
        }
    }
    Ok(before)
}

fn target(path: &str, query: Option<&str>) -> Result<Uri, Fault> {
    let mut target = String::with_capacity(path.len() + query.map_or(0, |query| query.len() + 1));
    target.push_str(path);
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    parsed(target)
}

fn parsed(target: String) -> Result<Uri, Fault> {
    let target = PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(|_| Fault::Rewrite)?;
    Ok(Uri::from(target))
}

/// Tells the endpoint who passed the request on, and under which name.
pub(crate) fn name_us<B>(request: &mut Request<B>, exchange: &Exchange) {
    let Some(kong) = &exchange.kong else { return };
    let naming = &exchange.peer.worker.naming;
    if kong.is_named(naming.when) {
        let version = request.version();
        let headers = request.headers_mut();
        append_via(headers, naming.via(version));
        headers.insert(X_KONG_REQUEST_ID, exchange.id.clone());
    }
}

impl Kong {
    fn is_named(&self, when: KongHeaders) -> bool {
        match when {
            KongHeaders::Auto => self.is_class,
            KongHeaders::On => true,
            KongHeaders::Off => false,
        }
    }
}

/// Writes on the answer what Kong writes on it, after plugins have seen it.
pub(crate) fn mark(answer: &mut Response<Source>, exchange: &Exchange, now: Instant) {
    let Some(kong) = &exchange.kong else { return };
    let is_ours = matches!(answer.body(), Source::Ours(_));
    let headers = answer.headers_mut();
    if kong.is_class && !is_ours && !kong.takes_trailers {
        headers.remove(TRAILER);
    }
    let naming = &exchange.peer.worker.naming;
    if !kong.is_named(naming.when) {
        return;
    }
    let began = exchange.peer.activity.started.get();
    headers.insert(X_KONG_REQUEST_ID, exchange.id.clone());
    if is_ours {
        headers.insert(SERVER, naming.server.clone());
        headers.insert(X_KONG_RESPONSE_LATENCY, milliseconds(began, now));
    } else {
        let sent = exchange.peer.activity.sent.get().unwrap_or(now);
        append_via(headers, naming.via(Version::HTTP_11));
        headers.insert(X_KONG_UPSTREAM_LATENCY, milliseconds(sent, now));
        headers.insert(X_KONG_PROXY_LATENCY, milliseconds(began, sent));
    }
}

/// What a client is to speak instead of what it does. HTTP/2 has no such fields.
pub(crate) fn offer(fault: Fault, version: Version, headers: &mut HeaderMap) {
    let protocols = match fault {
        Fault::HttpsOnly => "TLS/1.2, HTTP/1.1",
        Fault::Http2Only => "HTTP/2",
        _ => return,
    };
    if version < Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(protocols));
    }
}

fn milliseconds(from: Instant, to: Instant) -> HeaderValue {
    number::header_of(u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX))
}

const X_KONG_REQUEST_ID: HeaderName = HeaderName::from_static("x-kong-request-id");
const X_KONG_RESPONSE_LATENCY: HeaderName = HeaderName::from_static("x-kong-response-latency");
const X_KONG_UPSTREAM_LATENCY: HeaderName = HeaderName::from_static("x-kong-upstream-latency");
const X_KONG_PROXY_LATENCY: HeaderName = HeaderName::from_static("x-kong-proxy-latency");
