//! The ports of the TCP and UDP ConfigMaps of ingress-nginx: PROXY headers in both directions, Services of several
//! namespaces, wrong keys, and edits.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use super::nginx_guards::{CLASS, echo, ingress, rule, service, start};
use crate::harness::client::try_get;
use crate::harness::eventually;
use crate::harness::program::Program;
use crate::harness::site::Site;

const FLAGS: [&str; 4] = ["--nginx-tcp-services", "ops/tcp", "--nginx-udp-services", "ops/udp"];
/// A PROXY header, and the text of a client.
const REPORTED: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n";
const TEXT: &str = "text of the client";

/// A ConfigMap of ports in a namespace of the operator.
fn ports(name: &str, data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{namespace: ops, name: {name}}}\ndata: {{{data}}}\n---\n")
}

/// Starts a server that sends all that it has received when the client has sent everything.
fn serve(address: &str) {
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut received = Vec::new();
            if connection.read_to_end(&mut received).is_ok() {
                // The client may have gone.
                connection.write_all(&received).ok();
            }
        }
    });
}

/// What the server receives of a client that sends this. `None` if the connection is not forwarded.
fn forwarded(address: &str, sent: &str) -> Option<String> {
    let mut connection = TcpStream::connect(address).ok()?;
    connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    connection.write_all(sent.as_bytes()).ok()?;
    connection.shutdown(Shutdown::Write).ok()?;
    let mut received = String::new();
    connection.read_to_string(&mut received).ok()?;
    (!received.is_empty()).then_some(received)
}

/// Starts the program with these TCP ports.
fn start_streams(site: &Site, tcp: &[&str]) -> Program {
    let tcp = tcp.iter().map(|name| site.port(name).to_string());
    let ports: Vec<String> = tcp.chain([format!("{}/udp", site.port("datagrams"))]).collect();
    start(site, &[&["--ingress-stream-ports", &ports.join(",")][..], &FLAGS].concat()).0
}

#[test]
fn proxy_headers_are_read_and_sent_as_each_port_says() {
    let site = Site::new();
    let data = "\"@open@\": \"default/db:80\", \"@guarded@\": \"default/db:80:PROXY\", \
                \"@port@\": \"default/db:80:PROXY:PROXY\", \"@http@\": \"default/db:sql::proxy\"";
    let named = service("default", "db", "@vault@").replace("{port:", "{name: sql, port:");
    site.save("manifests/all.yaml", &(CLASS.to_owned() + &named + &ports("tcp", data) + &ports("udp", "")));
    serve(&site.address_of("vault"));
    let program = start_streams(&site, &["open", "guarded", "port", "http"]);
    let with_header = format!("{REPORTED}{TEXT}");
    assert_eq!(forwarded(&site.address_of("open"), TEXT).as_deref(), Some(TEXT));
    // Without the word, the header is part of what is forwarded.
    assert_eq!(forwarded(&site.address_of("open"), &with_header).as_deref(), Some(&*with_header));
    assert_eq!(forwarded(&site.address_of("guarded"), &with_header).as_deref(), Some(TEXT));
    assert_eq!(forwarded(&site.address_of("guarded"), TEXT), None, "a client without a header is not served");
    assert_eq!(forwarded(&site.address_of("port"), &with_header).as_deref(), Some(&*with_header));
    let sent = forwarded(&site.address_of("http"), TEXT).unwrap();
    let (header, rest) = sent.split_once("\r\n").unwrap();
    let words: Vec<&str> = header.split(' ').collect();
    assert_eq!((words[0], words[1], rest), ("PROXY", "TCP4", TEXT), "{sent:?}");
    assert_eq!((words[3], words[5]), (&*site.address().to_string(), &*site.port("http").to_string()), "{sent:?}");
    program.stop().expect_success();
}

#[test]
fn ports_of_several_namespaces_are_served_beside_ingresses_and_wrong_keys() {
    let site = Site::new();
    let data = "\"@open@\": \"a/db:80\", \"@guarded@\": \"b/db:80\", \"@port@\": \"b/empty:80\", word: \"a/db:80\", \
                \"@http@\": \"a/db:80:TLS\"";
    let empty =
        "apiVersion: v1\nkind: Service\nmetadata: {namespace: b, name: empty}\nspec: {ports: [{port: 80}]}\n---\n";
    let dns = "apiVersion: v1
kind: Service
metadata: {namespace: b, name: dns, annotations: {portico.dev/address: \"@address@\"}}
spec: {ports: [{name: dns, port: 53, protocol: UDP, targetPort: @dns@}]}
---
";
    let objects = CLASS.to_owned()
        + &echo("default")
        + &ingress("default", "web", "01", "", &rule("web.example", "/"))
        + &service("a", "db", "@vault@")
        + &service("b", "db", "@echo@")
        + empty
        + dns
        + &ports("udp", "\"@datagrams@\": \"b/dns:dns:PROXY\"");
    site.save("manifests/all.yaml", &objects);
    site.save("manifests/tcp.yaml", &ports("tcp", data));
    serve(&site.address_of("vault"));
    let server = UdpSocket::bind(site.address_of("dns")).unwrap();
    let program = start_streams(&site, &["open", "guarded", "port", "http"]);
    assert_eq!(try_get(&site.address_of("other"), "web.example", "/").unwrap().status, 200);
    assert_eq!(forwarded(&site.address_of("open"), TEXT).as_deref(), Some(TEXT));
    assert_eq!(try_get(&site.address_of("guarded"), "any.example", "/").unwrap().status, 200);
    // Without endpoints, it is accepted and closed; with a wrong value, it is not open.
    let closed = TcpStream::connect(site.address_of("port"));
    assert!(closed.is_ok() && forwarded(&site.address_of("port"), TEXT).is_none(), "{closed:?}");
    assert!(TcpStream::connect(site.address_of("http")).is_err());

    let client = UdpSocket::bind((site.address(), 0)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    client.send_to(b"question", site.address_of("datagrams")).unwrap();
    let mut buffer = [0; 100];
    let (length, peer) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"question", "PROXY has no effect on UDP");
    // All replies of a session are passed on.
    for reply in [&b"first"[..], b"second"] {
        server.send_to(reply, peer).unwrap();
        let (length, _) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], reply);
    }

    // The value is corrected, another port moves to the other Service, and one is removed.
    site.save("manifests/tcp.yaml", &ports("tcp", "\"@guarded@\": \"a/db:80\", \"@http@\": \"a/db:80\""));
    eventually("the corrected port is open", || forwarded(&site.address_of("http"), TEXT));
    assert_eq!(forwarded(&site.address_of("guarded"), TEXT).as_deref(), Some(TEXT));
    eventually("the removed port is closed", || TcpStream::connect(site.address_of("open")).err());
    program.stop().expect_success();
}
