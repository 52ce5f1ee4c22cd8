//! How a request of a Kong-class rule goes on: what its path and Host become, and what it must have been spoken in.

use http::{HeaderValue, StatusCode};

use super::UriTemplate;
use crate::plugin::chain::Protocols;

/// What a rule of an Ingress, or of a Gateway API route with annotations or plugins of Kong, has besides its filters.
///
/// Its presence makes the rule one of Kong's: it decides over the forwarding headers, `Via` and `X-Kong-*`, and over the
/// words of errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manner {
    /// Whether what the route matched is taken away before the request goes on.
    pub strip_path: bool,
    /// The path of the service, in front of what is left of the request's. Begins with a slash; `/` adds nothing.
    pub path: Box<str>,
    /// What the endpoint is asked for instead of all that.
    pub rewrite: Option<UriTemplate>,
    pub host: ToHost,
    /// What requests may be spoken in. Names of streams mean nothing here.
    pub protocols: Protocols,
    /// What a request in plain text gets if `protocols` has only `https`.
    pub https_redirect: HttpsRedirect,
    /// False: the body of a request goes on as it comes. It always does, so that this says only what was asked for; a plugin
    /// that has to see all of a body waits for it all the same.
    pub request_buffering: bool,
    /// False: the body of an answer goes on as it comes. It always does.
    pub response_buffering: bool,
}

/// The Host that the endpoint gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToHost {
    /// `preserve-host: "true"`: the client's.
    #[default]
    Preserved,
    /// `preserve-host: "false"`: that of `host-header`, else the name of the service, with its port unless that is the
    /// protocol's own.
    Named(HeaderValue),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpsRedirect {
    /// 426 asks the client to upgrade; 301, 302, 307 and 308 send it to the same host and path.
    pub status: StatusCode,
    /// The port of `https` as clients see it.
    pub port: u16,
}

impl Default for Manner {
    /// What Kong's ingress controller says of a route without annotations.
    fn default() -> Self {
        Manner {
            strip_path: false,
            path: "/".into(),
            rewrite: None,
            host: ToHost::Preserved,
            protocols: Protocols::ALL,
            https_redirect: HttpsRedirect::default(),
            request_buffering: true,
            response_buffering: true,
        }
    }
}

impl Default for HttpsRedirect {
    fn default() -> Self {
        HttpsRedirect { status: StatusCode::UPGRADE_REQUIRED, port: 443 }
    }
}

/// A line for each thing that is not as without annotations.
impl Manner {
    pub(in crate::snapshot) fn lines(&self) -> Vec<String> {
        let usual = Manner::default();
        let Manner { strip_path, path, rewrite, host, protocols, https_redirect, .. } = self;
        let Manner { request_buffering, response_buffering, .. } = self;
        let mut lines = Vec::new();
        if *strip_path {
            lines.push("strip path".to_owned());
        }
        if *path != usual.path {
            lines.push(format!("path {path}"));
        }
        if let Some(rewrite) = rewrite {
            lines.push(format!("rewrite {rewrite}"));
        }
        if let ToHost::Named(host) = host {
            lines.push(format!("host {}", String::from_utf8_lossy(host.as_bytes())));
        }
        if *protocols != usual.protocols {
            let Protocols { http, https, grpc, grpcs } = *protocols;
            let all = [("http", http), ("https", https), ("grpc", grpc), ("grpcs", grpcs)];
            let names: Vec<&str> = all.iter().filter(|(_, is_in)| *is_in).map(|(name, _)| *name).collect();
            lines.push(format!("protocols {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") }));
        }
        // Where plain text is taken nobody is sent anywhere.
        if protocols.https && !protocols.http {
            lines.push(format!("https redirect {} to port {}", https_redirect.status.as_u16(), https_redirect.port));
        }
        if !*request_buffering {
            lines.push("request buffering off".to_owned());
        }
        if !*response_buffering {
            lines.push("response buffering off".to_owned());
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
    fn without_annotations() {
        let Manner { strip_path, path, host, protocols, https_redirect, .. } = Manner::default();
        assert!(!strip_path && host == ToHost::Preserved && protocols == Protocols::ALL);
        assert_eq!((&*path, https_redirect.status.as_u16(), https_redirect.port), ("/", 426, 443));
        assert_eq!(Manner::default().lines(), [""; 0]);
    }
}
