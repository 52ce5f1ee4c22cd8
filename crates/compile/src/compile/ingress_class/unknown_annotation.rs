//! Annotations with the prefix of ingress-nginx that its last release does not read: misspelled, removed, or of no
//! release at all.

use super::dialect::unknown_annotation_remedy;
use crate::api::ingress_nginx::{self, PREFIX};

/// The message and the remedy. `None` if ingress-nginx reads the annotation, or if it has another prefix.
pub(in crate::compile) fn explain(key: &str) -> Option<(&'static str, String)> {
    let name = key.strip_prefix(PREFIX)?;
    if ingress_nginx::has(name) {
        return None;
    }
    if let Some(removed) = ingress_nginx::removed(name) {
        let remedy = match removed.successor {
            Some(successor) => format!("remove it; the last release has {PREFIX}{successor} instead"),
            None => "remove it; nothing has taken its place".to_owned(),
        };
        return Some(("only older releases of ingress-nginx read it, and it has no effect here", remedy));
    }
    let message = "ingress-nginx has no such annotation, so it never had an effect";
    let remedy = remedy_of_frequent(name).map(str::to_owned);
    Some((message, remedy.unwrap_or_else(|| unknown_annotation_remedy(name, ingress_nginx::names()))))
}

/// What to do about an annotation that no release has, though manifests often do. `None` for others.
fn remedy_of_frequent(name: &str) -> Option<&'static str> {
    Some(match name {
        "rate-limit" | "rate-limit-window" | "rate-limit-connections" | "rate-limit-burst-multiplier" => {
            "attach a KongPlugin of plugin rate-limiting if requests are to be limited, and remove it"
        }
        "client-max-body-size" => {
            "attach a KongPlugin of plugin request-size-limiting if bodies are to be limited, and remove it"
        }
        "ssl-protocols" => "remove it; --tls-min-version sets the versions of TLS",
        "websocket-services" => "remove it; WebSockets need no setting",
        "health-check-path" | "health-check-interval" | "health-check-timeout" => {
            "remove it, and write a KongUpstreamPolicy with health checks"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_ingress_nginx_does_not_have_are_explained() {
        for (name, message, remedy) in [
            ("proxy-body-sise", "ingress-nginx has no such", "did you mean proxy-body-size?"),
            ("whitelist-source-rage", "ingress-nginx has no such", "did you mean whitelist-source-range?"),
            ("rate-limit", "ingress-nginx has no such", "attach a KongPlugin of plugin rate-limiting"),
            ("something-quite-different", "ingress-nginx has no such", "remove it"),
            (
                "secure-backends",
                "only older releases",
                "remove it; the last release has nginx.ingress.kubernetes.io/backend-p",
            ),
            ("influxdb-port", "only older releases", "remove it; nothing has taken its place"),
        ] {
            let (found, found_remedy) = explain(&format!("{PREFIX}{name}")).expect(name);
            assert!(found.starts_with(message) && found_remedy.starts_with(remedy), "{name}: {found}; {found_remedy}");
        }
        for key in ["nginx.ingress.kubernetes.io/rewrite-target", "nginx.org/rewrites", "konghq.com/plugins"] {
            assert_eq!(explain(key), None, "{key}");
        }
    }
}
