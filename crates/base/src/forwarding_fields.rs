//! The fields in which an endpoint gets what Portico knows of a request and of its client: `X-Forwarded-*`, the id of
//! the request, and `Via`.
//!
//! Those of most requests are not a part of the header map, because nothing reads or changes them: they are written
//! when the request is sent, or before something reads or changes the header.

use bytes::{BufMut, BytesMut};
use http::header::{HOST, VIA};
use http::{HeaderMap, HeaderName, HeaderValue};

/// What the fields are made of, each of which the endpoint gets exactly once. Together with the field Host, which must
/// be the one that was received until they are written: its value is that of `X-Forwarded-Host`, too.
///
/// Small, because the futures of requests contain it.
#[derive(Clone, Copy, Debug)]
pub struct ForwardingFields<'f> {
    /// The address of the client.
    pub client: &'f HeaderValue,
    /// Whether the client uses HTTPS.
    pub is_https: bool,
    /// The port of the listener, as clients see it.
    pub port: u16,
    pub request_id: &'f HeaderValue,
    pub via: &'f HeaderValue,
}

impl ForwardingFields<'_> {
    /// How many fields there are.
    pub const COUNT: usize = 6;

    /// Whether this is the name of one of the fields.
    #[inline]
    pub fn is_field(name: &HeaderName) -> bool {
        let text = name.as_str().as_bytes();
        // For speed: most names have another length or begin with another letter.
        matches!((text.len(), text.first()), (12 | 15..=17, Some(b'x')) | (3, Some(b'v'))) && NAMES.contains(name)
    }

    /// Calls `write` with the names and the values, in the order in which they are written. `host` is the value of
    /// Host.
    pub fn each(self, host: &[u8], mut write: impl FnMut(&HeaderName, &[u8])) {
        write(&X_FORWARDED_FOR, self.client.as_bytes());
        write(&X_FORWARDED_PROTO, self.scheme().as_bytes());
        write(&X_FORWARDED_HOST, host);
        write(&X_FORWARDED_PORT, itoa::Buffer::new().format(self.port).as_bytes());
        write(&X_REQUEST_ID, self.request_id.as_bytes());
        write(&VIA, self.via.as_bytes());
    }

    /// Sets the fields in a header, which has Host. `port` is the text of [`Self::port`].
    pub fn set(self, port: HeaderValue, headers: &mut HeaderMap) {
        let host = headers.get(HOST).cloned();
        // Reserves once instead of growing twice.
        headers.reserve(Self::COUNT);
        headers.insert(X_FORWARDED_FOR, self.client.clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(self.scheme()));
        headers.insert(X_FORWARDED_HOST, host.unwrap_or(HeaderValue::from_static("")));
        headers.insert(X_FORWARDED_PORT, port);
        headers.insert(X_REQUEST_ID, self.request_id.clone());
        headers.insert(VIA, self.via.clone());
    }

    /// Appends the fields as lines of an HTTP/1 header, with their ends. `host` is the value of Host.
    pub fn write(self, host: &[u8], out: &mut BytesMut) {
        out.put_slice(b"x-forwarded-for: ");
        out.put_slice(self.client.as_bytes());
        let proto: &[u8] = if self.is_https {
            b"\r\nx-forwarded-proto: https\r\nx-forwarded-host: "
        } else {
            b"\r\nx-forwarded-proto: http\r\nx-forwarded-host: "
        };
        out.put_slice(proto);
        out.put_slice(host);
        out.put_slice(b"\r\nx-forwarded-port: ");
        out.put_slice(itoa::Buffer::new().format(self.port).as_bytes());
        out.put_slice(b"\r\nx-request-id: ");
        out.put_slice(self.request_id.as_bytes());
        out.put_slice(b"\r\nvia: ");
        out.put_slice(self.via.as_bytes());
        out.put_slice(b"\r\n");
    }

    /// How many bytes [`Self::write`] appends at most, without the host.
    pub fn max_length(self) -> usize {
        MAX_NAMES_LENGTH + self.client.len() + self.request_id.len() + self.via.len()
    }

    fn scheme(self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }
}

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

static NAMES: [HeaderName; ForwardingFields::COUNT] =
    [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, X_FORWARDED_PORT, X_REQUEST_ID, VIA];
/// The bytes of all lines without most of their values.
const MAX_NAMES_LENGTH: usize = "x-forwarded-for: \r\nx-forwarded-proto: https\r\nx-forwarded-host: \r\n\
    x-forwarded-port: 65535\r\nx-request-id: \r\nvia: \r\n"
    .len();

#[cfg(test)]
mod tests {
    use super::*;

    static VALUES: [HeaderValue; 3] =
        [HeaderValue::from_static("10.0.0.1"), HeaderValue::from_static("id"), HeaderValue::from_static("1.1 portico")];

    fn fields(port: u16) -> ForwardingFields<'static> {
        let [client, request_id, via] = &VALUES;
        ForwardingFields { client, is_https: port != 80, port, request_id, via }
    }

    #[test]
    fn lines_and_fields_of_the_header_are_the_same() {
        let host = HeaderValue::from_static("a.example:8080");
        for (port, scheme) in [(80, "http"), (65535, "https")] {
            let expected = format!(
                "x-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: {scheme}\r\nx-forwarded-host: a.example:8080\r\n\
                 x-forwarded-port: {port}\r\nx-request-id: id\r\nvia: 1.1 portico\r\n"
            );
            let mut written = BytesMut::new();
            fields(port).write(host.as_bytes(), &mut written);
            assert_eq!(String::from_utf8_lossy(&written), expected);
            assert!(written.len() <= fields(port).max_length() + host.len());
            let mut lines = String::new();
            fields(port).each(host.as_bytes(), |name, value| {
                lines += &format!("{name}: {}\r\n", String::from_utf8_lossy(value));
            });
            assert_eq!(lines, expected);
            let mut headers = HeaderMap::from_iter([(HOST, host.clone())]);
            fields(port).set(HeaderValue::from(port), &mut headers);
            let lines = headers.iter().skip(1).map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
            assert_eq!(lines.collect::<String>(), expected);
        }
    }

    #[test]
    fn every_name_is_recognized() {
        for name in &NAMES {
            assert!(ForwardingFields::is_field(name), "{name}");
        }
        for name in ["vib", "vary", "x", "x-forwarded-fox", "x_forwarded_for", "x-forwarded-path", "y-request-id"] {
            assert!(!ForwardingFields::is_field(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn they_take_little_memory() {
        assert!(size_of::<Option<ForwardingFields<'_>>>() <= 32);
    }
}
