//! How we name ourselves to clients and endpoints: `Via`, `Server`, and whether `X-Kong-…` is written at all.

use http::{HeaderValue, Version};

/// When `Via`, `Server` and `X-Kong-…` are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KongHeaders {
    /// Under rules of Kong's, and where no route of an Ingress fits.
    #[default]
    Auto,
    /// Under all rules.
    On,
    Off,
}

/// What stands in `Via` and `Server`: `portico/0.1.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product(HeaderValue);

impl Product {
    /// None if it cannot stand there: it is one word without commas, brackets and quotes.
    pub fn new(text: &str) -> Option<Self> {
        let is_part = |byte: u8| byte.is_ascii_graphic() && !b",;()\"\\".contains(&byte);
        let good = !text.is_empty() && text.bytes().all(is_part);
        good.then(|| HeaderValue::from_str(text).ok()).flatten().map(Product)
    }
}

impl Default for Product {
    fn default() -> Self {
        Product(HeaderValue::from_static(concat!("portico/", env!("CARGO_PKG_VERSION"))))
    }
}

/// Both, with everything written out once.
#[derive(Debug)]
pub(crate) struct Naming {
    pub(crate) when: KongHeaders,
    pub(crate) server: HeaderValue,
    /// What came in HTTP/1.1; nearly everything does.
    one_one: HeaderValue,
    one_zero: HeaderValue,
    two: HeaderValue,
}

impl Naming {
    pub(crate) fn new(when: KongHeaders, Product(server): Product) -> Self {
        let via = |version: &str| {
            let text = [version.as_bytes(), b" ", server.as_bytes()].concat();
            HeaderValue::from_bytes(&text).expect("a version and a product are a header value")
        };
        Naming { when, one_one: via("1.1"), one_zero: via("1.0"), two: via("2"), server }
    }

    /// What `Via` says of a message that came in this version.
    pub(crate) fn via(&self, version: Version) -> &HeaderValue {
        match version {
            Version::HTTP_2 => &self.two,
            Version::HTTP_10 => &self.one_zero,
            _ => &self.one_one,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products() {
        for (text, good) in
            [("portico/0.1.0", true), ("kong/3.9.1", true), ("kong", true), ("", false), ("a b", false), ("a,b", false)]
        {
            assert_eq!(Product::new(text).is_some(), good, "{text}");
        }
        let naming = Naming::new(KongHeaders::Auto, Product::new("kong/3.9.1").unwrap());
        assert_eq!(naming.via(Version::HTTP_2), "2 kong/3.9.1");
        assert_eq!(naming.via(Version::HTTP_10), "1.0 kong/3.9.1");
        assert_eq!(naming.via(Version::HTTP_11), "1.1 kong/3.9.1");
    }
}
