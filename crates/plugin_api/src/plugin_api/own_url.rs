//! A URL in the configuration of a plugin that leads back to a route with this plugin.

use super::path_encoding::path_in_requests;
use super::remote_request::RemoteUrl;
use super::scheme::Scheme;

/// A URL to which a plugin must respond itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnUrl {
    /// The field, below `config`.
    pub field: &'static str,
    /// What happens if no route has the plugin: a clause.
    pub otherwise: &'static str,
    pub url: Box<str>,
    pub scheme: Scheme,
    /// The host in lower case, without port.
    pub host: Box<str>,
    /// As in the field Host of a request.
    pub authority: Box<str>,
    /// As the path is matched.
    pub path: Box<str>,
}

impl OwnUrl {
    /// `url`: the text that was parsed.
    pub fn new(field: &'static str, otherwise: &'static str, url: &str, parsed: &RemoteUrl) -> Self {
        let host = match parsed.host.contains(':') {
            true => format!("[{}]", parsed.host),
            false => parsed.host.trim_end_matches('.').to_ascii_lowercase(),
        };
        OwnUrl {
            field,
            otherwise,
            url: url.into(),
            scheme: if parsed.is_secure { Scheme::Https } else { Scheme::Http },
            host: host.into(),
            authority: parsed.authority.to_str().unwrap_or_default().into(),
            path: path_in_requests(parsed.target.path()).into(),
        }
    }
}
