//! Kong behavior of a rule: path and Host sent upstream, allowed protocols, and HTTPS redirect.

use http::{HeaderValue, StatusCode};

use super::UriTemplate;
use crate::plugin_api::chain::Protocols;

/// The settings of a rule in addition to its filters, if the rule comes from an Ingress, or from a Gateway API route
/// with Kong annotations or plugins.
///
/// A rule with these settings is a Kong rule: forwarding headers, `Via`, `X-Kong-*` and error messages are those of
/// Kong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KongBehavior {
    /// Whether the matched part of the path is removed before the request is forwarded.
    pub strip_path: bool,
    /// The path of the service, prepended to the rest of the request's path. Starts with a slash; `/` adds nothing.
    pub path: Box<str>,
    /// Replaces the path that results from `strip_path` and `path`.
    pub rewrite: Option<UriTemplate>,
    pub host: UpstreamHost,
    /// The protocols that requests may use. Stream protocols have no effect here.
    pub protocols: Protocols,
    /// The response to a plain-text request if `protocols` has `https` but not `http`.
    pub https_redirect: HttpsRedirect,
}

/// The Host header sent to the endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UpstreamHost {
    /// The Host header of the client (`preserve-host: "true"`).
    #[default]
    Preserved,
    /// The value of `host-header`, or else the name of the service (`preserve-host: "false"`). The port follows the
    /// name unless it is the default of the protocol.
    Fixed(HeaderValue),
}

/// The response to a plain-text request that has to use HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpsRedirect {
    /// 426 (Upgrade Required) has no `Location`; 301, 302, 307 and 308 redirect to the same host and path over HTTPS.
    pub status: StatusCode,
    /// The HTTPS port that clients see.
    pub port: u16,
}

impl Default for KongBehavior {
    /// The defaults of Kong's ingress controller for a route without annotations.
    fn default() -> Self {
        KongBehavior {
            strip_path: false,
            path: "/".into(),
            rewrite: None,
            host: UpstreamHost::Preserved,
            protocols: Protocols::ALL,
            https_redirect: HttpsRedirect::default(),
        }
    }
}

impl Default for HttpsRedirect {
    fn default() -> Self {
        HttpsRedirect { status: StatusCode::UPGRADE_REQUIRED, port: 443 }
    }
}

impl KongBehavior {
    /// Text for dumps, one line for each setting that differs from the default.
    pub(in crate::snapshot) fn describe(&self) -> Vec<String> {
        let defaults = KongBehavior::default();
        let KongBehavior { strip_path, path, rewrite, host, protocols, https_redirect } = self;
        let mut lines = Vec::new();
        if *strip_path {
            lines.push("strip path".to_owned());
        }
        if *path != defaults.path {
            lines.push(format!("path {path}"));
        }
        if let Some(rewrite) = rewrite {
            lines.push(format!("rewrite {rewrite}"));
        }
        if let UpstreamHost::Fixed(host) = host {
            lines.push(format!("host {}", String::from_utf8_lossy(host.as_bytes())));
        }
        if *protocols != defaults.protocols {
            let Protocols { http, https, grpc, grpcs } = *protocols;
            let all = [("http", http), ("https", https), ("grpc", grpc), ("grpcs", grpcs)];
            let names: Vec<&str> = all.iter().filter(|(_, is_allowed)| *is_allowed).map(|(name, _)| *name).collect();
            lines.push(format!("protocols {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") }));
        }
        // The redirect applies only to plain-text requests that `protocols` excludes.
        if protocols.https && !protocols.http {
            lines.push(format!("https redirect {} to port {}", https_redirect.status.as_u16(), https_redirect.port));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // kong-compat §2.2
    // kong-compat §7.6
    #[test]
    fn defaults_are_those_without_annotations() {
        let KongBehavior { strip_path, path, host, protocols, https_redirect, .. } = KongBehavior::default();
        assert!(!strip_path && host == UpstreamHost::Preserved && protocols == Protocols::ALL);
        assert_eq!((&*path, https_redirect.status.as_u16(), https_redirect.port), ("/", 426, 443));
        assert_eq!(KongBehavior::default().describe(), [""; 0]);
    }
}
