//! `canary`: sends a part of the requests of a route to another Service or another path.
//!
//! ```yaml
//! plugin: canary
//! config:
//!   percentage: 10
//!   upstream_host: shop-next.default.80.svc
//!   canary_by_header_name: X-Canary
//! ```
//!
//! The part is a fixed `percentage`, or grows from `start` on for `duration` seconds, in `steps`. `hash` says whose
//! requests stay together: a client that gets the new version keeps it while the part grows, in every replica, and on
//! all routes whose plugins hash the same. With `allow` and `deny`, groups decide instead: those of the annotations of
//! the consumer, and those that an authentication plugin reports.
//!
//! `upstream_host` names a Service: `shop-next`, `shop-next.default`, `shop-next.default.svc` or
//! `shop-next.default.80.svc`. It is resolved like a backend of the route: its endpoints, policies and TLS settings
//! apply, and a Service of another namespace needs a ReferenceGrant from KongPlugin. If it cannot be resolved, its
//! requests get 500, and the condition `PluginsResolved` of the route says why. A host outside of the cluster needs a
//! Service of type ExternalName. Filters of the route's backends do not apply to it, nor do plugins that are attached
//! to it. If one of these fails closed and is not attached to the route or its backends, too, or if a backend of the
//! route has an authorization server, requests for the canary get 503.

mod audience;
mod config;
#[cfg(test)]
mod tests;

use http::HeaderName;
use http::uri::PathAndQuery;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::fields::replace_target;
use crate::plugin_api::{AccessOutcome, BackendName, BuildCx, Phases, Plugin, PluginKind, Reply, RequestCx, Scopes};
use audience::Audience;
use config::Config;

pub(crate) struct Canary {
    /// The Service; none if only the path changes.
    backend: Option<[BackendName; 1]>,
    /// The path for the endpoint.
    path: Option<Box<str>>,
    has_fallback: bool,
    /// The header whose value decides before `audience`.
    header: Option<HeaderName>,
    audience: Audience,
}

impl PluginKind for Canary {
    const NAME: &'static str = "canary";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 20;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = false;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Canary;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let mut add = |field: &str, message: &str, remedy: &str| {
            invalid.push(Diagnostic::in_config(field, message, remedy));
        };
        if config.upstream_host.is_none() {
            if config.upstream_uri.is_none() {
                add("upstream_host", "the plugin has no target", "set upstream_host, upstream_uri or both");
            }
            if config.upstream_port.is_some() {
                add("upstream_port", "no upstream_host is set", "set upstream_host to the Service that has the port");
            }
            if config.upstream_fallback {
                let message = "no upstream_host is set, so there is nothing to fall back from";
                add("upstream_fallback", message, "set upstream_host, or remove the field");
            }
        }
        if config.upstream_fallback && config.upstream_uri.is_some() {
            let message = "the backends of the route would get upstream_uri, too, and not the path of the client";
            add("upstream_fallback", message, "remove it, or set the path with a filter of a route of its own");
        }
        if config.upstream_port == Some(0) {
            add("upstream_port", "0 is not the port of a Service", "set a number from 1 to 65535");
        }
        let is_path = |path: &str| {
            path.starts_with('/')
                && PathAndQuery::try_from(path)
                    .is_ok_and(|target| target.query().is_none() && target.path().len() == path.len())
        };
        if config.upstream_uri.as_deref().is_some_and(|path| !is_path(path)) {
            let remedy = "write a path that starts with a slash, without query, and encode other characters";
            add("upstream_uri", "is not a path", remedy);
        }
        let header = config.canary_by_header_name.as_deref().and_then(|name| {
            let parsed = name.parse::<HeaderName>().ok();
            if parsed.is_none() {
                add("canary_by_header_name", "is not the name of a header", "write a name such as X-Canary");
            }
            parsed
        });
        let port = config.upstream_port.filter(|port| *port > 0);
        let backend = config.upstream_host.as_deref().filter(|_| config.upstream_port != Some(0));
        let backend = backend.map(|host| BackendName::parse("upstream_host", host, port)).transpose();
        let audience = Audience::build(&config, cx, &mut invalid);
        let backend = backend.unwrap_or_else(|problem| {
            invalid.push(problem);
            None
        });
        let Some(audience) = audience.filter(|_| invalid.is_empty()) else { return Err(invalid) };
        Ok(Canary {
            backend: backend.map(|backend| [backend]),
            path: config.upstream_uri.map(String::into_boxed_str),
            has_fallback: config.upstream_fallback,
            header,
            audience,
        })
    }
}

impl Plugin for Canary {
    fn may_wait(&self) -> bool {
        false
    }

    fn chosen_backends(&self) -> &[BackendName] {
        self.backend.as_ref().map_or(&[], |backend| backend)
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if !self.is_selected(cx) {
            return AccessOutcome::Continue;
        }
        if let Some(path) = &self.path {
            let query = cx.head.uri.query().unwrap_or_default().to_owned();
            if replace_target(cx.head, path, query.as_bytes()).is_err() {
                // Only a target that has become too long is not valid.
                let message = "The request target is too long";
                return AccessOutcome::Reply(Reply::negotiated(
                    http::StatusCode::URI_TOO_LONG,
                    message,
                    "canary_target_too_long",
                ));
            }
        }
        if self.backend.is_some() {
            cx.choose_backend(0, self.has_fallback);
        }
        AccessOutcome::Continue
    }
}

impl Canary {
    /// Whether the new version gets the request.
    fn is_selected(&self, cx: &RequestCx<'_>) -> bool {
        let value = self.header.as_ref().and_then(|name| cx.head.headers.get(name));
        match value.map(|value| value.as_bytes()) {
            Some(b"always") => true,
            Some(b"never") => false,
            Some(_) | None => self.audience.contains(cx),
        }
    }
}
