//! What Ingresses of the dialect nginx say about connections to backends: the field `Connection`, with a backend that
//! records what it gets.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use portico::api::ingress_nginx::PREFIX;

use super::nginx_guards::{CLASS, get, ingress, rule, start};
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
