//! What a server of OTLP gets of a process: traces, the access log and metrics, with the headers of a file.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};

use crate::harness::client::get;
use crate::harness::eventually;
use crate::harness::objects::save_good_objects;
use crate::harness::program::run;
use crate::harness::site::Site;

/// A server that accepts everything and keeps the path, the header `x-token` and the JSON of each request.
pub(crate) struct Collector {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<(String, String, Value)>>>,
}

impl Collector {
    pub(crate) fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received: Arc<Mutex<Vec<_>>> = Arc::default();
        let kept = Arc::clone(&received);
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (socket, kept) = (socket.unwrap(), Arc::clone(&kept));
                thread::spawn(move || Collector::serve(socket, &kept));
            }
        });
        Collector { url, received }
    }

    fn serve(mut socket: TcpStream, kept: &Mutex<Vec<(String, String, Value)>>) {
        let mut reader = BufReader::new(socket.try_clone().unwrap());
        loop {
            let (mut path, mut token, mut length) = (String::new(), String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                let line = line.trim_end().to_lowercase();
                if let Some(target) = line.strip_prefix("post ") {
                    path = target.split(' ').next().unwrap().to_owned();
                } else if let Some(value) = line.strip_prefix("x-token: ") {
                    value.clone_into(&mut token);
                } else if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.parse().unwrap();
                } else if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            kept.lock().unwrap().push((path, token, serde_json::from_slice(&body).unwrap()));
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
    }

    /// What a function finds in the messages with this path, which have the header `x-token: secret`.
    pub(crate) fn wait_for<T>(&self, path: &str, find: impl Fn(&Value) -> Option<T>) -> T {
        eventually(path, || {
            let received = self.received.lock().unwrap();
            received.iter().filter(|(target, ..)| target == path).find_map(|(_, token, message)| {
                assert_eq!(token, "secret");
                find(message)
            })
        })
    }
}

/// The entries of a list in all lists, such as the spans of all scopes of all resources.
pub(crate) fn entries(message: &Value, lists: [&str; 3]) -> Vec<Value> {
    let all = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let of_resources = all(message, lists[0]).into_iter().flat_map(|resource| all(&resource, lists[1]));
    of_resources.flat_map(|scope| all(&scope, lists[2])).collect()
}

/// The number of requests for the good route.
fn requests_of_good(message: &Value) -> Option<Value> {
    let metrics = entries(message, ["resourceMetrics", "scopeMetrics", "metrics"]);
    let requests = metrics.iter().find(|metric| metric["name"] == "portico_requests")?["sum"].clone();
    let is_good = |point: &&Value| point["attributes"].to_string().contains("HTTPRoute/default/good");
    requests["dataPoints"].as_array()?.iter().find(is_good).map(|point| point["asInt"].clone())
}

#[test]
fn a_collector_gets_the_last_metrics_before_the_end() {
    let site = Site::new();
    save_good_objects(&site);
    site.save("headers", "X-Token: secret\n");
    let collector = Collector::start();
    let flags = [
        ["--metrics-otlp-endpoint", &collector.url],
        ["--metrics-otlp-interval", "1h"],
        ["--otlp-protocol", "http/json"],
        ["--otlp-headers-file", "headers"],
    ];
    let program = run(&site, &flags.concat());
    program.wait_started();
    for _ in 0..3 {
        assert_eq!(get(&site.address_of("port"), "/good/of-test").status, 200);
    }
    program.stop().expect_success();
    assert_eq!(collector.wait_for("/v1/metrics", requests_of_good), "3");
}

#[test]
fn a_collector_gets_traces_lines_and_metrics() {
    let site = Site::new();
    save_good_objects(&site);
    site.save("headers", "X-Token: secret\n");
    let collector = Collector::start();
    let url = collector.url.as_str();
    let flags = [
        ["--trace-otlp-endpoint", url],
        ["--trace-sampling", "1"],
        ["--access-log-otlp-endpoint", url],
        ["--access-log", "off"],
        ["--access-log-fields", "path,status,trace_id"],
        ["--metrics-otlp-endpoint", url],
        ["--metrics-otlp-interval", "200ms"],
        ["--otlp-protocol", "http/json"],
        ["--otlp-headers-file", "headers"],
    ];
    let program = run(&site, &flags.concat());
    program.wait_started();
    assert_eq!(get(&site.address_of("port"), "/good/of-test").status, 200);

    let trace = collector.wait_for("/v1/traces", |message| {
        let spans = entries(message, ["resourceSpans", "scopeSpans", "spans"]);
        spans.iter().find(|span| span["kind"] == 2).map(|span| span["traceId"].clone())
    });
    let record = collector.wait_for("/v1/logs", |message| {
        entries(message, ["resourceLogs", "scopeLogs", "logRecords"]).into_iter().next()
    });
    let line: Value = serde_json::from_str(record["body"]["stringValue"].as_str().unwrap()).unwrap();
    assert_eq!(line, json!({"path": "/good/of-test", "status": 200, "trace_id": trace}));
    assert_eq!(record["traceId"], trace);

    assert_eq!(collector.wait_for("/v1/metrics", requests_of_good), "1");
    let histogram = collector.wait_for("/v1/metrics", |message| {
        let metrics = entries(message, ["resourceMetrics", "scopeMetrics", "metrics"]);
        let durations = metrics.iter().find(|metric| metric["name"] == "portico_request_duration_seconds")?;
        durations["histogram"]["dataPoints"].as_array()?.iter().find(|point| point["count"] == "1").cloned()
    });
    let counts = histogram["bucketCounts"].as_array().unwrap();
    assert_eq!(counts.len(), histogram["explicitBounds"].as_array().unwrap().len() + 1);
    assert_eq!(counts.iter().filter(|count| **count == "1").count(), 1, "{histogram}");
    program.stop().expect_success();
}

#[test]
fn files_for_otlp_are_checked_at_the_start() {
    let site = Site::new();
    save_good_objects(&site);
    site.save("text", "no certificate\n");
    for (flags, expected) in [
        (["--otlp-headers-file", "missing"], "--otlp-headers-file missing"),
        (["--otlp-headers-file", "text"], "line 1 is not a header"),
        (["--otlp-ca-file", "text"], "has no certificate in PEM"),
        (["--otlp-client-cert-file", "text"], "text: has no certificate in PEM"),
    ] {
        let key = if flags[0] == "--otlp-client-cert-file" { &["--otlp-client-key-file", "text"][..] } else { &[] };
        let server = ["--trace-otlp-endpoint", "https://collector.example"];
        let ended = run(&site, &[&flags[..], key, &server[..]].concat()).wait();
        assert!(!ended.status.success() && ended.stderr.contains(expected), "{flags:?}: {}", ended.stderr);
    }
}

/// The server closes each connection, so every batch has the certificate that the files contain then.
#[test]
fn collectors_that_require_a_certificate_get_the_one_of_the_files() {
    let site = Site::new();
    save_good_objects(&site);
    let clients = [(); 2].map(|()| generate_simple_self_signed(["gateway".to_owned()]).unwrap());
    let (url, seen) = certificate_collector(&site, &clients);
    let save = |client: &CertifiedKey<KeyPair>| {
        site.save("tls.crt", &client.cert.pem());
        site.save("tls.key", &client.signing_key.serialize_pem());
    };
    save(&clients[0]);
    let flags = [
        ["--metrics-otlp-endpoint", &url],
        ["--metrics-otlp-interval", "200ms"],
        ["--otlp-ca-file", "ca.crt"],
        ["--otlp-client-cert-file", "tls.crt"],
        ["--otlp-client-key-file", "tls.key"],
    ];
    let program = run(&site, &flags.concat());
    program.wait_started();
    for client in &clients {
        save(client);
        let is_seen = || seen.lock().unwrap().contains(&client.cert.der().to_vec()).then_some(());
        eventually("a batch with the certificate", is_seen);
    }
    program.stop().expect_success();
}

/// A server that requires one of these certificates, and keeps which ones it got. Its own is in `ca.crt`.
fn certificate_collector(site: &Site, clients: &[CertifiedKey<KeyPair>]) -> (String, Arc<Mutex<Vec<Vec<u8>>>>) {
    let own = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    site.save("ca.crt", &own.cert.pem());
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(clients.iter().map(|client| client.cert.der().clone()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![own.cert.der().clone()], own.signing_key.serialize_der().try_into().unwrap())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let kept = Arc::clone(&seen);
    thread::spawn(move || {
        for socket in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, socket.unwrap());
            let (mut reader, mut length) = (BufReader::new(&mut stream), 0);
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap_or(0) > 2 {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            drop(reader.read_exact(&mut vec![0; length]));
            kept.lock().unwrap().extend(stream.conn.peer_certificates().map(|chain| chain[0].to_vec()));
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"));
            stream.conn.send_close_notify();
            drop(stream.flush());
        }
    });
    (url, seen)
}
