//! A connection to a directory: messages one after the other, each with its response.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ber::{SEQUENCE, split_length};
use super::message::{self, DirectoryResult, SearchFor, ServerMessage, ServerOperation};
use crate::plugin_api::remote::is_short_name;
use crate::plugin_api::server_text::shorten;
use crate::plugin_api::{PluginServices, Remote, RemoteStream};

/// How a connection is made.
#[derive(Clone, Debug)]
pub(super) struct DirectoryServer {
    /// With the settings of TLS, also if it starts on the connection.
    pub(super) remote: Remote,
    /// Whether TLS starts after the connection is open, as the protocol's own operation.
    pub(super) starts_tls: bool,
}

impl DirectoryServer {
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.remote.host, self.remote.port)
    }

    /// The address that means the same directory in all namespaces.
    pub(super) fn global_address(&self) -> String {
        let Remote { host, port, namespace, .. } = &self.remote;
        match namespace {
            Some(namespace) if is_short_name(host) => format!("{host}.{namespace}:{port}"),
            _ => format!("{host}:{port}"),
        }
    }
}

/// An open connection.
pub(super) struct DirectoryConnection {
    stream: Box<dyn RemoteStream>,
    last_id: i32,
    /// Whether it was used before, so that the server may have closed it meanwhile.
    pub(super) is_reused: bool,
}

/// Why a request got no usable result.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DirectoryFailure {
    /// The connection ended or cannot be used any more.
    Connection(String),
    /// The server rejected the request.
    Rejected(String),
}

impl DirectoryFailure {
    pub(super) fn into_text(self) -> String {
        match self {
            DirectoryFailure::Connection(text) | DirectoryFailure::Rejected(text) => text,
        }
    }
}

/// An entry that a search found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FoundEntry {
    pub(super) name: String,
    attributes: Vec<(String, Vec<String>)>,
}

impl FoundEntry {
    /// The values of an attribute, whose name servers may write in another letter case or with options (RFC 4512,
    /// section 2.5).
    pub(super) fn values<'e>(&'e self, attribute: &'e str) -> impl Iterator<Item = &'e String> {
        let is_same = move |name: &str| name.split(';').next().unwrap_or_default().eq_ignore_ascii_case(attribute);
        self.attributes.iter().filter(move |(name, _)| is_same(name)).flat_map(|(_, values)| values)
    }
}

/// Limit of a message of the server, in bytes. An entry with ten thousand groups is about as large.
const MAX_MESSAGE: usize = 1 << 20;
/// How many messages a search may return besides its result: two entries, and references to other servers.
const MAX_SEARCH_MESSAGES: usize = 32;

impl DirectoryConnection {
    pub(super) async fn open(server: &DirectoryServer, services: &Arc<dyn PluginServices>) -> Result<Self, String> {
        if !server.starts_tls {
            let stream = services.connect(server.remote.clone()).await?;
            return Ok(DirectoryConnection { stream, last_id: 0, is_reused: false });
        }
        let stream = services.connect(Remote { tls: None, ..server.remote.clone() }).await?;
        let mut plain = DirectoryConnection { stream, last_id: 0, is_reused: false };
        let result = plain.request(message::start_tls).await.map_err(DirectoryFailure::into_text)?;
        if !result.is_success() {
            return Err(format!("{} does not start TLS: {}", server.address(), describe(&result)));
        }
        // Messages are read exactly, so nothing that was sent before TLS is taken for something sent within it.
        let stream = services.start_tls(plain.stream, server.remote.clone()).await?;
        Ok(DirectoryConnection { stream, ..plain })
    }

    /// Logs in.
    pub(super) async fn bind(&mut self, name: &str, password: &[u8]) -> Result<DirectoryResult, DirectoryFailure> {
        self.request(|id| message::bind(id, name, password)).await
    }

    /// Searches, and returns the entries with the attributes: at most two.
    pub(super) async fn search(
        &mut self,
        base: &str,
        what: SearchFor<'_>,
        attributes: &[&str],
    ) -> Result<Vec<FoundEntry>, DirectoryFailure> {
        let id = self.send(|id| message::search(id, base, what, attributes)).await?;
        let mut entries = Vec::new();
        for _ in 0..MAX_SEARCH_MESSAGES {
            let content = self.receive().await?;
            match parse(&content, id)? {
                ServerOperation::Entry(entry) => entries.push(FoundEntry {
                    name: entry.name.to_owned(),
                    attributes: entry.attributes.into_iter().map(owned).collect(),
                }),
                ServerOperation::Reference => {}
                ServerOperation::Done(result) if result.is_success() || result.is_size_limit() => return Ok(entries),
                // The base does not exist, or is not visible.
                ServerOperation::Done(result) => return Err(DirectoryFailure::Rejected(describe(&result))),
            }
        }
        Err(DirectoryFailure::Connection(format!("it sent more than {MAX_SEARCH_MESSAGES} messages for a search")))
    }

    /// Sends a request and returns its only response.
    async fn request(&mut self, encode: impl FnOnce(i32) -> Vec<u8>) -> Result<DirectoryResult, DirectoryFailure> {
        let id = self.send(encode).await?;
        let content = self.receive().await?;
        match parse(&content, id)? {
            ServerOperation::Done(result) => Ok(result),
            ServerOperation::Entry(_) | ServerOperation::Reference => Err(malformed()),
        }
    }

    async fn send(&mut self, encode: impl FnOnce(i32) -> Vec<u8>) -> Result<u32, DirectoryFailure> {
        self.last_id = self.last_id.checked_add(1).ok_or_else(malformed)?;
        let bytes = encode(self.last_id);
        let sent = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| DirectoryFailure::Connection(format!("sending failed: {error}")))?;
        Ok(self.last_id.unsigned_abs())
    }

    /// Reads the content of one message, and nothing of the next one.
    async fn receive(&mut self) -> Result<Vec<u8>, DirectoryFailure> {
        // The tag, and a length of up to five bytes, of which the first says how many there are.
        let mut head = [0; 6];
        self.read(&mut head[..2]).await?;
        let rest = usize::from(head[1]).saturating_sub(0x80).min(4);
        self.read(&mut head[2..2 + rest]).await?;
        let Ok(Some((length, []))) = split_length(&head[1..2 + rest]) else { return Err(malformed()) };
        if head[0] != SEQUENCE {
            return Err(malformed());
        }
        if length > MAX_MESSAGE {
            let text = format!("it sent a message of {length} bytes, and the limit is {MAX_MESSAGE}");
            return Err(DirectoryFailure::Connection(text));
        }
        // Grows with what arrives.
        let mut content = Vec::new();
        let limit = u64::try_from(length).unwrap_or(u64::MAX);
        let read = (&mut self.stream).take(limit).read_to_end(&mut content).await;
        match read {
            Ok(read) if read == length => Ok(content),
            Ok(_) => Err(closed()),
            Err(error) => Err(DirectoryFailure::Connection(format!("receiving failed: {error}"))),
        }
    }

    async fn read(&mut self, buffer: &mut [u8]) -> Result<(), DirectoryFailure> {
        match self.stream.read_exact(buffer).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(closed()),
            Err(error) => Err(DirectoryFailure::Connection(format!("receiving failed: {error}"))),
        }
    }
}

fn owned((name, values): (&str, Vec<&str>)) -> (String, Vec<String>) {
    (name.to_owned(), values.into_iter().map(str::to_owned).collect())
}

fn parse(content: &[u8], id: u32) -> Result<ServerOperation<'_>, DirectoryFailure> {
    let message = ServerMessage::parse(content).map_err(|_| malformed())?;
    match message.operation {
        operation if message.id == id => Ok(operation),
        // The server announces why it closes the connection (RFC 4511, section 4.4.1).
        ServerOperation::Done(notice) if message.id == 0 => {
            Err(DirectoryFailure::Connection(format!("it ended the connection: {}", describe(&notice))))
        }
        _ => Err(malformed()),
    }
}

fn malformed() -> DirectoryFailure {
    DirectoryFailure::Connection("it sent what is not a response in LDAP".to_owned())
}

fn closed() -> DirectoryFailure {
    DirectoryFailure::Connection("it closed the connection".to_owned())
}

/// The code of a result with the explanation of the server.
pub(super) fn describe(result: &DirectoryResult) -> String {
    let explanation = if result.text.is_empty() { String::new() } else { format!(": {}", shorten(&result.text)) };
    format!("{} ({}){explanation}", result.name(), result.code)
}
