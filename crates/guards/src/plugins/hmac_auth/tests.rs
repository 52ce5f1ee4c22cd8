//! Tests of signatures: what is signed, by which algorithms, at which time, and with which body.

use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use http::{Request, Version};
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::consumers::{EntityId, HmacCredential};
use crate::plugin_api::{ConsumerDirectory, RegisteredKind};
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain, consumer, noon, notes};

const KIND: RegisteredKind<HmacAuth> = RegisteredKind::NEW;
const NOON: &str = "Fri, 02 Jan 2026 12:00:00 GMT";
const NO_DATE: &str =
    "HMAC signature cannot be verified, a valid date or x-date header is required for HMAC Authentication";
const UNVERIFIABLE: &str = "HMAC signature cannot be verified";
const MISMATCH: &str = "HMAC signature does not match";

fn consumers() -> ConsumerDirectory {
    let mut directory = ConsumerDirectory::default();
    let (anna, guest) = (consumer("anna", &[]), consumer("guest", &[]));
    directory.add(&anna);
    directory.add(&guest);
    let credential = HmacCredential::new(EntityId::from_text("id-signer"), "signer", b"secret", anna);
    directory.signers.insert(Arc::new(credential));
    directory
}

fn sign(algorithm: hmac::Algorithm, text: &str) -> String {
    STANDARD.encode(hmac::sign(&hmac::Key::new(algorithm, b"secret"), text.as_bytes()))
}

/// The value of `Authorization` for this text, signed with SHA-256.
fn authorization(headers: &str, text: &str) -> String {
    let signature = sign(hmac::HMAC_SHA256, text);
    format!(r#"hmac username="signer", algorithm="hmac-sha256", headers="{headers}", signature="{signature}""#)
}

fn dated(target: &str) -> TestRequest {
    TestRequest::get(target).header("date", NOON)
}

/// A request at noon that signs its date.
fn signed() -> TestRequest {
    dated("/").header("authorization", &authorization("date", &format!("date: {NOON}")))
}

async fn run(config: &Value, request: TestRequest) -> TestOutcome {
    request.with_consumers(&consumers()).run(&chain(&[(&KIND, config.clone())])).await
}

async fn check(name: &str, config: &Value, request: TestRequest, rejection: Option<&str>) {
    let outcome = run(config, request).await;
    assert_eq!(outcome.message(), rejection, "{name}");
    if rejection.is_some() {
        assert_eq!(outcome.reply_status(), Some(StatusCode::UNAUTHORIZED), "{name}");
        assert_eq!(outcome.response_header("www-authenticate"), Some("hmac"), "{name}");
    } else {
        assert_eq!(outcome.upstream_identity(), (Some("anna"), Some("signer"), false), "{name}");
        assert_eq!(outcome.state.identity.credential().map(|id| &**id), Some("id-signer"), "{name}");
    }
}

// docs/kong-compatibility.md, 4.13
#[tokio::test]
async fn each_entry_signs_its_line() {
    let cases = [
        ("date", format!("date: {NOON}")),
        ("DATE", format!("DATE: {NOON}")),
        ("date request-line", format!("date: {NOON}\nGET /p%61th%2c%2C?q=%20%2c HTTP/1.1")),
        ("@request-target date", format!("@request-target: get /p%61th%2c%2C?q=%20%2c\ndate: {NOON}")),
        ("date  host", format!("date: {NOON}\nhost: shop.example")),
        ("date x-missing", format!("date: {NOON}\nx-missing:")),
        ("date x-two", format!("date: {NOON}\nx-two: a, b")),
        ("date not/a/name", format!("date: {NOON}\nnot/a/name:")),
    ];
    let request = |authorization: &str| {
        dated("/p%61th%2c%2C?q=%20%2c")
            .header("host", "shop.example")
            .header("x-two", "a")
            .header("x-two", "b")
            // Not the request line.
            .header("request-line", "GET /admin HTTP/1.1")
            .header("authorization", authorization)
    };
    for (headers, text) in cases {
        check(headers, &json!({}), request(&authorization(headers, &text)), None).await;
        let other = authorization(headers, &format!("{text}\n"));
        check(headers, &json!({}), request(&other), Some(MISMATCH)).await;
    }
    let spoofed = authorization("date request-line", &format!("date: {NOON}\nrequest-line: GET /admin HTTP/1.1"));
    check("a header named like the request line", &json!({}), request(&spoofed), Some(MISMATCH)).await;
    let first_only = authorization("date x-two", &format!("date: {NOON}\nx-two: a"));
    check("all values of a header are signed", &json!({}), request(&first_only), Some(MISMATCH)).await;
    let signed = || authorization("date x-two", &format!("date: {NOON}\nx-two: a, b"));
    for values in [&["b", "a"][..], &["a", "b", "b"], &["a"], &["a", "b", ""], &["", "a", "b"], &[]] {
        let request = values.iter().fold(dated("/"), |request, value| request.header("x-two", value));
        let name = format!("the header is {values:?}");
        check(&name, &json!({}), request.header("authorization", &signed()), Some(MISMATCH)).await;
    }
    check("a date that occurs twice", &json!({}), self::signed().header("date", NOON), Some(NO_DATE)).await;
}

// docs/kong-compatibility.md, 4.13
#[tokio::test]
async fn the_request_line_has_the_version_of_the_client() {
    for (version, name) in [(Version::HTTP_10, "HTTP/1.0"), (Version::HTTP_2, "HTTP/2.0")] {
        let authorization = authorization("date request-line", &format!("date: {NOON}\nPOST / {name}"));
        let mut request = dated("/").header("authorization", &authorization);
        *request.request.version_mut() = version;
        *request.request.method_mut() = http::Method::POST;
        check(name, &json!({}), request, None).await;
    }
}

// docs/kong-compatibility.md, 4.13
#[tokio::test]
async fn algorithms_are_those_of_the_configuration() {
    let algorithms = [
        ("hmac-sha1", hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        ("hmac-sha224", hmac::HMAC_SHA224),
        ("hmac-sha256", hmac::HMAC_SHA256),
        ("hmac-sha384", hmac::HMAC_SHA384),
        ("hmac-sha512", hmac::HMAC_SHA512),
    ];
    for (name, algorithm) in algorithms {
        let signature = sign(algorithm, &format!("date: {NOON}"));
        let signed = || {
            let parameters =
                format!(r#"username="signer", algorithm="{name}", headers="date", signature="{signature}""#);
            dated("/").header("authorization", &format!("HMAC {parameters}"))
        };
        check(name, &json!({"algorithms": [name]}), signed(), None).await;
        let rejection = (name == "hmac-sha224").then_some(UNVERIFIABLE);
        check(&format!("{name} by default"), &json!({}), signed(), rejection).await;
        let others: Vec<_> = algorithms.iter().map(|(name, _)| name).filter(|other| **other != name).collect();
        check(&format!("without {name}"), &json!({"algorithms": others}), signed(), Some(UNVERIFIABLE)).await;
    }
}

// docs/kong-compatibility.md, 4.13
#[tokio::test]
async fn signatures_are_read_from_both_headers() {
    let right = authorization("date", &format!("date: {NOON}"));
    let unpadded = right.replace(
        &sign(hmac::HMAC_SHA256, &format!("date: {NOON}")),
        sign(hmac::HMAC_SHA256, &format!("date: {NOON}")).trim_end_matches('='),
    );
    let unknown = right.replace("signer", "nobody");
    let wrong = authorization("date", "date: another");
    const HEADER: &str = "authorization";
    const PROXY_HEADER: &str = "proxy-authorization";
    let one = |name, value: &str| dated("/").header(name, value);
    let cases = [
        ("Authorization", one(HEADER, &right), None),
        ("Proxy-Authorization", one(PROXY_HEADER, &right), None),
        ("no padding", one(HEADER, &unpadded), None),
        ("Proxy-Authorization first", one(HEADER, &wrong).header(PROXY_HEADER, &right), None),
        ("wrong in Proxy-Authorization", one(HEADER, &right).header(PROXY_HEADER, &wrong), Some(MISMATCH)),
        ("another scheme in Proxy-Authorization", one(HEADER, &right).header(PROXY_HEADER, "Basic YTpi"), None),
        ("unreadable in Proxy-Authorization", one(HEADER, &right).header(PROXY_HEADER, "hmac x"), None),
        ("two fields", one(HEADER, &right).header(HEADER, &right), Some(UNVERIFIABLE)),
        (
            "two fields, and Proxy-Authorization",
            one(PROXY_HEADER, &right).header(HEADER, "Bearer x").header(HEADER, &right),
            Some(UNVERIFIABLE),
        ),
        (
            "two fields of Proxy-Authorization",
            dated("/").header(HEADER, &right).header(PROXY_HEADER, "a b").header(PROXY_HEADER, "c d"),
            Some(UNVERIFIABLE),
        ),
        ("no header", dated("/"), Some("Unauthorized")),
        ("another scheme", one(HEADER, "Bearer x"), Some(UNVERIFIABLE)),
        ("no parameters", one(HEADER, "hmac"), Some(UNVERIFIABLE)),
        ("unknown username", one(HEADER, &unknown), Some(UNVERIFIABLE)),
        ("unknown algorithm", one(HEADER, &right.replace("hmac-sha256", "none")), Some(UNVERIFIABLE)),
        ("wrong signature", one(HEADER, &wrong), Some(MISMATCH)),
        ("not base64", one(HEADER, &right.replace("signature=\"", "signature=\"%")), Some(MISMATCH)),
    ];
    for (name, request, rejection) in cases {
        check(name, &json!({}), request, rejection).await;
    }
}

// docs/kong-compatibility.md, 4.13
#[tokio::test]
async fn dates_are_within_the_clock_skew() {
    const EARLY: &str = "Fri, 02 Jan 2026 11:54:59 GMT";
    let skew = json!({"clock_skew": 300});
    let only_path = authorization("@request-target", "@request-target: get /");
    let sign_date = |name: &str, date: &str| authorization(name, &format!("{name}: {date}"));
    let unsigned = |dates: &[(&'static str, &str)]| {
        let request = dates.iter().fold(TestRequest::get("/"), |request, (name, date)| request.header(name, date));
        request.header("authorization", &only_path)
    };
    let cases = [
        ("no date", unsigned(&[]), Some(NO_DATE)),
        ("not a date", unsigned(&[("date", "noon")]), Some(NO_DATE)),
        ("300 s before", unsigned(&[("date", "Fri, 02 Jan 2026 11:55:00 GMT")]), None),
        ("301 s before", unsigned(&[("date", EARLY)]), Some(NO_DATE)),
        ("300 s after", unsigned(&[("date", "Fri, 02 Jan 2026 12:05:00 GMT")]), None),
        ("301 s after", unsigned(&[("date", "Fri, 02 Jan 2026 12:05:01 GMT")]), Some(NO_DATE)),
        ("x-date", unsigned(&[("x-date", NOON)]), None),
        ("either is enough", unsigned(&[("x-date", EARLY), ("date", NOON)]), None),
        ("several fields", unsigned(&[("date", NOON), ("date", EARLY)]), Some(NO_DATE)),
        ("RFC 850", unsigned(&[("date", "Friday, 02-Jan-26 12:00:00 GMT")]), None),
        (
            "an old request with a new date that is not signed",
            TestRequest::get("/")
                .header("date", EARLY)
                .header("x-date", NOON)
                .header("authorization", &sign_date("date", EARLY)),
            Some(NO_DATE),
        ),
        (
            "an old request whose signed x-date is removed",
            TestRequest::get("/").header("date", NOON).header("authorization", &sign_date("x-date", EARLY)),
            Some(NO_DATE),
        ),
        ("the date first", TestRequest::get("/").header("authorization", "hmac x"), Some(NO_DATE)),
    ];
    for (name, request, rejection) in cases {
        check(name, &skew, request, rejection).await;
    }
    let mut later = signed();
    later.now = noon() + Duration::from_secs(61);
    check("a minute", &json!({"clock_skew": 60}), later, Some(NO_DATE)).await;
    for (milliseconds, rejection) in [(0, None), (999, None), (1000, Some(NO_DATE))] {
        let mut later = signed();
        later.now = noon() + Duration::from_millis(milliseconds);
        check("half a second", &json!({"clock_skew": 0.5}), later, rejection).await;
    }
}

// docs/kong-compatibility.md, 4.13
#[tokio::test]
async fn enforced_headers_must_be_signed() {
    let both = authorization("@request-target date", &format!("@request-target: get /\ndate: {NOON}"));
    let request = || dated("/").header("authorization", &both);
    let cases = [
        (json!(["date"]), None),
        (json!(["Date", "@request-target"]), None),
        (json!(["date", "x-tenant"]), Some(UNVERIFIABLE)),
        (json!(["request-line"]), Some(UNVERIFIABLE)),
    ];
    for (enforced, rejection) in cases {
        check(&enforced.to_string(), &json!({"enforce_headers": enforced}), request(), rejection).await;
    }
}

fn sha256_digest(body: &str) -> String {
    STANDARD.encode(digest::digest(&digest::SHA256, body.as_bytes()))
}

// docs/kong-compatibility.md, 4.13
#[tokio::test]
async fn digests_are_those_of_the_body() {
    let config = json!({"validate_request_body": true, "enforce_headers": ["date"]});
    let (right, wrong) = (sha256_digest("body"), sha256_digest("other"));
    let unpadded = STANDARD_NO_PAD.encode(digest::digest(&digest::SHA256, b"body"));
    let with_body = |body: &'static str, digests: &[&str]| {
        let request = TestRequest::new(Request::post("/").body(Bytes::from_static(body.as_bytes())).unwrap());
        let request = request.header("date", NOON);
        let request = digests.iter().fold(request, |request, digest| request.header("digest", digest));
        request.header("authorization", &authorization("date", &format!("date: {NOON}")))
    };
    let cases = [
        ("right", with_body("body", &[&format!("SHA-256={right}")]), None),
        ("lower case, no padding", with_body("body", &[&format!("sha-256={unpadded}")]), None),
        ("several algorithms", with_body("body", &[&format!("MD5=abc, SHA-256={right}")]), None),
        ("wrong", with_body("body", &[&format!("SHA-256={wrong}")]), Some(MISMATCH)),
        ("two", with_body("body", &[&format!("SHA-256={right}"), &format!("SHA-256={right}")]), Some(MISMATCH)),
        ("another algorithm only", with_body("body", &["MD5=abc"]), Some(MISMATCH)),
        ("none", with_body("body", &[]), Some(MISMATCH)),
        ("none without a body", with_body("", &[]), None),
        ("one without a body", with_body("", &[&format!("SHA-256={right}")]), Some(MISMATCH)),
    ];
    for (name, request, rejection) in cases {
        check(name, &config, request, rejection).await;
    }
    let unsigned = with_body("body", &[]);
    check("not validated", &json!({}), unsigned, None).await;
}

// docs/kong-compatibility.md, 4.13
#[tokio::test]
async fn only_bodies_of_signed_requests_are_buffered() {
    let plugin = build(&KIND, &json!({"validate_request_body": true})).unwrap();
    assert_eq!(plugin.body_buffer_limit(), Some(1 << 20));
    assert_eq!(build(&KIND, &json!({})).unwrap().body_buffer_limit(), None);
    for (value, expected) in [("hmac username=\"a\"", true), ("Bearer a", false)] {
        let (head, _) = TestRequest::get("/").header("proxy-authorization", value).request.into_parts();
        assert_eq!(plugin.buffers_body(&head), expected, "{value}");
    }
    // An upgrade, whose data is never a body.
    let announced = signed().header("content-length", "4");
    let outcome = run(&json!({"validate_request_body": true}), announced.header("digest", "SHA-256=a")).await;
    assert_eq!(outcome.message(), Some(MISMATCH));
}

// docs/kong-compatibility.md, 4.13
#[tokio::test]
async fn hidden_signatures_are_not_forwarded() {
    for (is_hidden, value, is_forwarded) in [(true, None, false), (false, None, true), (true, Some("Bearer x"), true)] {
        let config = json!({"hide_credentials": is_hidden, "anonymous": "guest"});
        let request = match value {
            Some(value) => dated("/").header("authorization", value),
            None => signed(),
        };
        let outcome = run(&config, request).await;
        assert_eq!(outcome.reply_status(), None);
        assert_eq!(outcome.upstream_header("authorization").is_some(), is_forwarded, "{config} {value:?}");
    }
}

// docs/kong-compatibility.md, 4.13
#[tokio::test]
async fn rejected_requests_may_be_anonymous() {
    let outcome = run(&json!({"anonymous": "guest"}), dated("/").header("authorization", "hmac x")).await;
    assert_eq!(outcome.upstream_identity(), (Some("guest"), None, true));
    let outcome = run(&json!({"realm": "a \"b\""}), dated("/")).await;
    assert_eq!(outcome.response_header("www-authenticate"), Some(r#"hmac realm="a \"b\"""#));
}

// docs/kong-compatibility.md, 4.13
#[test]
fn invalid_configurations_are_rejected() {
    let cases = [
        (json!({"clock_skew": 0}), "config.clock_skew"),
        (json!({"clock_skew": -1}), "config.clock_skew"),
        (json!({"clock_skew": 1e300}), "config.clock_skew"),
        (json!({"algorithms": []}), "config.algorithms"),
        (json!({"algorithms": ["hmac-md5"]}), "config.algorithms[0]"),
        (json!({"enforce_headers": ["date", "a b"]}), "config.enforce_headers[1]"),
        (json!({"realm": "\n"}), "config.realm"),
        (json!({"anonymous": ""}), "config.anonymous"),
    ];
    for (config, field) in cases {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert_eq!(invalid.iter().map(|invalid| &*invalid.field).collect::<Vec<_>>(), [field], "{config}");
        assert!(!invalid[0].message.is_empty() && !invalid[0].remedy.is_empty(), "{invalid:?}");
    }
}

#[test]
fn what_observers_can_repeat_is_noted() {
    let fields = |config| notes(&KIND, &config).into_iter().map(|note| note.remedy.to_string()).collect::<Vec<_>>();
    let add = |name: &str| format!("add `{name}`, unless this is intended");
    assert_eq!(fields(json!({})), [add("date")]);
    assert_eq!(fields(json!({"validate_request_body": true})), [add("date"), add("digest")]);
    assert!(fields(json!({"validate_request_body": true, "enforce_headers": ["X-Date", "digest"]})).is_empty());
}

#[test]
fn debug_hides_secrets() {
    let directory = consumers();
    let debug = format!("{:?}", directory.signers.get("signer").unwrap());
    assert!(!debug.contains("\"secret\"") && !debug.contains("115"), "{debug}");
}
