//! What a plugin sees of a request and its answer, and what it can do to them.

use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request};
use smallvec::SmallVec;

use super::consumers::{Consumer, Directory, Id};
use super::scheme::Scheme;

/// A request on its way to an endpoint.
pub struct RequestCx<'r> {
    /// As it will go upstream. The method is the client's; `headers` holds what the client sent, without what was meant for
    /// this hop, and with the forwarding headers. What a plugin puts here the endpoint gets.
    pub head: &'r mut request::Parts,
    /// The path that was matched: dot segments resolved, unreserved bytes decoded.
    pub path: &'r str,
    /// As the client wrote it. To change it, write `head.uri`.
    pub query: Option<&'r str>,
    pub client: Client<'r>,
    pub framing: Framing,
    /// The request's id, 32 hexadecimal digits unless a trusted peer gave another.
    pub id: &'r HeaderValue,
    /// The whole body as the client sent it, if some plugin of the chain asked for it.
    pub body: Option<&'r Bytes>,
    /// What goes upstream in its place. See [`RequestCx::write_body`].
    pub new_body: &'r mut Option<Bytes>,
    /// Who is asking, as far as plugins have found out.
    pub identity: &'r mut Identity,
    pub consumers: &'r Directory,
    /// Set on whatever answer the client gets, after the endpoint's own headers and before `Plugin::answer`.
    pub answer_headers: &'r mut AnswerHeaders,
    /// Bytes of body after which the request is cut off with 413; the smallest that any plugin asks for counts.
    pub body_limit: &'r mut Option<u64>,
    pub now: SystemTime,
    /// What the plugin is attached to here, for example `HTTPRoute/default/shop/0`, `Service/default/cart:80` or `global`: what
    /// is counted is counted for each of these apart.
    pub scope: &'r str,
    pub route: &'r Names,
    pub(crate) kept: &'r mut Kept,
    pub(crate) slot: u16,
}

impl RequestCx<'_> {
    /// The body as it will go upstream, if some plugin of the chain asked for it.
    pub fn current_body(&self) -> Option<&Bytes> {
        self.new_body.as_ref().or(self.body)
    }

    /// Sends another body upstream, if the body was asked for; what was not read cannot be replaced. Its length is written
    /// with it.
    pub fn write_body(&mut self, body: Bytes) {
        if self.body.is_some() {
            self.head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            *self.new_body = Some(body);
        }
    }

    /// Keeps something of this plugin's for `Plugin::answer` and `Plugin::log` of the same request.
    pub fn keep<T: Any>(&mut self, value: T) {
        self.kept.put(self.slot, value);
    }
}

/// Headers that plugins have for the answer: a list, which costs less than a map that is poured into another one.
#[derive(Debug, Default)]
pub struct AnswerHeaders(SmallVec<[(HeaderName, HeaderValue); 8]>);

impl AnswerHeaders {
    /// Of several values for one name the last counts.
    pub fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.push((name, value));
    }

    /// Writes all of it in place of what stands there under these names.
    pub(crate) fn apply(&mut self, headers: &mut HeaderMap) {
        headers.reserve(self.0.len());
        for (name, value) in self.0.drain(..) {
            headers.insert(name, value);
        }
    }
}

/// Who sent the request, and how.
#[derive(Clone, Copy, Debug)]
pub struct Client<'r> {
    /// The client's own address, as far as trusted peers tell it.
    pub address: IpAddr,
    pub port: u16,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// What the client spoke, as far as trusted peers tell it.
    pub scheme: Scheme,
    /// Authority as the client wrote it, with its port if it has one.
    pub host: &'r str,
    /// The port clients see.
    pub listen_port: u16,
}

/// How the body comes, which was said in headers for this hop only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framing {
    /// With `Transfer-Encoding: chunked`.
    pub is_chunked: bool,
    /// After `Expect: 100-continue` has been answered.
    pub expects_continue: bool,
}

/// The names of what was matched, as Kong's clients, logs and metrics know them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Of the route, for example `default.shop.cart..80` or `httproute.default.shop.0.0`.
    pub route: Arc<str>,
    /// Of the service, for example `default.cart.80`.
    pub service: Arc<str>,
}

/// Who is asking.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    pub consumer: Option<Arc<Consumer>>,
    /// Id of the credential that was shown; none for anonymous consumers.
    pub credential: Option<Id>,
    /// Groups that an authentication plugin vouches for without a consumer.
    pub groups: Vec<Arc<str>>,
}

/// The head of an answer on its way to the client.
pub struct AnswerCx<'r> {
    pub status: StatusCode,
    pub headers: &'r mut HeaderMap,
    pub source: Source,
    pub id: &'r HeaderValue,
    pub identity: &'r Identity,
    pub scope: &'r str,
    pub(crate) kept: &'r mut Kept,
    pub(crate) slot: u16,
}

impl AnswerCx<'_> {
    /// What this plugin kept in `access`; nothing if it had no turn.
    pub fn kept<T: Any>(&mut self) -> Option<&mut T> {
        self.kept.of(self.slot)
    }
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The endpoint.
    Service,
    /// A plugin or the proxy.
    Ours,
}

/// A request and its answer, when all is over.
pub struct LogCx<'r> {
    pub names: &'r Names,
    pub ended: &'r Ended,
    pub identity: &'r Identity,
    pub scope: &'r str,
}

/// How a request ended.
#[derive(Clone, Debug)]
pub struct Ended {
    pub status: StatusCode,
    pub source: Source,
    /// From the first byte of the request to the last of the answer.
    pub total: Duration,
    /// From when the request went upstream to the head of the answer. None if it was not forwarded.
    pub upstream: Option<Duration>,
    /// Of bodies.
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// What plugins keep of a request between phases, by their place in the chain.
#[derive(Default)]
pub struct Kept(SmallVec<[(u16, Box<dyn Any>); 1]>);

impl Kept {
    fn put(&mut self, slot: u16, value: impl Any) {
        self.0.retain(|(owner, _)| *owner != slot);
        self.0.push((slot, Box::new(value)));
    }

    fn of<T: Any>(&mut self, slot: u16) -> Option<&mut T> {
        self.0.iter_mut().find(|(owner, _)| *owner == slot).and_then(|(_, value)| value.downcast_mut())
    }
}
