//! Headers between client and endpoint: hop-by-hop fields and what an untrusted peer reports about the client are
//! removed, and joining the Cookie fields keeps every cookie.

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::hop_count::HopCount;
use crate::plugin_api::header_spoofing;
use crate::proxy::http::fields::headers::{MANAGED_HEADERS, join_cookies, strip_request};

/// Each line is a field, as `name: value`.
pub(crate) fn check(input: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n').take(100) {
        if let Some(colon) = memchr::memchr(b':', line)
            && let Ok(name) = HeaderName::from_bytes(&line[..colon])
            && let Ok(value) = HeaderValue::from_bytes(line[colon + 1..].trim_ascii())
        {
            headers.append(name, value);
        }
    }
    let cookies = |headers: &HeaderMap| -> Vec<Vec<u8>> {
        let fields = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        fields.flat_map(|field| field.split(|byte| *byte == b';')).map(|pair| pair.trim_ascii().to_vec()).collect()
    };
    let before = cookies(&headers);
    join_cookies(&mut headers);
    assert!(headers.get_all(COOKIE).iter().count() <= 1, "one Cookie field");
    assert_eq!(cookies(&headers), before, "the same cookies in the same order");

    for is_trusted in [false, true] {
        check_stripping(&headers, is_trusted);
    }
}

fn check_stripping(headers: &HeaderMap, is_trusted: bool) {
    let mut stripped = headers.clone();
    strip_request(&mut stripped, is_trusted);
    let mut removed = vec!["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "expect"];
    if !is_trusted {
        removed.extend(["x-real-ip", "forwarded", "proxy", "x-forwarded-path", "x-forwarded-prefix"]);
    }
    for name in removed {
        assert!(!stripped.contains_key(name), "{name} is removed");
    }
    assert!(stripped.get(TE).is_none_or(|value| value == "trailers"), "TE can only announce trailers");
    assert!(!stripped.keys().any(HopCount::is_field), "the number of hops is taken out");
    for name in stripped.keys() {
        assert!(!header_spoofing::is_spoofed(name, &MANAGED_HEADERS), "{name} resembles a field that Portico sets");
    }
    for name in [HOST, CONTENT_LENGTH] {
        assert_eq!(stripped.get(&name), headers.get(&name), "{name} cannot be removed");
    }
    // Without hop-by-hop fields, nothing but the listed fields is removed.
    let has_connection_options =
        [CONNECTION, TRANSFER_ENCODING, UPGRADE, EXPECT].iter().any(|name| headers.contains_key(name));
    if !has_connection_options {
        for (name, value) in headers {
            let is_kept = stripped.get_all(name).iter().any(|kept| kept == value);
            let may_be_removed = name == TE
                || HopCount::is_field(name)
                || ["keep-alive", "proxy-connection"].contains(&name.as_str())
                || header_spoofing::is_spoofed(name, &MANAGED_HEADERS)
                || !is_trusted
                    && ["x-real-ip", "forwarded", "proxy", "x-forwarded-path", "x-forwarded-prefix"]
                        .contains(&name.as_str());
            assert!(is_kept || may_be_removed, "{name} is kept");
        }
    }
    let mut twice = stripped.clone();
    strip_request(&mut twice, is_trusted);
    assert_eq!(twice, stripped, "stripping twice changes nothing");
}
