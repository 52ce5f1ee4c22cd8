//! A connection to one broker: authentication, and requests one after the other.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::protocol::{
    self, API_VERSIONS, ErrorCode, METADATA, PRODUCE, RequestKind, SASL_AUTHENTICATE, SASL_HANDSHAKE,
    parse_authenticate_response, parse_handshake_response,
};
use super::scram::{ScramClient, ScramError, ScramHash};
use super::wire::{MalformedResponse, WireReader, WireWriter};
use crate::plugin_api::remote::{Remote, RemoteStream};
use crate::plugin_api::services::PluginServices;

/// A connection. After an error it must be dropped, since a response may still be on its way.
pub(super) struct BrokerConnection {
    stream: Box<dyn RemoteStream>,
    last_id: i32,
    used_at: Instant,
}

/// How the producer proves its identity to brokers.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Sasl {
    pub(super) mechanism: Mechanism,
    pub(super) user: std::sync::Arc<str>,
    pub(super) password: std::sync::Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    Plain,
    Scram { hash: ScramHash, is_token: bool },
}

impl BrokerConnection {
    /// Connects and authenticates. The error contains the address.
    pub(super) async fn open(
        remote: &Remote,
        sasl: Option<&Sasl>,
        services: &dyn PluginServices,
    ) -> Result<Self, String> {
        let stream = services.connect(remote.clone()).await?;
        let mut connection = BrokerConnection { stream, last_id: 0, used_at: Instant::now() };
        let address = || format!("{}:{}", remote.host, remote.port);
        match timeout(remote.timeout, connection.negotiate(sasl)).await {
            Ok(Ok(())) => Ok(connection),
            Ok(Err(error)) => Err(format!("{}: {error}", address())),
            Err(_) => Err(format!("{}: no response within {:?}", address(), remote.timeout)),
        }
    }

    /// Whether the connection has been used within this time.
    pub(super) fn is_fresh(&self, idle_limit: Duration) -> bool {
        self.used_at.elapsed() < idle_limit
    }

    /// The connection, unless its broker has closed it. Brokers close those that were idle for long, and a request over
    /// one would be lost: without acknowledgments, nothing would show that.
    pub(super) fn still_open(mut self) -> Option<Self> {
        // Nothing is to be read while no request waits for a response.
        self.stream.read_u8().now_or_never().is_none().then_some(self)
    }

    /// Sends a request and waits for its response. `write` adds the body of the request.
    pub(super) async fn request(
        &mut self,
        api: RequestKind,
        write: impl FnOnce(&mut WireWriter),
    ) -> Result<Vec<u8>, String> {
        self.send(api, write).await?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await.map_err(|error| error.to_string())?;
        let length = u64::from(u32::from_be_bytes(length));
        if !(4..=MAX_RESPONSE).contains(&length) {
            return Err(format!("a response of {length} bytes is not one of Kafka's protocol"));
        }
        // Grows with what arrives, not with what was announced.
        let mut response = Vec::new();
        let read = (&mut self.stream).take(length).read_to_end(&mut response).await;
        if read.map_err(|error| error.to_string())? as u64 != length {
            return Err("the connection ends within a response".to_owned());
        }
        if WireReader(&response).i32() != Ok(self.last_id) {
            return Err("the response belongs to another request".to_owned());
        }
        response.drain(..4);
        self.used_at = Instant::now();
        Ok(response)
    }

    /// Sends a request that the broker does not respond to.
    pub(super) async fn send(&mut self, api: RequestKind, write: impl FnOnce(&mut WireWriter)) -> Result<(), String> {
        self.last_id = self.last_id.wrapping_add(1) & i32::MAX;
        let mut request = protocol::begin(api, self.last_id);
        write(&mut request);
        let request = protocol::finish(request);
        let writing = async {
            self.stream.write_all(&request).await?;
            self.stream.flush().await
        };
        writing.await.map_err(|error: std::io::Error| error.to_string())?;
        self.used_at = Instant::now();
        Ok(())
    }

    /// Checks that the broker supports the requests, and authenticates.
    async fn negotiate(&mut self, sasl: Option<&Sasl>) -> Result<(), String> {
        let response = self.request(API_VERSIONS, |_| ()).await?;
        let (error, supported) = protocol::parse_api_versions(&response).map_err(malformed)?;
        if !error.is_none() {
            return Err(format!("the broker does not say which requests it supports: {error}"));
        }
        let needed =
            [PRODUCE, METADATA].into_iter().chain(sasl.iter().flat_map(|_| [SASL_HANDSHAKE, SASL_AUTHENTICATE]));
        for api in needed {
            let is_supported = supported.iter().any(|supported| {
                supported.key == api.key && (supported.oldest..=supported.newest).contains(&api.version)
            });
            if !is_supported {
                let RequestKind { key, version } = api;
                return Err(format!("the broker does not support version {version} of request {key}"));
            }
        }
        match sasl {
            Some(sasl) => self.authenticate(sasl).await,
            None => Ok(()),
        }
    }

    async fn authenticate(&mut self, sasl: &Sasl) -> Result<(), String> {
        let name = sasl.mechanism.name();
        let response = self.request(SASL_HANDSHAKE, |request| request.string(name)).await?;
        let (error, mechanisms) = parse_handshake_response(&response).map_err(malformed)?;
        if !error.is_none() {
            // At most a few short names, since the text is part of a condition.
            let known = mechanisms.iter().map(String::as_str).filter(|name| name.len() < 32).take(8);
            return Err(format!("no {name}: {error}; the broker has {}", known.collect::<Vec<_>>().join(", ")));
        }
        let Mechanism::Scram { hash, is_token } = sasl.mechanism else {
            let message = format!("\0{}\0{}", sasl.user, sasl.password);
            return self.exchange_token(message.as_bytes()).await.map(drop);
        };
        let refused = |ScramError(error): ScramError| format!("{name}: {error}");
        let client = ScramClient::new(hash, &sasl.user, sasl.password.clone(), is_token).map_err(refused)?;
        let challenge = self.exchange_token(&client.first_message()).await?;
        // The derivation of the key takes milliseconds, in which other tasks run.
        let deriving = tokio::task::spawn_blocking(move || client.final_message(&challenge));
        let (last, expected) = deriving.await.map_err(|error| error.to_string())?.map_err(refused)?;
        let confirmation = self.exchange_token(&last).await?;
        expected.verify(&confirmation).map_err(refused)
    }

    async fn exchange_token(&mut self, token: &[u8]) -> Result<Vec<u8>, String> {
        let response = self.request(SASL_AUTHENTICATE, |request| request.bytes(token)).await?;
        match parse_authenticate_response(&response).map_err(malformed)? {
            (error, token) if error.is_none() => Ok(token.to_vec()),
            (error, _) => Err(authentication_failed(error)),
        }
    }
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Scram { hash: ScramHash::Sha256, .. } => "SCRAM-SHA-256",
            Mechanism::Scram { hash: ScramHash::Sha512, .. } => "SCRAM-SHA-512",
        }
    }
}

impl std::fmt::Debug for Sasl {
    /// Omits the name and the password.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sasl").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

fn authentication_failed(error: ErrorCode) -> String {
    format!("the broker does not accept the user and the password: {error}")
}

/// The text for a response that cannot be read.
pub(super) fn malformed(_: MalformedResponse) -> String {
    "the response is not one of Kafka's protocol".to_owned()
}

/// Maximum size of a response in bytes. The metadata of a topic with 10,000 partitions has a third of it.
const MAX_RESPONSE: u64 = 2 << 20;
