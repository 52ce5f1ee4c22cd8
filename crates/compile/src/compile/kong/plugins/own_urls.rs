//! Warnings about URLs of plugins to which their own routes must respond, such as the redirect URI of a login: whether
//! any route with the plugin serves them, and whether its listeners know of HTTPS.

use http::{HeaderMap, Method};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::{OwnUrl, Scheme};
use crate::snapshot::router::RoutingRequest;
use crate::snapshot::{HttpBind, Snapshot};

/// `has_trusted_peers`: whether peers may report that clients use HTTPS.
pub(super) fn warnings(
    snapshot: &Snapshot,
    urls: &[OwnUrl],
    has_trusted_peers: bool,
) -> impl Iterator<Item = Diagnostic> {
    urls.iter().filter_map(move |url| {
        let serving: Vec<&HttpBind> = snapshot.http_binds().filter(|bind| serves(bind, url)).collect();
        if serving.is_empty() {
            let message = format!("no route with this plugin serves {}, so {}", url.url, url.otherwise);
            let remedy = "attach the plugin to a route of this host and path, or use the URL of one that has it";
            return Some(Diagnostic::in_config(url.field, message, remedy).into_warning());
        }
        let is_plain = serving.iter().all(|bind| bind.tls.is_none());
        (url.scheme == Scheme::Https && is_plain && !has_trusted_peers).then(|| {
            let message = "is an https URL, but the routes with this plugin are on listeners without TLS, and no proxy \
                           in front is trusted: cookies are sent without Secure, and pages are opened at http URLs";
            let remedy = "list the addresses of the proxy that terminates TLS in --trusted-ips, and let it send \
                          X-Forwarded-Proto; or terminate TLS here";
            Diagnostic::in_config(url.field, message, remedy).into_warning()
        })
    })
}

/// Whether the plugin, or another one with the same URL, runs for a request for it.
fn serves(bind: &HttpBind, url: &OwnUrl) -> bool {
    let Some(listener) = bind.listener(&url.host) else { return false };
    let headers = HeaderMap::new();
    let is_tls = bind.tls.is_some();
    let request = RoutingRequest {
        authority: url.authority.as_bytes(),
        listener_port: listener.port,
        scheme: if is_tls { Scheme::Https } else { Scheme::Http },
        server_name: is_tls.then_some(&*url.host),
        ..RoutingRequest::plaintext(&url.path, None, &Method::GET, &headers)
    };
    let matched = listener.route(&url.host, &request);
    matched.is_ok_and(|matched| matched.rule.plugins.as_ref().is_some_and(|chain| chain.responds_to(url)))
}
