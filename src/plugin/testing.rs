//! One harness for the tests of all plugins: a configuration, a request, and what the chain makes of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use serde_json::Value;

use super::chain::{Ask, Base, Builder, Chain, Instance, Passage, Place, Protocols, Spoken};
use super::consumers::Id;
use super::cx::{Client, Ended, Framing, Names, Source};
use super::kind::{AnyKind, BuildCx, Invalid, Notes};
use super::reply::{Reply, ReplyBody};
use super::scheme::Scheme;
use super::services::NoServices;
use super::{Consumer, Directory, Plugin, Services, State};

/// Builds a plugin as configured, without a world around it.
pub fn build(kind: &dyn AnyKind, config: &Value) -> Result<Arc<dyn Plugin>, Vec<Invalid>> {
    let services: Arc<dyn Services> = Arc::new(NoServices);
    build_with(kind, config, &State::default(), &services)
}

pub fn build_with(
    kind: &dyn AnyKind,
    config: &Value,
    state: &State,
    services: &Arc<dyn Services>,
) -> Result<Arc<dyn Plugin>, Vec<Invalid>> {
    kind.build(
        config,
        &BuildCx { object: "KongPlugin/default/test", state, services, node: "test", notes: &Notes::default() },
    )
}

/// What is said about a configuration that is good all the same.
pub fn notes(kind: &dyn AnyKind, config: &Value) -> Vec<Invalid> {
    let (state, notes) = (State::default(), Notes::default());
    let services: Arc<dyn Services> = Arc::new(NoServices);
    let cx =
        BuildCx { object: "KongPlugin/default/test", state: &state, services: &services, node: "test", notes: &notes };
    kind.build(config, &cx).unwrap_or_else(|invalid| panic!("{}: {invalid:?}", kind.name()));
    notes.into_vec()
}

/// A chain of these plugins, all attached to the route.
pub fn chain(plugins: &[(&dyn AnyKind, Value)]) -> Arc<Chain> {
    let services: Arc<dyn Services> = Arc::new(NoServices);
    chain_with(plugins, &State::default(), &services)
}

/// The same, with what outlives a configuration and with a world.
pub fn chain_with(plugins: &[(&dyn AnyKind, Value)], state: &State, services: &Arc<dyn Services>) -> Arc<Chain> {
    let mut builder = Builder::default();
    for (kind, config) in plugins {
        let plugin =
            build_with(*kind, config, state, services).unwrap_or_else(|invalid| panic!("{}: {invalid:?}", kind.name()));
        builder.add(kind.name(), kind.priority(), Place::Base(Base::Route), instance(*kind, plugin));
    }
    builder.build(names()).unwrap_or_else(|| panic!("a chain of nothing"))
}

pub fn instance(kind: &dyn AnyKind, plugin: Arc<dyn Plugin>) -> Instance {
    Instance {
        plugin,
        phases: kind.phases(),
        protocols: Protocols::of(kind.protocols().iter().copied()),
        scope: "HTTPRoute/default/test/0".into(),
        object: "KongPlugin/default/test".into(),
        configuration: 0,
    }
}

pub fn names() -> Arc<Names> {
    Arc::new(Names { route: "default.test.web..80".into(), service: "default.web.80".into() })
}

/// A consumer `name`, whose id is `id-name` and whose custom id is `custom-name`.
pub fn consumer(name: &str, acls: &[&str]) -> Arc<Consumer> {
    let acls = acls.iter().copied().map(Arc::from).collect();
    Arc::new(Consumer::new(
        Id::of(&format!("id-{name}")),
        Some(name),
        Some(&format!("custom-{name}")),
        Vec::new(),
        acls,
    ))
}

/// Noon of 2026-01-02.
pub fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_355_200)
}

/// One request from 192.0.2.1 over HTTP at noon of 2026-01-02, unless it is said otherwise.
pub struct Visit {
    pub request: Request<Bytes>,
    pub consumers: Directory,
    pub address: std::net::IpAddr,
    pub scheme: Scheme,
    pub now: SystemTime,
    /// What the endpoint answers.
    pub endpoint: Response<()>,
}

/// What became of it.
pub struct Outcome {
    /// As the endpoint would have got it; its head also if a plugin replied.
    pub request: http::request::Parts,
    pub reply: Option<Box<Reply>>,
    /// After all plugins have seen it.
    pub answer: http::response::Parts,
    pub passage: Passage,
}

impl Visit {
    pub fn new(request: Request<Bytes>) -> Self {
        Visit {
            request,
            consumers: Directory::default(),
            address: [192, 0, 2, 1].into(),
            scheme: Scheme::Http,
            now: noon(),
            endpoint: Response::new(()),
        }
    }

    /// With a body, of this content type.
    pub fn post(uri: &str, content_type: &str, body: impl Into<Bytes>) -> Self {
        let request = Request::post(uri).header(http::header::CONTENT_TYPE, content_type).body(body.into());
        Visit::new(request.unwrap_or_else(|error| panic!("{uri} {content_type}: {error}")))
    }

    pub fn get(uri: &str) -> Self {
        let request = Request::get(uri).body(Bytes::new());
        Visit::new(request.unwrap_or_else(|error| panic!("{uri}: {error}")))
    }

    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).unwrap_or_else(|error| panic!("{value}: {error}"));
        self.request.headers_mut().append(name, value);
        self
    }

    #[must_use]
    pub fn of(mut self, consumers: &Directory) -> Self {
        self.consumers = consumers.clone();
        self
    }

    /// Sends it through a chain, and an answer back.
    pub async fn run(self, chain: &Chain) -> Outcome {
        let (mut head, body) = self.request.into_parts();
        let uri = head.uri.clone();
        let host = head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("test.example");
        let host = host.to_owned();
        let content_type = head.headers.get(http::header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let spoken =
            Spoken { secure: self.scheme == Scheme::Https, grpc: content_type.starts_with(b"application/grpc") };
        // As the proxy does with what is meant for one hop.
        let hop = |name| head.headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
        let framing = Framing {
            is_chunked: hop(http::header::TRANSFER_ENCODING) == b"chunked",
            expects_continue: hop(http::header::EXPECT) == b"100-continue",
        };
        head.headers.remove(http::header::TRANSFER_ENCODING);
        head.headers.remove(http::header::EXPECT);
        let id = HeaderValue::from_static("0123456789abcdef0123456789abcdef");
        let mut passage = Passage::default();
        let ask = Ask {
            head: &mut head,
            path: uri.path(),
            query: uri.query(),
            client: Client {
                address: self.address,
                port: 40_000,
                peer: self.address,
                scheme: self.scheme,
                host: &host,
                listen_port: 80,
            },
            framing,
            id: &id,
            body: Some(&body).filter(|_| chain.reads_body().is_some()),
            consumers: &self.consumers,
            now: self.now,
            spoken,
        };
        let reply = chain.access(ask, &mut passage).await;
        let (mut answer, ()) = self.endpoint.into_parts();
        let mut source = Source::Service;
        if let Some(reply) = &reply {
            answer.status = reply.status;
            answer.headers = reply.headers.clone();
            source = Source::Ours;
        }
        chain.answer(&mut passage, answer.status, &mut answer.headers, source, &id);
        let (status, bytes_in, bytes_out) = (answer.status, body.len() as u64, 0);
        let upstream = (source == Source::Service).then_some(Duration::from_millis(5));
        let ended = Ended { status, source, total: Duration::from_millis(7), upstream, bytes_in, bytes_out };
        chain.log(&passage, &ended);
        Outcome { request: head, reply, answer, passage }
    }
}

impl Outcome {
    /// The status that a plugin replied with.
    pub fn replied(&self) -> Option<StatusCode> {
        self.reply.as_ref().map(|reply| reply.status)
    }

    /// What the endpoint is told of who is asking: consumer's username, credential, and whether that stands for strangers.
    pub fn known_as(&self) -> (Option<&str>, Option<&str>, bool) {
        let anonymous = self.sent("x-anonymous-consumer") == Some("true");
        (self.sent("x-consumer-username"), self.sent("x-credential-identifier"), anonymous)
    }

    /// The message of a plugin's reply.
    pub fn message(&self) -> Option<&str> {
        match &self.reply.as_ref()?.body {
            ReplyBody::Negotiated(message) | ReplyBody::Plain(message) => Some(message),
            ReplyBody::Raw(bytes) => std::str::from_utf8(bytes).ok(),
            ReplyBody::Empty => None,
        }
    }

    /// A header of the request as the endpoint gets it.
    pub fn sent(&self, name: &str) -> Option<&str> {
        self.request.headers.get(name)?.to_str().ok()
    }

    /// A header of the answer as the client gets it.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.answer.headers.get(name)?.to_str().ok()
    }
}
