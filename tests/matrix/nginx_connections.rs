//! What Ingresses of the dialect nginx say about connections to backends: the field `Connection`, with a backend that
//! records what it gets, and TLS as the client has it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use portico::api::ingress_nginx::PREFIX;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::SingleCertAndKey;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::nginx_client_certificates::{Authority, TlsConnection};
use super::nginx_guards::{CLASS, get, ingress, rule, start, start_with_tls};
use super::nginx_retries::service;
use crate::harness::client::Connection;
use crate::harness::site::Site;

/// The heads that a backend has got, in lower case, each with the number of its connection.
type Heads = Arc<Mutex<Vec<(usize, String)>>>;

/// Starts a backend that records requests without a body, and keeps connections open.
fn recording_backend() -> (u16, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heads = Heads::default();
    let recorded = Arc::clone(&heads);
    thread::spawn(move || {
        for (number, socket) in listener.incoming().flatten().enumerate() {
            let heads = Arc::clone(&heads);
            thread::spawn(move || record(socket, number, &heads));
        }
    });
    (port, recorded)
}

fn record(mut socket: TcpStream, number: usize, heads: &Heads) {
    let mut lines = BufReader::new(socket.try_clone().unwrap());
    let mut head = String::new();
    while lines.read_line(&mut head).unwrap_or_default() > 0 {
        if head.ends_with("\r\n\r\n") {
            heads.lock().unwrap().push((number, std::mem::take(&mut head).to_ascii_lowercase()));
            if socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    }
}

/// The lines of a head with this field.
fn lines<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    head.lines().filter(|line| line.starts_with(&format!("{name}:"))).collect()
}

#[test]
fn backends_get_the_field_connection_in_place_of_upgrades() {
    let site = Site::new();
    let (port, heads) = recording_backend();
    let prefix = PREFIX;
    let mut objects = CLASS.to_owned() + &service(&[port]);
    for (name, annotations) in [
        ("default", String::new()),
        ("close", format!("{prefix}connection-proxy-header: close")),
        ("kept", format!("{prefix}connection-proxy-header: keep-alive")),
        ("invalid", format!("{prefix}connection-proxy-header: upgrade")),
    ] {
        objects += &ingress("default", name, "01", &annotations, &rule(&format!("{name}.example"), "/"));
    }
    site.save("manifests/all.yaml", &objects);
    let (program, address) = start(&site, &[]);
    for (host, connection, is_upgraded, connections) in [
        ("default.example", None, true, 1),
        ("close.example", Some("connection: close"), false, 2),
        ("kept.example", Some("connection: keep-alive"), false, 1),
    ] {
        // Requests of one client may use one connection to the backend.
        let mut client = Connection::open(&address).unwrap();
        for _ in 0..2 {
            assert_eq!(client.get(host, "/").unwrap().status, 200, "{host}");
        }
        let mut found = std::mem::take(&mut *heads.lock().unwrap());
        for (_, head) in &found {
            assert_eq!(lines(head, "connection"), connection.into_iter().collect::<Vec<_>>(), "{host}: {head}");
        }
        found.dedup_by_key(|(number, _)| *number);
        assert_eq!(found.len(), connections, "{host}: {found:?}");
        let fields = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                      sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let response = client.get_with(host, "/", fields).unwrap();
        assert_eq!((response.status, &*response.body), (200, "ok"), "{host}");
        let (_, head) = heads.lock().unwrap().pop().unwrap();
        heads.lock().unwrap().clear();
        let expected = if is_upgraded { Some("connection: upgrade") } else { connection };
        assert_eq!(lines(&head, "connection"), expected.into_iter().collect::<Vec<_>>(), "{host}: {head}");
        assert_eq!(lines(&head, "upgrade").is_empty(), !is_upgraded, "{host}: {head}");
    }
    assert_eq!(get(&address, "invalid.example", "/", "").status, 503);
    program.stop().expect_success();
}

/// Starts a backend that says whether its clients use TLS.
fn backend_with_both() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let certificate = SingleCertAndKey::from(Authority::new("authority").issue("backend"));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificate));
    let config = Arc::new(config);
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            thread::spawn(move || {
                let mut first = [0];
                match socket.peek(&mut first) {
                    Ok(1) if first == [HANDSHAKE] => {
                        let connection = ServerConnection::new(config).unwrap();
                        respond(StreamOwned::new(connection, socket), "tls");
                    }
                    _ => respond(socket, "plain"),
                }
            });
        }
    });
    port
}

fn respond(stream: impl Read + Write, body: &str) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while stream.read_line(&mut head).unwrap_or_default() > 0 {
        if head.ends_with("\r\n\r\n") {
            head.clear();
            let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if stream.get_mut().write_all(response.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// The first byte of a connection with TLS.
const HANDSHAKE: u8 = 22;

#[test]
fn backends_get_tls_if_clients_use_it() {
    let site = Site::new();
    let prefix = PREFIX;
    let sessions = format!(", {prefix}affinity: cookie, {prefix}affinity-mode: persistent");
    let mut objects = CLASS.to_owned() + &service(&[backend_with_both()]);
    for (name, annotations) in [
        ("default", String::new()),
        ("https", format!("{prefix}backend-protocol: HTTPS")),
        ("auto", format!("{prefix}backend-protocol: AUTO_HTTP")),
        ("sessions", format!("{prefix}backend-protocol: auto_http{sessions}")),
    ] {
        objects += &ingress("default", name, "01", &annotations, &rule(&format!("{name}.example"), "/"));
    }
    site.save("manifests/all.yaml", &objects);
    let (program, http, https) = start_with_tls(&site);
    for (host, plain, over_tls) in [
        ("default.example", "plain", "plain"),
        ("https.example", "tls", "tls"),
        ("auto.example", "plain", "tls"),
        ("sessions.example", "plain", "tls"),
    ] {
        let response = get(&http, host, "/", "");
        assert_eq!((response.status, &*response.body), (200, plain), "{host}");
        let response = TlsConnection::open(&https, host, None).get(host, "/");
        assert_eq!(response, (200, over_tls.to_owned()), "{host}");
    }
    program.stop().expect_success();
}
