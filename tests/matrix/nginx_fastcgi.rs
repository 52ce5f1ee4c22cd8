//! Ingresses of the dialect nginx whose Services are FastCGI servers: what these get, what clients get of their
//! responses, and which configuration closes an Ingress.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use portico::api::ingress_nginx::PREFIX;
use serde_json::{Map, Value, json};

use super::nginx_guards::{CLASS, get, ingress, rule_for, start};
use super::nginx_retries::service_named;
use crate::harness::client::Connection;
use crate::harness::site::Site;
use crate::harness::{TEST_TIMEOUT, eventually};

/// Starts a FastCGI server, until the test ends.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            thread::spawn(move || serve(socket));
        }
    });
    port
}

/// Responds to one request, as its script says. The connection is closed after it.
fn serve(mut socket: TcpStream) -> Option<()> {
    let (kind, begin) = receive(&mut socket)?;
    assert_eq!(
        (kind, &begin[..3]),
        (BEGIN_REQUEST, &[0, 1, 0][..]),
        "a responder without the flag to keep connections"
    );
    let mut encoded = Vec::new();
    loop {
        match receive(&mut socket)? {
            (PARAMS, content) if content.is_empty() => break,
            (PARAMS, content) => encoded.extend(content),
            (kind, _) => panic!("a record of type {kind} among the parameters"),
        }
    }
    let params = decode(&encoded);
    let script = params["SCRIPT_NAME"].as_str().unwrap().to_owned();
    if script == "/stream.php" {
        return echo_parts(&mut socket);
    }
    let mut body = Vec::new();
    loop {
        match receive(&mut socket)? {
            (STDIN, content) if content.is_empty() => break,
            (STDIN, content) => body.extend(content),
            (kind, _) => panic!("a record of type {kind} in the body"),
        }
    }
    let stdout = |text: &str| record(STDOUT, text.as_bytes());
    let ended = |text: &str| [stdout(text), record(STDOUT, b""), END.to_vec()].concat();
    let response = match &*script {
        "/status.php" => ended("Status: 404 Not Here\r\nX-A: b\r\nContent-Length: 4\r\n\r\ngonemore"),
        "/location.php" => ended("Location: https://other.example/\r\n\r\n"),
        "/stderr.php" => {
            [record(STDERR, b"a warning\nof the script"), ended("X-A: b\n\nfine"), stdout("after the end")].concat()
        }
        "/split.php" => {
            let text = b"Status: 200 OK\r\nX-A: b\r\n\r\nin parts";
            [text.iter().flat_map(|byte| record(STDOUT, &[*byte])).collect(), END.to_vec()].concat()
        }
        "/http.php" => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec(),
        "/upgrade.php" => ended("Status: 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
        "/empty.php" => ended(""),
        "/overloaded.php" => record(END_REQUEST, &[0, 0, 0, 0, 2, 0, 0, 0]),
        "/cut.php" => stdout("Content-Type: text/plain\r\n\r\nthe beginning"),
        "/large.php" => {
            let data = vec![b'x'; 60_000];
            let parts = (0..50).flat_map(|_| record(STDOUT, &data)).collect();
            [stdout("Content-Type: text/plain\r\n\r\n"), parts, END.to_vec()].concat()
        }
        "/hanging.php" => {
            // Until Portico gives up.
            let mut byte = [0];
            assert_eq!(socket.read(&mut byte).unwrap_or_default(), 0);
            return None;
        }
        _ => {
            let text = json!({"params": params, "body": body.len(), "sum": sum(&body)});
            ended(&format!("Content-Type: application/json\r\n\r\n{text}"))
        }
    };
    socket.write_all(&response).ok()
}

/// Sends each part of the body back as soon as it has arrived.
fn echo_parts(socket: &mut TcpStream) -> Option<()> {
    socket.write_all(&record(STDOUT, b"Content-Type: text/plain\r\n\r\n")).ok()?;
    loop {
        let (_, content) = receive(socket)?;
        let part = if content.is_empty() { END.to_vec() } else { record(STDOUT, &content) };
        socket.write_all(&part).ok()?;
        if content.is_empty() {
            return Some(());
        }
    }
}

/// The type and the content of a record.
fn receive(socket: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 8];
    socket.read_exact(&mut header).ok()?;
    assert_eq!((header[0], &header[2..4]), (1, &[0, 1][..]), "the version, and the only request");
    let mut content = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]])) + usize::from(header[6])];
    socket.read_exact(&mut content).ok()?;
    content.truncate(content.len() - usize::from(header[6]));
    Some((header[1], content))
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    // With padding, as many servers send it.
    let padding = (8 - content.len() % 8) % 8;
    [&[1, kind, 0, 1, length[0], length[1], padding as u8, 0], content, &vec![0; padding]].concat()
}

fn decode(mut bytes: &[u8]) -> Map<String, Value> {
    let mut params = Map::new();
    while !bytes.is_empty() {
        let mut lengths = [0, 0];
        for length in &mut lengths {
            let digits = if bytes[0] > 127 { 4 } else { 1 };
            *length = bytes[..digits].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)) & 0x7fff_ffff;
            bytes = &bytes[digits..];
        }
        let [name, value] = lengths.map(|length| {
            let (text, rest) = bytes.split_at(length);
            bytes = rest;
            String::from_utf8(text.to_vec()).unwrap()
        });
        assert_eq!(params.insert(name.clone(), value.into()), None, "{name} twice");
    }
    params
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;
/// The record that ends a response.
const END: [u8; 16] = [1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An Ingress for the host with its name, whose Service `php` is a FastCGI server.
fn php(namespace: &str, name: &str, annotations: &str) -> String {
    let protocol = format!("{PREFIX}backend-protocol: FCGI");
    let more = annotations.split_terminator(", ").map(|one| format!(", {PREFIX}{one}")).collect::<String>();
    ingress(namespace, name, "01", &(protocol + &more), &rule_for(&format!("{name}.example"), "/", "php"))
}

fn config_map(namespace: &str, name: &str, data: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{namespace: {namespace}, name: {name}}}\ndata: {{{data}}}\n---\n"
    )
}

#[test]
fn servers_get_the_parameters_of_ingress_nginx() {
    let site = Site::new();
    let params = "fastcgi-params-configmap: php";
    let objects = [
        service_named("php", &[server()]),
        php("default", "plain", ""),
        php("default", "index", &format!("fastcgi-index: index.php, {params}")),
        // Read in the namespace of the Ingress.
        config_map("other", "php", "SCRIPT_FILENAME: /other"),
        config_map("default", "php", "SCRIPT_FILENAME: \"/srv/${service_name}$fastcgi_script_name\", HTTP_X_SET: own"),
        ingress(
            "default",
            "rewrite",
            "01",
            &format!("{PREFIX}backend-protocol: fcgi, {PREFIX}rewrite-target: /new/$1, {PREFIX}use-regex: \"true\""),
            &rule_for("rewrite.example", "/old/(.*)", "php"),
        ),
    ];
    site.save("manifests/all.yaml", &(CLASS.to_owned() + &objects.concat()));
    let (program, address) = start(&site, &[]);
    let (ip, port) = address.rsplit_once(':').unwrap();
    let fields = "x-set: 1\r\nX-List: 1\r\nX-List: 2\r\nproxy: http://evil.example\r\nx_under: 1\r\n\
                  upgrade: websocket\r\nconnection: upgrade\r\nx-forwarded-for: 6.6.6.6\r\n";
    for (host, target, expected) in [
        (
            "plain.example",
            "/a%20b/x.php?y=%20",
            &[
                ("SCRIPT_NAME", json!("/a b/x.php")),
                ("REQUEST_URI", json!("/a%20b/x.php?y=%20")),
                ("DOCUMENT_URI", json!("/a b/x.php")),
                ("QUERY_STRING", json!("y=%20")),
                ("REQUEST_METHOD", json!("GET")),
                ("SERVER_PROTOCOL", json!("HTTP/1.1")),
                ("REQUEST_SCHEME", json!("http")),
                ("SERVER_NAME", json!("plain.example")),
                ("SERVER_ADDR", json!(ip)),
                ("SERVER_PORT", json!(port)),
                ("CONTENT_LENGTH", json!("")),
                ("HTTP_HOST", json!("plain.example")),
                ("HTTP_X_SET", json!("1")),
                ("HTTP_X_LIST", json!("1, 2")),
                ("HTTP_X_FORWARDED_PROTO", json!("http")),
                ("HTTPS", Value::Null),
                ("SCRIPT_FILENAME", Value::Null),
                ("HTTP_PROXY", Value::Null),
                ("HTTP_X_UNDER", Value::Null),
                ("HTTP_UPGRADE", Value::Null),
                ("HTTP_CONNECTION", Value::Null),
            ][..],
        ),
        (
            "index.example",
            "/app/",
            &[
                ("SCRIPT_NAME", json!("/app/index.php")),
                ("DOCUMENT_URI", json!("/app/")),
                ("SCRIPT_FILENAME", json!("/srv/php/app/index.php")),
                ("HTTP_X_SET", json!("own")),
            ],
        ),
        (
            "rewrite.example",
            "/old/x.php?y",
            &[
                ("SCRIPT_NAME", json!("/new/x.php")),
                ("REQUEST_URI", json!("/old/x.php?y")),
                ("QUERY_STRING", json!("y")),
            ],
        ),
    ] {
        let response = get(&address, host, target, fields);
        assert_eq!(response.status, 200, "{host}: {}", response.body);
        let found = response.json();
        let params = found["params"].as_object().unwrap();
        for (name, value) in expected {
            assert_eq!(params.get(*name).unwrap_or(&Value::Null), value, "{host}: {name}");
        }
        let client = params["REMOTE_ADDR"].as_str().unwrap();
        assert_eq!(params["HTTP_X_FORWARDED_FOR"], client, "what the client wrote is not trusted");
    }
    program.stop().expect_success();
}

#[test]
fn bodies_have_their_length_and_stream() {
    let site = Site::new();
    let objects = [service_named("php", &[server()]), php("default", "php", "proxy-body-size: 256k")].concat();
    site.save("manifests/all.yaml", &(CLASS.to_owned() + &objects));
    let (program, address) = start(&site, &[]);
    let head = |framing: &str| format!("POST /x.php HTTP/1.1\r\nhost: php.example\r\n{framing}\r\n\r\n");
    let large = "0123456789".repeat(20_000);
    let chunked = format!("3\r\nabc\r\n{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    let trailers = "3\r\nabc\r\n0\r\nX-A: b\r\n\r\n".to_owned();
    for (framing, body, bytes, length) in [
        ("content-length: 0".to_owned(), String::new(), String::new(), "0"),
        (format!("content-length: {}", large.len()), large.clone(), large.clone(), "200000"),
        ("transfer-encoding: chunked".to_owned(), chunked, format!("abc{large}"), "200003"),
        ("trailer: x-a\r\ntransfer-encoding: chunked".to_owned(), trailers, "abc".to_owned(), "3"),
    ] {
        let response = Connection::open(&address).unwrap().send(head(&framing) + &body).unwrap();
        assert_eq!(response.status, 200, "{framing}: {}", response.body);
        let found = response.json();
        assert_eq!(found["params"]["CONTENT_LENGTH"], length, "{framing}");
        assert_eq!((&found["body"], &found["sum"]), (&json!(bytes.len()), &json!(sum(bytes.as_bytes()))), "{framing}");
    }
    // One byte more than the limit, and no end.
    let too_large = head("transfer-encoding: chunked") + &format!("40001\r\n{}", "x".repeat(0x4_0001));
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    stream.write_all(too_large.as_bytes()).unwrap();
    assert!(read_until(&mut stream, "\r\n\r\n").starts_with("HTTP/1.1 413 "));
    // A client that sends the second half once it has the first one back.
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    let request = "POST /stream.php HTTP/1.1\r\nhost: php.example\r\ncontent-length: 12\r\n\r\nfirst-";
    stream.write_all(request.as_bytes()).unwrap();
    assert!(read_until(&mut stream, "first-").starts_with("HTTP/1.1 200 "));
    stream.write_all(b"second").unwrap();
    assert!(read_until(&mut stream, "0\r\n\r\n").contains("second"));
    program.stop().expect_success();
}

/// What has arrived up to a text.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(end) {
        let length = stream.read(&mut buffer).unwrap();
        assert_ne!(length, 0, "closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    text
}

#[test]
fn responses_are_those_of_scripts() {
    let site = Site::new();
    let objects = [service_named("php", &[server()]), php("default", "php", "proxy-read-timeout: \"1\"")].concat();
    site.save("manifests/all.yaml", &(CLASS.to_owned() + &objects));
    let (program, address) = start(&site, &[]);
    let x_a = ("x-a", Some("b"));
    for (path, status, body, (name, value)) in [
        ("/status.php", 404, Some("gone"), x_a),
        ("/location.php", 302, Some(""), ("location", Some("https://other.example/"))),
        ("/stderr.php", 200, Some("fine"), x_a),
        ("/split.php", 200, Some("in parts"), x_a),
        ("/http.php", 502, None, ("x-a", None)),
        ("/upgrade.php", 502, None, ("upgrade", None)),
        ("/empty.php", 502, None, ("x-a", None)),
        ("/overloaded.php", 502, None, ("x-a", None)),
        ("/hanging.php", 504, None, ("x-a", None)),
    ] {
        let response = get(&address, "php.example", path, "");
        assert_eq!(response.status, status, "{path}: {}", response.body);
        assert!(body.is_none_or(|body| response.body == body), "{path}: {}", response.body);
        assert_eq!(response.field(name), value, "{path}");
        // The endpoint stays in service.
        assert_eq!(get(&address, "php.example", "/x.php", "").status, 200, "after {path}");
    }
    assert_eq!(get(&address, "php.example", "/large.php", "").body.len(), 3_000_000);
    let cut = Connection::open(&address).unwrap().get("php.example", "/cut.php");
    assert!(cut.is_err(), "an incomplete response is not complete for its client: {cut:?}");
    let messages = eventually("a message of the script", || {
        Some(program.stderr()).filter(|messages| messages.contains("A FastCGI server reports"))
    });
    assert!(messages.contains("a warning\\nof the script"), "{messages}");
    program.stop().expect_success();
}

#[test]
fn requests_go_to_endpoints_that_accept_connections_and_pass_guards() {
    let site = Site::new();
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = unused.local_addr().unwrap().port();
    drop(unused);
    let objects = [
        service_named("php", &[server(), closed]),
        php("default", "open", "load-balance: round_robin"),
        php("default", "guarded", "whitelist-source-range: 192.0.2.0/24"),
    ];
    site.save("manifests/all.yaml", &(CLASS.to_owned() + &objects.concat()));
    let (program, address) = start(&site, &[]);
    for number in 0..6 {
        assert_eq!(get(&address, "open.example", "/x.php", "").status, 200, "{number}");
    }
    assert_eq!(get(&address, "guarded.example", "/x.php", "").status, 403);
    program.stop().expect_success();
}

#[test]
fn parameters_that_cannot_be_sent_close_their_ingress() {
    let site = Site::new();
    let objects = [
        service_named("php", &[server()]),
        config_map("default", "good", "A_B: x"),
        config_map("default", "bad-value", "A: \"x y\""),
        config_map("default", "bad-variable", "A: $unknown"),
        config_map("other", "elsewhere", "SCRIPT_FILENAME: /x"),
        php("default", "good", "fastcgi-params-configmap: good"),
        php("default", "missing", "fastcgi-params-configmap: missing"),
        php("default", "value", "fastcgi-params-configmap: bad-value"),
        php("default", "variable", "fastcgi-params-configmap: bad-variable"),
        php("default", "index", "fastcgi-index: \"a/b\""),
        // Neither annotation has an effect, as in ingress-nginx.
        php("default", "other", "fastcgi-index: index.php, fastcgi-params-configmap: other/elsewhere"),
    ];
    site.save("manifests/all.yaml", &(CLASS.to_owned() + &objects.concat()));
    let (program, address) = start(&site, &[]);
    for (name, status) in
        [("good", 200), ("missing", 503), ("value", 503), ("variable", 503), ("index", 503), ("other", 200)]
    {
        assert_eq!(get(&address, &format!("{name}.example"), "/x.php", "").status, status, "{name}");
    }
    let params = get(&address, "other.example", "/", "").json();
    assert_eq!((&params["params"]["SCRIPT_NAME"], &params["params"]["SCRIPT_FILENAME"]), (&json!("/"), &Value::Null));
    // An Ingress without its ConfigMap opens with it.
    site.save("manifests/missing.yaml", &config_map("default", "missing", "SCRIPT_FILENAME: /late"));
    let params = eventually("the parameters of the ConfigMap", || {
        let response = get(&address, "missing.example", "/x.php", "");
        (response.status == 200).then(|| response.json())
    });
    assert_eq!(params["params"]["SCRIPT_FILENAME"], "/late");
    program.stop().expect_success();
}
