//! Headers that an endpoint could take for ours: CGI and its heirs (WSGI, Rack, PHP) know headers by the names of variables,
//! so `X_Consumer_ID` and `X-Consumer-ID` are one to them, and what we write under the one name a client could under the
//! other.

use http::{HeaderMap, HeaderName};
use memchr::memchr;

/// Removes what reads like one of these, all of which begin with `x-`.
pub fn remove(headers: &mut HeaderMap, ours: &[HeaderName]) {
    while let Some(name) = headers.keys().find(|name| is_one(name, ours)).cloned() {
        headers.remove(name);
    }
}

/// Whether a name is one of those that we write ourselves, but for underscores where they have hyphens.
pub fn is_one(name: &HeaderName, ours: &[HeaderName]) -> bool {
    let name = name.as_str().as_bytes();
    let is_alike = |ours: &HeaderName| {
        let ours = ours.as_str().as_bytes();
        ours.len() == name.len()
            && name.iter().zip(ours).all(|(given, our)| given == our || (*given, *our) == (b'_', b'-'))
    };
    // Most names are ruled out by their first byte, and nearly all others by having no underscore.
    name.first() == Some(&b'x') && memchr(b'_', name).is_some() && ours.iter().any(is_alike)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_what_differs_in_underscores_goes() {
        static OURS: [HeaderName; 2] = [HeaderName::from_static("x-real-ip"), HeaderName::from_static("x-id")];
        let names = ["x_real_ip", "x-real_ip", "x_real-ip", "x-real-ip", "x_real_ipx", "x_id", "y_id", "x_other"];
        let mut headers: HeaderMap =
            names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).collect();
        remove(&mut headers, &OURS);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-real-ip", "x_other", "x_real_ipx", "y_id"]);
    }
}
