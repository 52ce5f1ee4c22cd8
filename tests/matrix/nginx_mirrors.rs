//! Copies of requests that `mirror-target` of an Ingress sends, and what they leave alone.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use portico::api::ingress_nginx::PREFIX;

use super::nginx_guards::{CLASS, echo, ingress, rule, start};
use crate::harness::client::Connection;
use crate::harness::site::Site;

/// A server that responds with an error and a cookie, and reports the requests as they arrived.
fn mirror(ip: &str) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = sync_channel(16);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sender = sender.clone();
            thread::spawn(move || serve(&stream, &sender));
        }
    });
    (port, requests)
}

/// Serves a connection until the client closes it.
fn serve(stream: &TcpStream, sender: &SyncSender<String>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        let mut length = 0;
        loop {
            let start = request.len();
            if reader.read_line(&mut request).ok()? == 0 {
                return None;
            }
            let line = request[start..].to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        request.push_str(&String::from_utf8_lossy(&body));
        sender.send(request).ok()?;
        (&*stream).write_all(b"HTTP/1.1 500 Mirror\r\nset-cookie: mirror=1\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}

#[test]
fn copies_go_to_the_mirror_and_clients_get_none_of_its_responses() {
    let site = Site::new();
    let http = site.address_of("http");
    let (ip, _) = http.rsplit_once(':').unwrap();
    let (port, requests) = mirror(ip);
    let target = |path: &str| format!("{PREFIX}mirror-target: \"http://{ip}:{port}{path}\"");
    let with_host = format!("{}, {PREFIX}mirror-host: mirror.example", target("/copy$request_uri"));
    let without_body = format!("{}, {PREFIX}mirror-request-body: \"off\"", target("/fixed"));
    let denied = format!("{}, {PREFIX}denylist-source-range: 0.0.0.0/0", target("/denied"));
    // No server listens there.
    let unreachable = format!("{PREFIX}mirror-target: \"http://@address@:@dns@/\"");
    let mut objects = CLASS.to_owned() + &echo("default");
    for (name, annotations) in [
        ("host", &with_host[..]),
        ("body", &without_body),
        ("denied", &denied),
        ("unreachable", &unreachable),
        ("bad", &format!("{PREFIX}mirror-target: \"http://$host/\"")),
    ] {
        objects += &ingress("default", name, "01", annotations, &rule(&format!("{name}.example"), "/"));
    }
    site.save("manifests/all.yaml", &objects);
    let (_program, address) = start(&site, &[]);
    let send = |request: String| {
        let response = Connection::open(&address).unwrap().send(request).unwrap();
        assert_eq!(response.field("set-cookie"), None);
        response.status
    };
    let get = |host: &str, path: &str| send(format!("GET {path} HTTP/1.1\r\nhost: {host}.example\r\n\r\n"));
    let post = |host: &str, body: &str| {
        let length = body.len();
        send(format!("POST /p HTTP/1.1\r\nhost: {host}.example\r\ncontent-length: {length}\r\n\r\n{body}"))
    };
    let copy = || requests.recv_timeout(Duration::from_secs(20)).unwrap().to_ascii_lowercase();
    assert_eq!(get("host", "/a?b=%20"), 200);
    let first = copy();
    assert!(
        first.starts_with("get /copy/a?b=%20 http/1.1\r\n") && first.contains("\nhost: mirror.example\r\n"),
        "{first}"
    );
    assert_eq!(post("host", "hello"), 200);
    let with_body = copy();
    assert!(with_body.starts_with("post /copy/p ") && with_body.ends_with("\r\n\r\nhello"), "{with_body}");
    assert_eq!(post("body", "hello"), 200);
    let without_body = copy();
    assert!(without_body.starts_with("post /fixed ") && without_body.ends_with("\r\n\r\n"), "{without_body}");
    assert!(without_body.contains(&format!("\nhost: {ip}\r\n")), "{without_body}");
    // Neither is copied: the first is rejected, the second has a long body, and the others have no mirror.
    assert_eq!(get("denied", "/"), 403);
    assert_eq!(post("host", &"a".repeat(70_000)), 200);
    assert_eq!([get("unreachable", "/"), get("bad", "/")], [200, 200]);
    assert_eq!(get("host", "/last"), 200);
    let last = copy();
    assert!(last.starts_with("get /copy/last "), "{last}");
}
