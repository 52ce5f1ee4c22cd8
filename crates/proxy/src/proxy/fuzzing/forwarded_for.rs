//! `X-Forwarded-For` of a trusted peer: nothing that the client itself has written before the first trusted proxy
//! changes which address Portico takes for the client's.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use crate::forwarding_fields::X_FORWARDED_FOR;
use crate::plugin_api::Scheme;
use crate::proxy::http::fields::headers::X_REAL_IP;
use crate::proxy::http::steps::request_client::RequestClient;

/// Each line is a field `X-Forwarded-For`; a line that begins with `=` is `X-Real-IP`.
pub(crate) fn check(input: &[u8]) {
    let trusted: [IpNet; 2] = [
        IpNet::new(IpAddr::from([10_u8, 0, 0, 0]), 8).expect("the length is valid"),
        IpNet::new(IpAddr::from([0x2001_u16, 0xdb8, 0, 0, 0, 0, 0, 0]), 32).expect("the length is valid"),
    ];
    let peer = IpAddr::from([10, 0, 0, 1]);
    let (mut lists, mut real_ip) = (Vec::new(), None);
    for line in input.split(|byte| *byte == b'\n').take(20) {
        let (line, is_real_ip) = line.strip_prefix(b"=").map_or((line, false), |line| (line, true));
        let Ok(value) = HeaderValue::from_bytes(line) else { return };
        if is_real_ip {
            real_ip = Some(value);
        } else {
            lists.push(value);
        }
    }
    let address = |lists: &[HeaderValue]| {
        let mut headers = HeaderMap::new();
        for list in lists {
            headers.append(X_FORWARDED_FOR, list.clone());
        }
        if let Some(real_ip) = &real_ip {
            headers.insert(X_REAL_IP, real_ip.clone());
        }
        RequestClient::reported(&headers, &trusted, peer, Scheme::Http).address
    };
    let client = address(&lists);
    assert_eq!(client, client.to_canonical(), "an IPv4 address is never written as an IPv6 address");

    let value = |bytes: &[u8]| HeaderValue::from_bytes(bytes).expect("the bytes are those of header values");
    let joined: Vec<&[u8]> = lists.iter().map(HeaderValue::as_bytes).collect();
    let joined = joined.join(&b","[..]);
    assert_eq!(address(&[value(&joined)]), client, "one field is the same as several");
    let entries: Vec<HeaderValue> = joined.split(|byte| *byte == b',').map(value).collect();
    assert_eq!(address(&entries), client, "a field for each entry is the same as one for all");
    assert_eq!(address(&[value(&[&joined[..], b" , ,"].concat())]), client, "empty entries have no meaning");
    if trusted.iter().any(|network| network.contains(&client)) {
        return;
    }
    // The client is an entry, or the address in `X-Real-IP`.
    if real_ip.is_none() {
        let behind_another = value(&[&joined[..], b", 10.9.9.9"].concat());
        assert_eq!(address(&[behind_another]), client, "another trusted proxy changes nothing");
        for claimed in ["6.6.6.6", "10.6.6.6", "nonsense", "\"", "[::1]:80", "unknown"] {
            let spoofed = value(&[claimed.as_bytes(), b",", &joined].concat());
            assert_eq!(address(&[spoofed]), client, "the client cannot claim to be {claimed}");
        }
    }
    for written in [format!("{client}"), format!("\"{client}\""), SocketAddr::new(client, 80).to_string()] {
        let list = value(format!("{written}, 10.0.0.1").as_bytes());
        assert_eq!(address(&[list]), client, "{written} is read as written");
    }
}
