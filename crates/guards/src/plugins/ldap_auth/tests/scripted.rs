//! A directory whose responses a test determines, as the services of a plugin.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;

use super::super::ber::{ENUMERATED, Elements, INTEGER, OCTET_STRING, SEQUENCE, SET, element, integer, split_length};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::{PluginServices, Remote, RemoteStream};

/// One message, or the end of the connection.
#[derive(Clone)]
pub(in crate::plugins) enum DirectoryMessage {
    Result(u32),
    /// Its name, and an attribute with its values.
    Entry(String, &'static str, Vec<String>),
    Reference,
    Bytes(Vec<u8>),
    Close,
}

pub(in crate::plugins) fn result(code: u32) -> DirectoryMessage {
    DirectoryMessage::Result(code)
}

/// The entry of a user with these values of `memberOf`.
pub(in crate::plugins) fn entry(name: &str, groups: &[&str]) -> DirectoryMessage {
    DirectoryMessage::Entry(name.to_owned(), "memberOf", groups.iter().map(|group| (*group).to_owned()).collect())
}

/// The entry of a user with these usernames.
pub(in crate::plugins) fn user(name: &str, usernames: &[&str]) -> DirectoryMessage {
    DirectoryMessage::Entry(name.to_owned(), "UID", usernames.iter().map(|name| (*name).to_owned()).collect())
}

/// The responses to a request: its number on the connection, and the request as text.
type Script = dyn Fn(usize, &str) -> Vec<DirectoryMessage> + Send + Sync;

pub(in crate::plugins) struct ScriptedDirectory {
    state: Arc<DirectoryState>,
}

struct DirectoryState {
    script: Box<Script>,
    requests: Mutex<Vec<String>>,
    connections: AtomicUsize,
    open: watch::Sender<usize>,
    refuses: AtomicBool,
    /// Whether TLS starts on connections, which the log then shows.
    logs_connections: AtomicBool,
    diagnostic: Mutex<Option<String>>,
}

impl ScriptedDirectory {
    pub(in crate::plugins) fn responding(
        script: impl Fn(usize, &str) -> Vec<DirectoryMessage> + Send + Sync + 'static,
    ) -> Arc<ScriptedDirectory> {
        let state = DirectoryState {
            script: Box::new(script),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: watch::channel(0).0,
            refuses: AtomicBool::new(false),
            logs_connections: AtomicBool::new(false),
            diagnostic: Mutex::default(),
        };
        Arc::new(ScriptedDirectory { state: Arc::new(state) })
    }

    /// The requests in order, with the connections if any has TLS.
    pub(in crate::plugins) fn requests(&self) -> Vec<String> {
        let requests = self.state.requests.lock().clone();
        let logs_connections = self.state.logs_connections.load(Ordering::SeqCst);
        requests.into_iter().filter(|request| logs_connections || request != "connect").collect()
    }

    pub(in crate::plugins) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub(in crate::plugins) fn open_connections(&self) -> usize {
        *self.state.open.borrow()
    }

    /// Waits until the plugin has closed all connections.
    pub(in crate::plugins) async fn all_closed(&self) {
        self.state.open.subscribe().wait_for(|open| *open == 0).await.unwrap();
    }

    /// Whether new connections are refused.
    pub(in crate::plugins) fn refuse(&self, refuses: bool) {
        self.state.refuses.store(refuses, Ordering::SeqCst);
    }

    /// The message that the condition of the plugin has.
    pub(in crate::plugins) fn diagnostic(&self) -> Option<String> {
        self.state.diagnostic.lock().clone()
    }
}

impl PluginServices for ScriptedDirectory {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn connect(&self, remote: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>> {
        let state = Arc::clone(&self.state);
        Box::pin(async move {
            if state.refuses.load(Ordering::SeqCst) {
                return Err(format!("{}:{}: refused", remote.host, remote.port));
            }
            state.connections.fetch_add(1, Ordering::SeqCst);
            state.requests.lock().push(match &remote.tls {
                Some(tls) => {
                    state.logs_connections.store(true, Ordering::SeqCst);
                    format!("connect with TLS {}", tls.verify)
                }
                None => "connect".to_owned(),
            });
            let (own, other) = duplex(1 << 16);
            state.open.send_modify(|open| *open += 1);
            tokio::spawn(async move {
                // The plugin may close the connection at any time.
                let _closed = state.serve(other).await;
                state.open.send_modify(|open| *open -= 1);
            });
            Ok(Box::new(own) as Box<dyn RemoteStream>)
        })
    }

    fn start_tls(
        &self,
        stream: Box<dyn RemoteStream>,
        remote: Remote,
    ) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>> {
        let state = Arc::clone(&self.state);
        Box::pin(async move {
            state.requests.lock().push(format!("TLS {}", remote.tls.is_some_and(|tls| tls.verify)));
            Ok(stream)
        })
    }

    fn report(&self, object: &str, diagnostic: Option<Diagnostic>) {
        assert_eq!(object, "KongPlugin/default/test");
        *self.state.diagnostic.lock() = diagnostic.map(|diagnostic| diagnostic.message.to_string());
    }
}

impl DirectoryState {
    async fn serve(&self, mut stream: DuplexStream) -> std::io::Result<()> {
        for number in 0.. {
            let mut head = vec![0; 2];
            stream.read_exact(&mut head).await?;
            let rest = usize::from(head[1]).saturating_sub(0x80);
            head.resize(2 + rest, 0);
            stream.read_exact(&mut head[2..]).await?;
            let (length, _) = split_length(&head[1..]).unwrap().unwrap();
            let mut content = vec![0; length];
            stream.read_exact(&mut content).await?;
            let mut elements = Elements(&content);
            let id = elements.number(INTEGER).unwrap();
            let (tag, operation) = elements.next().unwrap();
            let text = describe(tag, operation);
            if text == "start TLS" {
                self.logs_connections.store(true, Ordering::SeqCst);
            }
            self.requests.lock().push(text.clone());
            // A bind, a search, and the start of TLS have responses with the following tag.
            let done = if tag == 0x63 { 0x65 } else { tag + 1 };
            for message in (self.script)(number, &text) {
                let Some(bytes) = encode(id, done, message) else { return Ok(()) };
                stream.write_all(&bytes).await?;
            }
        }
        Ok(())
    }
}

fn describe(tag: u8, operation: &[u8]) -> String {
    let mut elements = Elements(operation);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    match tag {
        0x60 => {
            assert_eq!(elements.number(INTEGER), Ok(3), "the version of the protocol");
            let name = text(elements.expect(OCTET_STRING).unwrap());
            format!("bind {name} {}", text(elements.expect(0x80).unwrap()))
        }
        0x63 => {
            let base = text(elements.expect(OCTET_STRING).unwrap());
            let scope = elements.number(ENUMERATED).unwrap();
            for _ in 0..4 {
                elements.next().unwrap();
            }
            let (_, filter) = elements.next().unwrap();
            let mut attributes = Elements(elements.expect(SEQUENCE).unwrap());
            let mut names = Vec::new();
            while !attributes.is_empty() {
                names.push(text(attributes.expect(OCTET_STRING).unwrap()));
            }
            let names = names.join(",");
            if scope == 0 {
                return format!("search {base} base {names}");
            }
            let mut filter = Elements(filter);
            let name = text(filter.expect(OCTET_STRING).unwrap());
            format!("search {base} below {name}={} {names}", text(filter.expect(OCTET_STRING).unwrap()))
        }
        0x77 => "start TLS".to_owned(),
        other => panic!("the plugin sent a request with the tag {other:#x}"),
    }
}

/// `None` ends the connection.
fn encode(id: u32, done: u8, message: DirectoryMessage) -> Option<Vec<u8>> {
    let number = |tag, number: u32| integer(tag, number.try_into().unwrap());
    let text = |text: &str| element(OCTET_STRING, &[text.as_bytes()]);
    let operation = match message {
        DirectoryMessage::Bytes(bytes) => return Some(bytes),
        DirectoryMessage::Close => return None,
        DirectoryMessage::Result(code) => {
            let explanation = text(if code == 0 { "" } else { "no" });
            element(done, &[&number(ENUMERATED, code), &text(""), &explanation])
        }
        DirectoryMessage::Reference => element(0x73, &[&text("ldap://other.example/dc=x")]),
        DirectoryMessage::Entry(name, attribute, values) => {
            let values: Vec<u8> = values.iter().flat_map(|value| text(value)).collect();
            let attribute = element(SEQUENCE, &[&text(attribute), &element(SET, &[&values])]);
            element(0x64, &[&text(&name), &element(SEQUENCE, &[&attribute])])
        }
    };
    Some(element(SEQUENCE, &[&number(INTEGER, id), &operation]))
}
