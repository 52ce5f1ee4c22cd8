//! Lines by templates: those of other proxies, what is redacted, and how values are escaped.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use tokio::time::Instant;

use super::*;
use crate::plugin_api::CredentialLocations;
use crate::plugin_api::masking::LogMask;
use crate::plugin_api::masking::json_mask::JsonMask;
use crate::plugin_api::masking::text_mask::{MaskedKind, TextMask};
use crate::proxy::telemetry::access_log::line::testing::record;
use crate::proxy::telemetry::access_log::{CapturedHeads, Privacy};
use crate::snapshot::rule_telemetry::AlternativeUpstream;

fn line(template: &str, record: &AccessLogRecord<'_>) -> String {
    let template = LineTemplate::parse(template).unwrap();
    let mut line = Vec::new();
    write(&template, record, &mut line);
    String::from_utf8(line).unwrap()
}

fn field(name: &'static str, value: &'static [u8]) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
}

fn heads() -> CapturedHeads {
    CapturedHeads {
        request: vec![
            field("referer", b"https://b.example/?page=1&token=secret"),
            field("user-agent", b"a \"b\"\t\xff\\"),
            field("x-a", b"1"),
            field("x-a", b"2"),
            field("x-forwarded-for", b"192.0.2.7"),
        ],
        response: vec![field("content-type", b"text/html")],
        request_bytes: 100,
        response_bytes: 50,
    }
}

#[test]
fn lines_are_those_of_other_proxies() {
    let heads = heads();
    let attempt = |port: u16, outcome| Attempt {
        outcome,
        total: Duration::from_millis(12),
        first_byte: matches!(outcome, AttemptOutcome::Status(_)).then_some(Duration::from_millis(9)),
        ..Attempt::start(SocketAddr::from(([10, 0, 0, 2], port)), Instant::now())
    };
    let failed = AttemptOutcome::Failed { reason: "no_response", status: StatusCode::BAD_GATEWAY };
    let tries = [attempt(80, failed), attempt(81, AttemptOutcome::Status(StatusCode::OK))];
    let privacy = Privacy { shown_parameters: vec!["page".into()], ..Privacy::default() };
    let record = AccessLogRecord {
        captured: Some(&heads),
        tries: &tries,
        listen_port: Some(8443),
        privacy: &privacy,
        ..record("/a/b?page=2&key=secret")
    };
    for (template, expected) in [
        (
            "combined",
            "10.0.0.1 - - [14/Nov/2023:22:13:20 +0000] \"GET /a/b?page=2&key=* HTTP/2\" 200 2 \
             \"https://b.example/?page=1&token=*\" \"a \\x22b\\x22\\x09\\xEF\\xBF\\xBD\\x5C\"\n",
        ),
        (
            "$request_length $bytes_sent $request_time $upstream_addr $upstream_status $upstream_response_time \
             $upstream_header_time $upstream_response_length $http_x_a $sent_http_content_type",
            "101 52 0.001 10.0.0.2:80, 10.0.0.2:81 502, 200 0.012, 0.012 -, 0.009 2 1,\\x202 text/html\n",
        ),
        (
            "$namespace $ingress_name $service_name $service_port $proxy_upstream_name $uri$is_args$args $arg_page \
             $arg_key $arg_none $host:$server_port $scheme",
            "ns a web 80 ns/web:80 /a/b?page=2&key=* 2 * - a.example:8443 https\n",
        ),
        (
            "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-NONE?:PATH):4% %PROTOCOL%\" %RESPONSE_CODE% %DURATION% \
             %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% %UPSTREAM_HOST% %REQ(X-NONE)%",
            "[2023-11-14T22:13:20.123Z] \"GET /a/b HTTP/2\" 200 1 9 10.0.0.2:80 -\n",
        ),
        (
            "%h %l %u %t \"%r\" %>s %b %D %U%q %v:%p",
            "10.0.0.1 - - [14/Nov/2023:22:13:20 +0000] \"GET /a/b?page=2&key=* HTTP/2\" 200 2 1500 \
          /a/b?page=2&key=* a.example:8443\n",
        ),
        (
            "escape=json '{\"a\":\"$http_user_agent\",\"s\":$status,\"n\":\"$http_none\",\"m\":$http_none}'",
            "{\"a\":\"a \\\"b\\\"\\u0009\u{fffd}\\\\\",\"s\":200,\"n\":\"\",\"m\":null}\n",
        ),
        (
            "{\"d\": \"%DURATION%\", \"c\": \"%UPSTREAM_CLUSTER%\", \"x\": \"%REQ(X-NONE)%\"}",
            "{\"d\": 1, \"c\": \"ns/web:80\", \"x\": null}\n",
        ),
    ] {
        assert_eq!(line(template, &record), expected, "{template}");
    }
}

#[test]
fn masks_of_the_route_apply() {
    let heads = CapturedHeads {
        request: vec![
            field("user-agent", b"a"),
            field("referer", b"https://b.example/jane@a.example"),
            field("x-forwarded-for", b"192.0.2.7"),
        ],
        response: vec![field("x-owner", b"joe@a.example")],
        request_bytes: 1,
        response_bytes: 1,
    };
    let mask = |access_log: &[MaskedAccessField]| {
        let text = TextMask::new(&[MaskedKind::Email], Vec::new(), "***");
        let object = JsonMask::new(Vec::new(), text);
        let masks = vec![Arc::new(LogMask { object, access_log: access_log.to_vec() })];
        CredentialLocations { masks, ..CredentialLocations::default() }
    };
    let privacy = Privacy { shown_parameters: vec!["to".into()], ..Privacy::default() };
    let record = AccessLogRecord {
        captured: Some(&heads),
        privacy: &privacy,
        ..record("/u/joe@a.example?to=eve@b.example&key=k")
    };
    let template = "$remote_addr:$remote_port \"$request\" $request_uri $uri $args $arg_to $host $http_user_agent \
                    $http_referer $http_x_forwarded_for $sent_http_x_owner $status";
    let by_pattern = mask(&[]);
    let masked = AccessLogRecord { credentials: Some(&by_pattern), ..record };
    let expected = "10.0.0.1:5 \"GET /u/***?to=***&key=* HTTP/2\" /u/***?to=***&key=* /u/*** to=***&key=* *** a.example a \
                    https://b.example/*** 192.0.2.7 *** 200\n";
    assert_eq!(line(template, &masked), expected);
    use MaskedAccessField::{Client, Host, Path, UserAgent};
    let by_field = mask(&[Client, Host, Path, UserAgent]);
    let masked = AccessLogRecord { credentials: Some(&by_field), ..masked };
    let expected = "***:- \"GET ***?to=***&key=* HTTP/2\" ***?to=***&key=* *** to=***&key=* *** *** *** https://b.example/*** \
                    *** *** 200\n";
    assert_eq!(line(template, &masked), expected);
    assert_eq!(line("{\"c\": \"%DOWNSTREAM_REMOTE_ADDRESS%\"}", &masked), "{\"c\": \"***\"}\n");
}

#[test]
fn upstreams_have_the_names_of_the_dialect() {
    let template = "$proxy_upstream_name [$proxy_alternative_upstream_name] $upstream";
    assert_eq!(line(template, &record("/")), "ns/web:80 [-] ns/web:80\n");
    let alternative = |backend: &str| {
        let alternative = AlternativeUpstream { name: "ns-next-http".into(), backend: backend.into() };
        RuleTelemetry { upstream: "ns-web-80".into(), alternative: Some(alternative), ..RuleTelemetry::default() }
    };
    for (backend, expected) in
        [("ns/web:80", "ns-web-80 [ns-next-http] ns/web:80\n"), ("ns/a:1", "ns-web-80 [] ns/web:80\n")]
    {
        let telemetry = alternative(backend);
        assert_eq!(line(template, &AccessLogRecord { telemetry: Some(&telemetry), ..record("/") }), expected);
    }
}

#[test]
fn names_of_parameters_have_no_case() {
    let shown = Privacy { shown_parameters: vec!["userId".into()], ..Privacy::default() };
    let record = AccessLogRecord { privacy: &shown, ..record("/?userId=7&USERNAME=anna") };
    assert_eq!(line("$arg_userId $arg_username", &record), "7 *\n");
}

#[test]
fn credentials_and_clients_are_redacted() {
    let heads = heads();
    let credentials = CredentialLocations {
        headers: vec![HeaderName::from_static("x-a")],
        parameters: vec!["key".into()],
        ..CredentialLocations::default()
    };
    let host = Some(HeaderValue::from_static("anna:hunter2@a.example"));
    let shown = Privacy { shown_parameters: vec!["key".into()], ..Privacy::default() };
    let record = AccessLogRecord {
        captured: Some(&heads),
        credentials: Some(&credentials),
        host,
        privacy: &shown,
        ..record("/?key=secret")
    };
    let template = "$http_x_a $request_uri $arg_key $http_host $http_x_forwarded_for";
    assert_eq!(line(template, &record), "REDACTED /?key=* * a.example 192.0.2.7\n");
    let masked = Privacy { masks_clients: true, ..Privacy::default() };
    let record = AccessLogRecord { privacy: &masked, ..record };
    assert_eq!(line("$http_x_forwarded_for", &record), "REDACTED\n");
}

#[test]
fn long_values_are_cut_and_connections_have_few_values() {
    let record = AccessLogRecord { target: Some(format!("/{}", "é".repeat(9000)).parse().unwrap()), ..record("/") };
    assert!(line("$uri", &record).len() < 4 * 8200);
    let connection = AccessLogRecord {
        method: None,
        target: None,
        host: None,
        status: None,
        tls: None,
        request_id: None,
        protocol: Some("TCP"),
        ..record
    };
    let written = line("$request $status $protocol $upstream_addr $scheme", &connection);
    assert_eq!(written, "- - TCP 10.0.0.2:80 -\n");
}

#[test]
fn hosts_are_written_without_their_ports() {
    for (host, expected) in [
        ("a.example:8080", "a.example"),
        ("a.example", "a.example"),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
        ("a.example:x", "a.example:x"),
    ] {
        assert_eq!(without_port(Cow::Borrowed(host)), expected);
    }
}
