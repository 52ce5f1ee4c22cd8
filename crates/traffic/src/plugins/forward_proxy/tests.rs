//! Tests of requests through a proxy that a script plays.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::endpoint_tls::{TlsTrust, TrustAnchors, UpstreamProtocol, UpstreamTlsSettings};
use crate::plugin_api::instance::PluginInstance;
use crate::plugin_api::named_backend::NamedServerTls;
use crate::plugin_api::{
    AccessOutcome, ChangedFields, PluginState, RegisteredKind, RemoteStream, RequestCx, StreamedResponse,
};
use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use crate::plugin_chain::testing::{
    TestOutcome, TestRequest, build, build_with, chain_with, global_instance, instance, names,
};
use crate::plugin_kit::remote_client::{RemoteClient, RemoteConnector};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

const KIND: RegisteredKind<ForwardProxy> = RegisteredKind::NEW;

/// A proxy that sends the next response for each message, and what Portico did.
#[derive(Default)]
struct ScriptedProxy {
    responses: Vec<&'static str>,
    is_busy: bool,
    events: Mutex<Vec<String>>,
    diagnostic: Mutex<Option<Diagnostic>>,
}

/// The services of a plugin whose requests go through the proxy.
struct ThroughProxy(Arc<ScriptedProxy>);

impl PluginServices for ThroughProxy {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn send_in_place_of_backend(
        &self,
        _address: IpAddr,
        request: RemoteRequest,
        route: Option<ProxyRoute>,
    ) -> BoxFuture<'static, Result<StreamedResponse, RemoteFailure>> {
        if self.0.is_busy {
            return Box::pin(async { Err(RemoteFailure::Busy("all connections are in use".to_owned())) });
        }
        let client = RemoteClient::new(Arc::new(Connector(Arc::clone(&self.0))));
        Box::pin(async move { client.stream(request, route, ()).await })
    }

    fn report(&self, _object: &str, diagnostic: Option<Diagnostic>) {
        // It is withdrawn at the end of the plugin.
        if diagnostic.is_some() {
            *self.0.diagnostic.lock() = diagnostic;
        }
    }
}

struct Connector(Arc<ScriptedProxy>);

impl RemoteConnector for Connector {
    fn connect(&self, _: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, RemoteFailure>> {
        panic!("requests are never sent without the proxy");
    }

    fn connect_through(
        &self,
        remote: Remote,
        route: ProxyRoute,
    ) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, RemoteFailure>> {
        let script = Arc::clone(&self.0);
        Box::pin(async move {
            let proxy = route.proxy_for(&remote);
            script.events.lock().push(format!("connect {}:{} TLS {}", proxy.host, proxy.port, proxy.tls.is_some()));
            let (mut own, other) = duplex(1 << 16);
            tokio::spawn(serve(Arc::clone(&script), other));
            if let Some(tls) = &remote.tls {
                let opened = route.open_tunnel(&mut own, &remote).await;
                opened.map_err(|error| RemoteFailure::Unreachable(format!("{}: {error}", proxy.host)))?;
                let name = tls.server_name.as_deref().unwrap_or(&remote.host);
                let settings = route.tls.as_ref().map_or("of the system".to_owned(), |settings| {
                    format!("of the backend, verified {}", settings.verifies())
                });
                script.events.lock().push(format!("TLS {name} {settings}"));
            }
            Ok(Box::new(own) as Box<dyn RemoteStream>)
        })
    }
}

async fn serve(proxy: Arc<ScriptedProxy>, mut stream: DuplexStream) {
    let mut received = Vec::new();
    for response in &proxy.responses {
        let end = loop {
            if let Some(end) = received.windows(4).position(|part| part == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut received).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8(received.drain(..end).collect()).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        while received.len() < length {
            assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0);
        }
        let body = String::from_utf8(received.drain(..length).collect()).unwrap();
        proxy.events.lock().push(format!("{head}{body}"));
        stream.write_all(response.as_bytes()).await.unwrap();
    }
    // The connection stays open.
    drop(stream.read_u8().await);
}

fn proxy(responses: &[&'static str]) -> Arc<ScriptedProxy> {
    Arc::new(ScriptedProxy { responses: responses.to_vec(), ..ScriptedProxy::default() })
}

fn partner(port: u16, tls: Option<NamedServerTls>) -> NamedServer {
    NamedServer { host: "api.partner.example".into(), port, tls }
}

async fn send(
    proxy: &Arc<ScriptedProxy>,
    fields: Value,
    backend: Option<NamedServer>,
    test: TestRequest,
) -> TestOutcome {
    let mut config = json!({"http_proxy_host": "proxy.shop", "http_proxy_port": 3128});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let services: Arc<dyn PluginServices> = Arc::new(ThroughProxy(Arc::clone(proxy)));
    let chain = chain_with(&[(&KIND, config)], &PluginState::default(), &services);
    let mut outcome = TestRequest { backend, ..test }.run(&chain).await;
    outcome.read_stream().await;
    outcome
}

/// The TLS settings of a backend.
fn tls(name: Option<&str>, verifies: bool, has_certificate: bool) -> NamedServerTls {
    let trust = TlsTrust { anchors: Arc::new(TrustAnchors::new([])), max_intermediates: None, identity: None };
    let client = has_certificate.then(|| {
        let generated = rcgen::generate_simple_self_signed(vec!["portico.example".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(generated.signing_key.serialize_der()).unwrap();
        let key = any_supported_type(&key).unwrap();
        Arc::new(CertifiedKey::new(vec![generated.cert.der().clone()], key))
    });
    let settings = UpstreamTlsSettings::new(UpstreamProtocol::Http1, verifies.then_some(trust), client).unwrap();
    NamedServerTls { name: name.map(str::to_owned), settings }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: 1\r\nproxy-connection: close\r\n\r\nok";
const OPENED: &str = "HTTP/1.1 200 Connection established\r\nx: y\r\n\r\n";

/// RFC 9112, section 3.2.2: a proxy gets the whole URL.
#[tokio::test]
async fn backends_without_tls_get_requests_with_whole_urls() {
    let proxy = proxy(&[OK]);
    let request = TestRequest::post("/a?b=c", "text/plain", "hi")
        .header("host", "shop.example")
        .header("x-forwarded-for", "192.0.2.9, 192.0.2.1");
    let fields = json!({"auth_username": "anna", "auth_password": "hidden"});
    let outcome = send(&proxy, fields, Some(partner(8080, None)), request).await;
    assert_eq!((outcome.reply_status().unwrap().as_u16(), outcome.message()), (200, Some("ok")));
    assert_eq!((outcome.response_header("x-a"), outcome.response_header("proxy-connection")), (Some("1"), None));
    let events = proxy.events.lock().clone();
    let [connected, sent] = &events[..] else { panic!("{events:?}") };
    assert_eq!(connected, "connect proxy.shop:3128 TLS false");
    assert!(sent.starts_with("POST http://api.partner.example:8080/a?b=c HTTP/1.1\r\n"), "{sent}");
    assert!(sent.ends_with("\r\n\r\nhi"), "{sent}");
    for line in [
        "host: api.partner.example:8080",
        "proxy-authorization: Basic YW5uYTpoaWRkZW4=",
        "x-forwarded-for: 192.0.2.9, 192.0.2.1",
        // Ends loops, also with `x_headers: delete`.
        "portico-hops: 1",
    ] {
        assert!(sent.lines().any(|found| found == line), "{line}: {sent}");
    }
    assert!(!sent.contains("shop.example"), "{sent}");
}

/// RFC 9110, section 9.3.6: the credentials are for the proxy only.
#[tokio::test]
async fn backends_with_tls_get_requests_through_a_tunnel() {
    for (fields, tls, handshake) in [
        (json!({}), tls(None, false, false), "TLS api.partner.example of the system"),
        (json!({}), tls(None, true, true), "TLS api.partner.example of the backend, verified true"),
        (
            json!({"https_verify": false}),
            tls(None, false, true),
            "TLS api.partner.example of the backend, verified false",
        ),
        (
            json!({"https_verify": false}),
            tls(Some("tls.example"), true, false),
            "TLS tls.example of the backend, verified true",
        ),
    ] {
        let proxy = proxy(&[OPENED, OK]);
        let mut fields = fields;
        fields["auth_username"] = json!("anna");
        fields["https_proxy_host"] = json!("tunnels.shop");
        fields["https_proxy_port"] = json!(3129);
        let outcome = send(&proxy, fields, Some(partner(443, Some(tls))), TestRequest::get("/a")).await;
        assert_eq!(outcome.reply_status().unwrap().as_u16(), 200);
        let events = proxy.events.lock().clone();
        let [connected, connect, secured, sent] = &events[..] else { panic!("{events:?}") };
        assert_eq!(connected, "connect tunnels.shop:3129 TLS false");
        let expected = "CONNECT api.partner.example:443 HTTP/1.1\r\nHost: api.partner.example:443\r\n\
                        Proxy-Authorization: Basic YW5uYTo=\r\n\r\n";
        assert_eq!(connect, expected);
        assert_eq!(secured, handshake);
        assert!(sent.starts_with("GET /a HTTP/1.1\r\n"), "{sent}");
        assert!(sent.contains("host: api.partner.example\r\n") && !sent.contains("roxy-"), "{sent}");
    }
}

/// What is sent is the body as the last plugin has left it, and never an empty one in place of one that was not read.
#[tokio::test]
async fn bodies_are_sent_as_plugins_have_left_them_or_not_at_all() {
    struct Shouting;

    impl Plugin for Shouting {
        fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
            cx.replace_body(Bytes::from_static(b"HI"));
            AccessOutcome::Continue
        }

        fn declare_fields(&self, fields: &mut ChangedFields) {
            fields.request.add(&CONTENT_LENGTH);
        }
    }

    for (may_buffer, status) in [(true, 200), (false, 502)] {
        let proxy = proxy(&[OK]);
        let config = json!({"http_proxy_host": "proxy.shop", "http_proxy_port": 3128});
        let services: Arc<dyn PluginServices> = Arc::new(ThroughProxy(Arc::clone(&proxy)));
        let forwarding = build_with(&KIND, &config, &PluginState::default(), &services).unwrap();
        let mut builder = ChainBuilder::default();
        let (route, shouting) = (AttachmentPoint::Base(BaseScope::Route), Arc::new(Shouting));
        let shouting = PluginInstance { phases: Phases::ACCESS, ..global_instance(shouting) };
        builder.add("forward-proxy", 50, route.clone(), instance(&KIND, forwarding));
        // After the other plugin, whose priority is higher.
        builder.add("shouting", 1, route, shouting);
        let chain = builder.build(names()).unwrap();
        let request = TestRequest::post("/", "text/plain", "hi");
        let outcome = TestRequest { may_buffer, backend: Some(partner(80, None)), ..request }.run(&chain).await;
        assert_eq!(outcome.reply_status().unwrap().as_u16(), status);
        let events = proxy.events.lock().clone();
        if may_buffer {
            assert!(events[1].contains("content-length: 2\r\n") && events[1].ends_with("\r\n\r\nHI"), "{events:?}");
        } else {
            assert_eq!((outcome.reply.unwrap().reason, events), ("body_not_buffered", Vec::new()));
        }
    }
}

#[tokio::test]
async fn fields_about_the_client_are_sent_as_configured() {
    for (x_headers, expected) in [
        ("append", &["x-forwarded-for: 1.1.1.1, 2.2.2.2", "x-real-ip: 2.2.2.2", "x-forwarded-proto: http"][..]),
        ("transparent", &["x-forwarded-for: 1.1.1.1"]),
        ("delete", &[]),
    ] {
        let proxy = proxy(&[OK]);
        let request = TestRequest::get("/")
            .header("x-forwarded-for", "1.1.1.1, 2.2.2.2")
            .header("x-real-ip", "2.2.2.2")
            .header("x-forwarded-proto", "http");
        send(&proxy, json!({"x_headers": x_headers}), Some(partner(80, None)), request).await;
        let sent = proxy.events.lock()[1].clone();
        let mut found: Vec<&str> = sent.lines().filter(|line| line.starts_with("x-")).collect();
        found.sort_by_key(|line| expected.iter().position(|expected| expected == line));
        assert_eq!(found, expected, "{x_headers}");
    }
}

#[tokio::test]
async fn requests_are_never_sent_without_the_proxy() {
    let secure = || Some(partner(443, Some(tls(None, false, false))));
    let endless = |first: &str, length: usize| -> &'static str {
        Box::leak(format!("{first}\r\nx: {}", "y".repeat(length)).into_boxed_str())
    };
    const NOT_SUPPORTED: &str = "backend_not_supported";
    const NO_RESPONSE: &str = "no_proxy_response";
    let of_proxy = "HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n";
    for (what, responses, backend, reason, problem) in [
        ("an address", &[][..], None, NOT_SUPPORTED, None),
        // It could not be presented to a server that the certificate authorities of the system vouch for.
        ("a client certificate", &[], Some(partner(443, Some(tls(None, false, true)))), NOT_SUPPORTED, None),
        ("other credentials", &[of_proxy], Some(partner(80, None)), NO_RESPONSE, Some("wants other credentials")),
        (
            "a refused tunnel",
            &["HTTP/1.1 403 Forbidden\r\n\r\n"],
            secure(),
            NO_RESPONSE,
            Some("proxy.shop: the proxy refuses the tunnel with status 403"),
        ),
        ("nonsense", &["SSH-2.0-x\r\n\r\n"], secure(), NO_RESPONSE, Some("is not HTTP")),
        ("an endless head", &[endless("HTTP/1.1 200 OK", 9000)], secure(), NO_RESPONSE, Some("more than 8192 bytes")),
        // What clients can ask for says nothing about the proxy.
        ("a large head", &[endless("HTTP/1.1 200 OK", 70_000)], Some(partner(80, None)), NO_RESPONSE, None),
        ("no response", &["HTTP/1.1 200 OK\r\n"], Some(partner(81, None)), NO_RESPONSE, None),
    ] {
        let proxy = proxy(responses);
        let sending = send(&proxy, json!({}), backend, TestRequest::get("/"));
        tokio::time::pause();
        let outcome = sending.await;
        tokio::time::resume();
        assert_eq!(outcome.reply_status().unwrap().as_u16(), 502, "{what}");
        assert_eq!(outcome.reply.unwrap().reason, reason, "{what}");
        let diagnostic = proxy.diagnostic.lock().clone();
        match problem {
            Some(problem) => {
                let diagnostic = diagnostic.unwrap_or_else(|| panic!("{what}: nothing is reported"));
                assert!(diagnostic.message.contains(problem), "{what}: {}", diagnostic.message);
                assert_eq!(diagnostic.field, "config.http_proxy_host");
            }
            None => assert_eq!(diagnostic, None, "{what}"),
        }
        assert_eq!(proxy.events.lock().is_empty(), reason == NOT_SUPPORTED, "{what}");
    }
}

/// A proxy that accepts connections and closes them has failed if no request gets a response.
#[tokio::test(start_paused = true)]
async fn proxies_that_never_respond_are_reported() {
    let proxy = proxy(&[]);
    let services: Arc<dyn PluginServices> = Arc::new(ThroughProxy(Arc::clone(&proxy)));
    let config = json!({"http_proxy_host": "proxy.shop", "http_proxy_port": 3128});
    let chain = chain_with(&[(&KIND, config)], &PluginState::default(), &services);
    for is_reported in [false, true] {
        let request = TestRequest { backend: Some(partner(80, None)), ..TestRequest::get("/") };
        assert_eq!(request.run(&chain).await.reply_status().unwrap().as_u16(), 502);
        assert_eq!(proxy.diagnostic.lock().is_some(), is_reported);
        tokio::time::sleep(Duration::from_secs(6)).await; // Time is paused.
    }
}

#[tokio::test]
async fn requests_beyond_the_limit_of_connections_are_no_failure_of_the_proxy() {
    let proxy = Arc::new(ScriptedProxy { is_busy: true, ..ScriptedProxy::default() });
    let outcome = send(&proxy, json!({}), Some(partner(80, None)), TestRequest::get("/")).await;
    assert_eq!(outcome.reply_status().unwrap().as_u16(), 503);
    assert_eq!(outcome.reply.unwrap().reason, "proxy_busy");
    assert_eq!(*proxy.diagnostic.lock(), None);
}

#[test]
fn invalid_configurations_name_the_field() {
    for (config, field) in [
        (json!({}), "config.http_proxy_host"),
        (json!({"http_proxy_host": "a b", "http_proxy_port": 1}), "config.http_proxy_host"),
        (json!({"http_proxy_host": "a:3128", "http_proxy_port": 1}), "config.http_proxy_host"),
        (json!({"http_proxy_host": "::::", "http_proxy_port": 1}), "config.http_proxy_host"),
        (json!({"http_proxy_host": "a"}), "config.http_proxy_port"),
        (json!({"http_proxy_host": "a", "http_proxy_port": 0}), "config.http_proxy_port"),
        (json!({"https_proxy_port": 3128}), "config.https_proxy_host"),
        (json!({"http_proxy_host": "a", "http_proxy_port": 1, "auth_password": "x"}), "config.auth_username"),
        (json!({"http_proxy_host": "a", "http_proxy_port": 1, "auth_username": "x:y"}), "config.auth_username"),
        (json!({"http_proxy_host": "a", "http_proxy_port": 1, "x_headers": "keep"}), "config.x_headers"),
        (json!({"http_proxy_host": "a", "http_proxy_port": 1, "proxy_scheme": "https"}), "config.proxy_scheme"),
    ] {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
    }
}
