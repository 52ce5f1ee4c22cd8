//! Which of the headers about the proxy itself are written, with their names and values.

use http::{HeaderValue, Version};

use crate::plugin_api::http_version::{HttpVersion, version_number};
use crate::snapshot::rule_options::ProductHeaderNames;

/// When the product headers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProductHeaderMode {
    /// For requests whose rule has the option, and for requests without a rule if the listener has it.
    #[default]
    ByRule,
    /// For all requests, with these names.
    Always(&'static ProductHeaderNames),
    Never,
}

/// The product token in `Via` and `Server`, for example `portico/0.1.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductToken(HeaderValue);

impl ProductToken {
    /// None if the text is not a single printable word without commas, semicolons, parentheses, quotes and backslashes.
    pub fn new(text: &str) -> Option<Self> {
        let is_token_byte = |byte: u8| byte.is_ascii_graphic() && !b",;()\"\\".contains(&byte);
        let is_valid = !text.is_empty() && text.bytes().all(is_token_byte);
        is_valid.then(|| HeaderValue::from_str(text).ok()).flatten().map(ProductToken)
    }
}

impl Default for ProductToken {
    fn default() -> Self {
        ProductToken(HeaderValue::from_static(concat!("portico/", env!("CARGO_PKG_VERSION"))))
    }
}

/// The mode and the product token, with all header values built in advance.
#[derive(Debug)]
pub(in crate::proxy) struct ProductHeaders {
    mode: ProductHeaderMode,
    pub(in crate::proxy) server: HeaderValue,
    /// `Via` of messages received in each version.
    via_http10: HeaderValue,
    via_http11: HeaderValue,
    via_http2: HeaderValue,
    via_http3: HeaderValue,
}

impl ProductHeaders {
    pub(in crate::proxy) fn new(mode: ProductHeaderMode, ProductToken(server): ProductToken) -> Self {
        let via = |version: Version| {
            let text = [version_number(version).as_bytes(), b" ", server.as_bytes()].concat();
            HeaderValue::from_bytes(&text).expect("a version and a product token form a valid header value")
        };
        ProductHeaders {
            mode,
            via_http10: via(Version::HTTP_10),
            via_http11: via(Version::HTTP_11),
            via_http2: via(Version::HTTP_2),
            via_http3: via(Version::HTTP_3),
            server,
        }
    }

    /// The names of the headers to write; `None` to write none. `option` is that of the rule or listener.
    pub(in crate::proxy) fn names(
        &self,
        option: Option<&'static ProductHeaderNames>,
    ) -> Option<&'static ProductHeaderNames> {
        match self.mode {
            ProductHeaderMode::ByRule => option,
            ProductHeaderMode::Always(names) => Some(names),
            ProductHeaderMode::Never => None,
        }
    }

    /// The value of `Via` for a request received in this version. It has the product token if the other product headers
    /// are written.
    pub(in crate::proxy) fn via_of_request(&self, has_product_headers: bool, version: Version) -> &HeaderValue {
        if has_product_headers { self.via(version) } else { plain_via(version) }
    }

    /// The value of `Via` for a message received in this version.
    pub(in crate::proxy) fn via(&self, version: Version) -> &HeaderValue {
        match HttpVersion::from(version) {
            HttpVersion::Http09 | HttpVersion::Http10 => &self.via_http10,
            HttpVersion::Http11 => &self.via_http11,
            HttpVersion::Http2 => &self.via_http2,
            HttpVersion::Http3 => &self.via_http3,
        }
    }
}

/// `Via` without the product token, for a message received in this version.
fn plain_via(version: Version) -> &'static HeaderValue {
    static HTTP11: HeaderValue = HeaderValue::from_static("1.1 portico");
    static HTTP10: HeaderValue = HeaderValue::from_static("1.0 portico");
    static HTTP2: HeaderValue = HeaderValue::from_static("2.0 portico");
    static HTTP3: HeaderValue = HeaderValue::from_static("3.0 portico");
    match HttpVersion::from(version) {
        HttpVersion::Http09 | HttpVersion::Http10 => &HTTP10,
        HttpVersion::Http11 => &HTTP11,
        HttpVersion::Http2 => &HTTP2,
        HttpVersion::Http3 => &HTTP3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_tokens_are_validated_and_formatted() {
        for (text, is_valid) in
            [("portico/0.1.0", true), ("kong/3.9.1", true), ("kong", true), ("", false), ("a b", false), ("a,b", false)]
        {
            assert_eq!(ProductToken::new(text).is_some(), is_valid, "{text}");
        }
        let headers = ProductHeaders::new(ProductHeaderMode::ByRule, ProductToken::new("kong/3.9.1").unwrap());
        for (version, expected, plain) in [
            (Version::HTTP_10, "1.0 kong/3.9.1", "1.0 portico"),
            (Version::HTTP_11, "1.1 kong/3.9.1", "1.1 portico"),
            (Version::HTTP_2, "2 kong/3.9.1", "2.0 portico"),
            (Version::HTTP_3, "3 kong/3.9.1", "3.0 portico"),
        ] {
            assert_eq!(
                (headers.via(version), plain_via(version)),
                (&expected.parse().unwrap(), &plain.parse().unwrap())
            );
        }
    }
}
