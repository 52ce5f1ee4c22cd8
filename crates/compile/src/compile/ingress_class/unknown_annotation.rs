//! Annotations with the prefix of ingress-nginx that its last release does not read: misspelled, removed, or of no
//! release at all.

use crate::api::foreign_annotations;
use crate::api::ingress_nginx::{self, PREFIX};
use crate::schema;

/// The message and the remedy. `None` if ingress-nginx reads the annotation, or if it has another prefix.
pub(super) fn explain(key: &str) -> Option<(&'static str, String)> {
    let name = key.strip_prefix(PREFIX)?;
    if ingress_nginx::has(name) {
        return None;
    }
    if let Some(successor) = ingress_nginx::removed(name) {
        let remedy = match successor {
            Some(successor) => format!("remove it; the last release has {PREFIX}{successor} instead"),
            None => "remove it; nothing has taken its place".to_owned(),
        };
        return Some(("only older releases of ingress-nginx read it, and it has no effect here", remedy));
    }
    let message = "ingress-nginx has no such annotation, so it never had an effect";
    if let Some(remedy) = foreign_annotations::remedy_of_unknown(key) {
        return Some((message, remedy.to_owned()));
    }
    let remedy = match schema::nearest(name, ingress_nginx::NAMES.iter().copied()) {
        Some(nearest) => format!("correct it if {PREFIX}{nearest} is meant, or remove it"),
        None => "remove it".to_owned(),
    };
    Some((message, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_ingress_nginx_does_not_have_are_explained() {
        for (name, message, remedy) in [
            (
                "proxy-body-sise",
                "ingress-nginx has no such",
                "correct it if nginx.ingress.kubernetes.io/proxy-body-size",
            ),
            (
                "whitelist-source-rage",
                "ingress-nginx has no such",
                "correct it if nginx.ingress.kubernetes.io/whitelist-",
            ),
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
