//! What a FastCGI server gets of the requests of a rule: the parameters that nginx sends by default, and those that are
//! configured in their place or in addition.

mod param_text;

use std::fmt;
use std::sync::Arc;

use self::param_text::ParamValues;
pub use self::param_text::{FastCgiRequest, ParamText};
use super::location_path::decoded_path;
use super::location_steps::LocationNames;
use crate::fast_cgi::FastCgiParams;

/// What the servers of a rule get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FastCgiSettings {
    pub script: Arc<FastCgiScript>,
    pub names: LocationNames,
}

/// The parameters of requests, and the file that paths with a slash at their end stand for.
#[derive(Debug, PartialEq, Eq)]
pub struct FastCgiScript {
    index: Box<str>,
    /// Each with a name of its own.
    params: Box<[(Box<str>, ParamText)]>,
    /// The names of parameters that are configured, and would follow from the fields of a request otherwise.
    of_fields: Arc<[Box<str>]>,
}

impl FastCgiScript {
    /// `index`: what follows a slash at the end of a path. `configured`: parameters by their names.
    pub fn new(index: Option<&str>, configured: Vec<(String, ParamText)>) -> Self {
        let is_configured = |name: &str| configured.iter().any(|(known, _)| known == name);
        let defaults = DEFAULTS.iter().filter(|(name, _)| !is_configured(name)).map(|(name, text)| {
            let text = ParamText::parse(text).expect("the variables of the defaults are supported");
            (Box::from(*name), text)
        });
        let mut params: Vec<(Box<str>, ParamText)> = defaults.collect();
        let of_fields = configured.iter().map(|(name, _)| name);
        let of_fields = of_fields.filter(|name| name.starts_with("HTTP_") || FROM_FIELDS.contains(&name.as_str()));
        let of_fields = of_fields.map(|name| Box::from(name.as_str())).collect();
        params.extend(configured.into_iter().map(|(name, text)| (name.into(), text)));
        FastCgiScript { index: index.unwrap_or_default().into(), params: params.into(), of_fields }
    }

    /// The parameters of a request, except those that follow from its fields. `None` if they are too long together, or
    /// if the path leads above the root.
    pub fn params(&self, request: &FastCgiRequest<'_>) -> Option<FastCgiParams> {
        let path = decoded_path(request.target.path())?;
        let index = if path.ends_with('/') { &*self.index } else { "" };
        let values = ParamValues { request, path: &path, index };
        let mut params = FastCgiParams::new(Arc::clone(&self.of_fields));
        let mut value = Vec::new();
        let mut left = MAX_BYTES;
        for (name, text) in &self.params {
            value.clear();
            text.expand(&values, &mut value, left)?;
            left = left.checked_sub(name.len() + value.len())?;
            // As nginx does, so that scripts may ask whether it is set.
            if !(value.is_empty() && **name == *HTTPS) {
                params.push(name.as_bytes(), &value);
            }
        }
        Some(params)
    }
}

/// For dumps.
impl fmt::Display for FastCgiSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FastCgiScript { index, params, .. } = &*self.script;
        write!(formatter, "FastCGI with {} parameters", params.len())?;
        if index.is_empty() { Ok(()) } else { write!(formatter, " and index {index}") }
    }
}

const HTTPS: &str = "HTTPS";
/// The parameters that nginx sends in addition to those of fields.
const DEFAULTS: &[(&str, &str)] = &[
    ("QUERY_STRING", "$query_string"),
    ("REQUEST_METHOD", "$request_method"),
    ("SCRIPT_NAME", "$fastcgi_script_name"),
    ("REQUEST_URI", "$request_uri"),
    ("DOCUMENT_URI", "$document_uri"),
    ("DOCUMENT_ROOT", "$document_root"),
    ("SERVER_PROTOCOL", "$server_protocol"),
    ("REQUEST_SCHEME", "$scheme"),
    (HTTPS, "$https"),
    ("GATEWAY_INTERFACE", "CGI/1.1"),
    ("SERVER_SOFTWARE", "portico"),
    ("REMOTE_ADDR", "$remote_addr"),
    ("REMOTE_PORT", "$remote_port"),
    ("SERVER_ADDR", "$server_addr"),
    ("SERVER_PORT", "$server_port"),
    ("SERVER_NAME", "$server_name"),
    // PHP may be built so that it refuses requests without it.
    ("REDIRECT_STATUS", "200"),
];
/// The parameters that follow from fields and have other names than these.
const FROM_FIELDS: [&str; 2] = ["CONTENT_LENGTH", "CONTENT_TYPE"];
/// The most bytes of the parameters of a request: some heads are repeated in several of them.
const MAX_BYTES: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};

    use super::*;
    use crate::fast_cgi::write_request;
    use crate::plugin_api::context::ArrivedRequest;
    use crate::plugin_api::{ClientInfo, Scheme};
    use crate::snapshot::location_steps::RequestValues;

    /// The parameters that a server gets of a request for `/old/?x=1` that was rewritten.
    fn sent(script: &FastCgiScript, target: &str, scheme: Scheme) -> Vec<(String, String)> {
        let (method, headers, id) = (Method::GET, HeaderMap::new(), HeaderValue::from_static("id"));
        let names = LocationNames { host: "a.example".into(), service: "web".into(), ..LocationNames::default() };
        let received =
            ArrivedRequest { peer: "10.0.0.9:4711".parse().unwrap(), scheme, host: "a.example:81", port: 81 };
        let client = ClientInfo {
            address: "192.0.2.7".parse().unwrap(),
            scheme: Scheme::Https,
            host: "a.example:81",
            port: 443,
            separate_port: None,
            received,
            is_peer_trusted: true,
            certificate: Default::default(),
        };
        let values = RequestValues {
            headers: &headers,
            method: &method,
            version: Version::HTTP_11,
            raw_target: "/old/?x=1",
            client,
            id: &id,
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
            names: Some(&names),
            certificates: None,
        };
        let target: Uri = target.parse().unwrap();
        let server_address = Some("127.0.0.1".parse().unwrap());
        let Some(params) = script.params(&FastCgiRequest { values, target: &target, server_address }) else {
            return Vec::new();
        };
        let mut request = Request::new(());
        request.extensions_mut().insert(Arc::new(params));
        let mut out = bytes::BytesMut::new();
        write_request(&request, None, &mut out);
        let content = usize::from(u16::from_be_bytes([out[20], out[21]]));
        let mut rest = &out[24..24 + content];
        let mut found = Vec::new();
        while let [name, value, after @ ..] = rest {
            // All lengths of this test have one byte.
            let (pair, next) = after.split_at(usize::from(name + value));
            let (name, value) = pair.split_at(usize::from(*name));
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            found.push((text(name), text(value)));
            rest = next;
        }
        found
    }

    fn value<'p>(params: &'p [(String, String)], name: &str) -> Option<&'p str> {
        let mut found = params.iter().filter(|(known, _)| known == name).map(|(_, value)| &**value);
        let first = found.next();
        assert_eq!(found.next(), None, "{name} twice");
        first
    }

    fn configured(params: &[(&str, &str)]) -> Vec<(String, ParamText)> {
        params.iter().map(|(name, text)| ((*name).to_owned(), ParamText::parse(text).unwrap())).collect()
    }

    #[test]
    fn defaults_are_those_of_nginx() {
        let script = FastCgiScript::new(Some("index.php"), Vec::new());
        let params = sent(&script, "/new/a%20b/?y=2", Scheme::Http);
        for (name, expected) in [
            ("QUERY_STRING", Some("y=2")),
            ("REQUEST_METHOD", Some("GET")),
            ("SCRIPT_NAME", Some("/new/a b/index.php")),
            ("DOCUMENT_URI", Some("/new/a b/")),
            ("REQUEST_URI", Some("/old/?x=1")),
            ("DOCUMENT_ROOT", Some("/usr/local/nginx/html")),
            ("SERVER_PROTOCOL", Some("HTTP/1.1")),
            ("REQUEST_SCHEME", Some("http")),
            ("HTTPS", None),
            ("GATEWAY_INTERFACE", Some("CGI/1.1")),
            ("REMOTE_ADDR", Some("192.0.2.7")),
            ("REMOTE_PORT", Some("4711")),
            ("SERVER_ADDR", Some("127.0.0.1")),
            ("SERVER_PORT", Some("81")),
            ("SERVER_NAME", Some("a.example")),
            ("REDIRECT_STATUS", Some("200")),
            ("CONTENT_LENGTH", Some("")),
            ("SCRIPT_FILENAME", None),
        ] {
            assert_eq!(value(&params, name), expected, "{name}");
        }
        let params = sent(&script, "/a.php", Scheme::Https);
        assert_eq!(value(&params, "SCRIPT_NAME"), Some("/a.php"));
        assert_eq!(value(&params, "HTTPS"), Some("on"));
        let without_index = sent(&FastCgiScript::new(None, Vec::new()), "/a/", Scheme::Http);
        assert_eq!(value(&without_index, "SCRIPT_NAME"), Some("/a/"));
    }

    #[test]
    fn configured_parameters_replace_those_with_their_name() {
        let script = FastCgiScript::new(
            None,
            configured(&[
                ("SCRIPT_FILENAME", "/srv$fastcgi_script_name"),
                ("SERVER_NAME", "own"),
                ("HTTP_PROXY", ""),
                ("CONTENT_TYPE", "a/b"),
                ("X", "${service_name}-$arg_x-$is_args$args-$server_addr-$https"),
            ]),
        );
        let params = sent(&script, "/a.php?y", Scheme::Https);
        for (name, expected) in [
            ("SCRIPT_FILENAME", Some("/srv/a.php")),
            ("SERVER_NAME", Some("own")),
            ("HTTP_PROXY", Some("")),
            ("CONTENT_TYPE", Some("a/b")),
            ("X", Some("web-1-?y-127.0.0.1-on")),
        ] {
            assert_eq!(value(&params, name), expected, "{name}");
        }
    }

    #[test]
    fn parameters_are_limited_together() {
        let long = ParamText::parse(&"a".repeat(MAX_BYTES)).unwrap();
        let script = FastCgiScript::new(None, vec![("X".to_owned(), long)]);
        assert!(sent(&script, "/", Scheme::Http).is_empty());
    }
}
