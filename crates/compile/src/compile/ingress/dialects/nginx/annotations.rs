//! Reads the annotations of ingress-nginx by the table of all of them, which has their values and what a bad one does.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::balancing;
use super::balancing::OwnBalancing;
use super::config_map::NginxConfig;
use super::limits;
use super::mirror;
use super::response_rate;
use super::retries::Retries;
use super::session_cookie::AffinityCookie;
use super::shared_parts::GuardConfig;
use super::tracing;
use super::value_reader::{ValueReader, written};
use crate::api::ingress_nginx::{self, PREFIX};
use crate::compile::backend::AnnotatedProtocol;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::{Diagnostic, Topic};
use crate::snapshot::location_steps::{AllowedOrigin, CrossOrigin, FixedResponse};
use crate::snapshot::redirect::RedirectBase;
use crate::snapshot::response_rate::ResponseRate;
use crate::snapshot::rule_telemetry::RuleTracing;

/// The annotations of one Ingress that have an effect, with the defaults of ingress-nginx.
#[derive(Debug)]
pub(super) struct NginxAnnotations<'a> {
    pub rewrite_target: Option<&'a str>,
    pub use_regex: bool,
    pub app_root: Option<&'a str>,
    /// Whether the host with or without `www` redirects to this one.
    pub has_www_redirect: bool,
    pub ssl_redirect: bool,
    pub force_ssl_redirect: bool,
    pub preserve_trailing_slash: bool,
    pub response: Option<FixedResponse>,
    pub upstream_vhost: Option<HeaderValue>,
    pub forwarded_prefix: Option<&'a str>,
    pub via_cluster_ip: bool,
    /// Whether the access log has the requests.
    pub access_log: bool,
    /// What precedes a path as the target of a redirect.
    pub redirect_base: RedirectBase,
    /// Whether redirects to HTTPS have the port.
    pub redirects_have_port: bool,
    pub protocol: AnnotatedProtocol,
    /// Whether the backend gets the requests of clients with TLS over TLS.
    pub follows_client_tls: bool,
    /// The field `Connection` of requests to the backend, in place of what the client requests.
    pub connection: Option<HeaderValue>,
    pub balancing: OwnBalancing,
    pub session_cookie: Option<AffinityCookie>,
    /// The configuration of the guard that limits the requests of each client.
    pub limits: Option<GuardConfig>,
    /// The configuration of what sends copies of requests.
    pub mirror: Option<GuardConfig>,
    pub cross_origin: Option<Arc<CrossOrigin>>,
    pub connect_timeout: Duration,
    pub send_timeout: Duration,
    pub read_timeout: Duration,
    pub retries: Retries,
    /// `None` without a limit.
    pub max_body_bytes: Option<u64>,
    /// `None` without a limit.
    pub response_rate: Option<ResponseRate>,
    pub tracing: RuleTracing,
}

impl<'a> NginxAnnotations<'a> {
    /// `config`: what applies if the annotations say nothing else.
    pub(super) fn read(reader: &mut ValueReader<'a>, config: &NginxConfig) -> Self {
        let seconds = |reader: &mut ValueReader<'_>, name, default| {
            let seconds = reader.number(name).and_then(|seconds| u64::try_from(seconds).ok());
            Duration::from_secs(seconds.unwrap_or(default))
        };
        let redirects_have_port = reader.flag("use-port-in-redirects", config.redirects_have_port);
        NginxAnnotations {
            rewrite_target: reader.text("rewrite-target"),
            use_regex: reader.flag("use-regex", false),
            app_root: reader.text("app-root"),
            has_www_redirect: reader.flag("from-to-www-redirect", false),
            ssl_redirect: reader.flag("ssl-redirect", config.ssl_redirect),
            force_ssl_redirect: reader.flag("force-ssl-redirect", config.force_ssl_redirect),
            preserve_trailing_slash: reader.flag("preserve-trailing-slash", config.preserve_trailing_slash),
            response: redirect(reader),
            access_log: reader.flag("enable-access-log", true),
            redirect_base: redirect_base(reader, config, redirects_have_port),
            redirects_have_port,
            upstream_vhost: upstream_vhost(reader),
            forwarded_prefix: reader.text("x-forwarded-prefix").map(str::trim),
            via_cluster_ip: reader.flag("service-upstream", config.service_upstream),
            protocol: protocol(reader),
            follows_client_tls: written(reader.meta, "backend-protocol").is_some_and(is_auto_http),
            connection: reader.text("connection-proxy-header").and_then(|value| HeaderValue::from_str(value).ok()),
            balancing: balancing::read(reader, config),
            session_cookie: AffinityCookie::read(reader),
            limits: limits::read(reader, config).map(GuardConfig::new),
            mirror: mirror::read(reader).map(GuardConfig::new),
            cross_origin: cross_origin(reader),
            connect_timeout: seconds(reader, "proxy-connect-timeout", config.connect_seconds),
            send_timeout: seconds(reader, "proxy-send-timeout", config.send_seconds),
            read_timeout: seconds(reader, "proxy-read-timeout", config.read_seconds),
            retries: Retries::read(reader, config),
            max_body_bytes: max_body_bytes(reader, config.body_bytes),
            response_rate: response_rate::read(reader, config),
            tracing: tracing::read(reader, &config.traces),
        }
    }

    /// Whether the path of requests for a path of the Ingress is replaced.
    pub(super) fn rewrites(&self, path: &str) -> bool {
        self.rewrite_target.is_some_and(|target| target != path)
    }
}

fn redirect_base(reader: &mut ValueReader<'_>, config: &NginxConfig, has_port: bool) -> RedirectBase {
    match reader.flag("relative-redirects", config.relative_redirects) {
        true => RedirectBase::Nothing,
        false if has_port => RedirectBase::HostAndPort,
        false => RedirectBase::Host,
    }
}

/// The temporal redirect precedes the permanent one.
fn redirect(reader: &mut ValueReader<'_>) -> Option<FixedResponse> {
    let status = |reader: &mut ValueReader<'_>, name, default| {
        let code = reader.number(name).and_then(|code| u16::try_from(code).ok());
        code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(default)
    };
    let permanent_status = status(reader, "permanent-redirect-code", StatusCode::MOVED_PERMANENTLY);
    let temporal_status = status(reader, "temporal-redirect-code", StatusCode::FOUND);
    let permanent = reader.text("permanent-redirect").map(|target| (target, permanent_status));
    let temporal = reader.text("temporal-redirect").map(|target| (target, temporal_status));
    // A bad one disables both.
    let permanent = permanent.filter(|_| temporal.is_some() || written(reader.meta, "temporal-redirect").is_none());
    let (target, status) = temporal.or(permanent)?;
    // The characters that are allowed are valid in a header.
    HeaderValue::from_str(target).ok().map(|target| FixedResponse { status, target })
}

fn upstream_vhost(reader: &mut ValueReader<'_>) -> Option<HeaderValue> {
    let host = reader.text("upstream-vhost").map(str::trim)?;
    if host.contains('$') {
        let remedy = "write a host name without variables, such as backend.example";
        reader.refuse("upstream-vhost", "variables are not supported in it", remedy);
        return None;
    }
    HeaderValue::from_str(host).ok()
}

const AUTO_HTTP: &str = "AUTO_HTTP";

fn is_auto_http(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case(AUTO_HTTP)
}

fn protocol(reader: &mut ValueReader<'_>) -> AnnotatedProtocol {
    match reader.text("backend-protocol").map(|text| text.trim().to_ascii_uppercase()).as_deref() {
        Some("HTTPS") => AnnotatedProtocol::Https,
        Some("GRPC") => AnnotatedProtocol::Grpc,
        Some("GRPCS") => AnnotatedProtocol::Grpcs,
        Some("FCGI") => AnnotatedProtocol::FastCgi,
        // With AUTO_HTTP, requests of clients with TLS go to other upstreams.
        None | Some(_) => AnnotatedProtocol::Http,
    }
}

fn cross_origin(reader: &mut ValueReader<'_>) -> Option<Arc<CrossOrigin>> {
    let is_enabled = reader.flag("enable-cors", false);
    // ingress-nginx allows all origins if the value is bad.
    let is_bad = |reader: &ValueReader<'_>| written(reader.meta, "cors-allow-origin").is_some();
    let origins = reader.text("cors-allow-origin").or_else(|| is_bad(reader).then_some(""));
    let value = |reader: &mut ValueReader<'_>, name, default: &'static str| {
        let text = reader.text(name).map(str::trim).unwrap_or(default);
        HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(default))
    };
    let rules = CrossOrigin {
        origins: allowed_origins(reader, origins.unwrap_or("*")),
        allow_methods: value(reader, "cors-allow-methods", ALLOW_METHODS),
        allow_headers: value(reader, "cors-allow-headers", ALLOW_HEADERS),
        expose_headers: reader.text("cors-expose-headers").and_then(|text| HeaderValue::from_str(text.trim()).ok()),
        allows_credentials: reader.flag("cors-allow-credentials", true),
        max_age: HeaderValue::from(reader.number("cors-max-age").unwrap_or(MAX_AGE_SECONDS)),
    };
    is_enabled.then(|| Arc::new(rules))
}

/// `None` allows all origins. Entries that are no origins match nothing.
fn allowed_origins(reader: &mut ValueReader<'_>, list: &str) -> Option<Box<[AllowedOrigin]>> {
    if ingress_nginx::items(list).any(|item| item == "*") {
        return None;
    }
    let mut origins = Vec::new();
    for item in ingress_nginx::items(list) {
        match AllowedOrigin::parse(item) {
            Some(origin) => origins.push(origin),
            None => {
                let field = annotation_field(&format!("{PREFIX}cors-allow-origin"));
                let message = format!("{item:?} is not an origin, so it matches none");
                let remedy = "write scheme and host, such as https://shop.example or https://*.shop.example:8443";
                reader.notes.push(Diagnostic::warning(field, message, remedy).with_topic(Topic::Annotation));
            }
        }
    }
    Some(origins.into())
}

fn max_body_bytes(reader: &mut ValueReader<'_>, default: u64) -> Option<u64> {
    let size = reader.text("proxy-body-size").and_then(ingress_nginx::size).unwrap_or(default);
    (size > 0).then_some(size)
}

const MAX_AGE_SECONDS: i64 = 1_728_000;
const ALLOW_METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const ALLOW_HEADERS: &str =
    "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::Meta;

    fn meta(annotations: &[(&str, &str)]) -> Meta {
        let annotations: std::collections::BTreeMap<String, &str> =
            annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), *value)).collect();
        serde_json::from_value(json!({"namespace": "a", "name": "b", "annotations": annotations})).unwrap()
    }

    fn read(meta: &Meta) -> (NginxAnnotations<'_>, ValueReader<'_>) {
        let mut reader = ValueReader::new(meta);
        (NginxAnnotations::read(&mut reader, &NginxConfig::default()), reader)
    }

    #[test]
    fn defaults_are_those_of_ingress_nginx() {
        let meta = meta(&[]);
        let (read, reader) = read(&meta);
        assert!(read.ssl_redirect && !read.force_ssl_redirect && !read.use_regex);
        assert_eq!((read.max_body_bytes, read.cross_origin), (Some(1 << 20), None));
        assert_eq!([read.connect_timeout, read.read_timeout].map(|timeout| timeout.as_secs()), [5, 60]);
        assert!(reader.errors.is_empty() && reader.notes.is_empty());
    }

    #[test]
    fn bad_values_have_their_consequence() {
        for (name, value, errors, notes) in [
            ("proxy-read-timeout", "60s", 0, 1),
            ("proxy-body-size", "8mb", 0, 1),
            ("ssl-redirect", "on", 0, 1),
            ("rewrite-target", "/a;b", 0, 1),
            ("permanent-redirect", "https://a b", 1, 0),
            ("upstream-vhost", "$service_name.svc", 1, 0),
            ("backend-protocol", "AUTO_HTTP", 0, 0),
            ("backend-protocol", "fcgi", 0, 0),
            ("backend-protocol", "h2", 0, 1),
            ("mirror-target", "https://a.example;", 0, 1),
            ("mirror-host", "b.example", 0, 1),
            ("mirror-request-body", "off", 0, 1),
            ("enable-access-log", "off", 0, 1),
            ("relative-redirects", "on", 1, 0),
            ("use-port-in-redirects", "on", 0, 1),
            ("cors-allow-origin", "https://a.example,b.example", 0, 1),
        ] {
            let meta = meta(&[(name, value)]);
            let (read, reader) = read(&meta);
            assert_eq!((reader.errors.len(), reader.notes.len()), (errors, notes), "{name}: {value}: {read:?}");
        }
    }

    #[test]
    fn redirects_have_the_code_and_the_target_of_their_kind() {
        for (annotations, expected) in [
            (&[("permanent-redirect", "https://a.example")][..], Some((301, "https://a.example"))),
            (&[("permanent-redirect", "/new"), ("permanent-redirect-code", "308")], Some((308, "/new"))),
            (
                &[("permanent-redirect", "https://a.example"), ("temporal-redirect", "https://b.example")],
                Some((302, "https://b.example")),
            ),
            (
                &[("temporal-redirect", "https://a.example"), ("temporal-redirect-code", "308")],
                Some((302, "https://a.example")),
            ),
            (&[("temporal-redirect", "/relative")], None),
            (&[("permanent-redirect-code", "308")], None),
            (&[("permanent-redirect", "https://a.example"), ("temporal-redirect", "ftp://b.example")], None),
        ] {
            let meta = meta(annotations);
            let redirect = read(&meta).0.response;
            let found = redirect.as_ref().map(|redirect| (redirect.status.as_u16(), redirect.target.to_str().unwrap()));
            assert_eq!(found, expected, "{annotations:?}");
        }
    }

    #[test]
    fn relative_redirects_have_no_port() {
        for (annotations, base, has_port) in [
            (&[][..], RedirectBase::Host, false),
            (&[("use-port-in-redirects", "true")], RedirectBase::HostAndPort, true),
            (&[("relative-redirects", "true")], RedirectBase::Nothing, false),
            (&[("relative-redirects", "true"), ("use-port-in-redirects", "true")], RedirectBase::Nothing, true),
        ] {
            let meta = meta(annotations);
            let read = read(&meta).0;
            assert_eq!((read.redirect_base, read.redirects_have_port), (base, has_port), "{annotations:?}");
        }
    }

    #[test]
    fn numbers_and_sizes_replace_defaults() {
        let meta = meta(&[("proxy-body-size", "0"), ("proxy-connect-timeout", "7")]);
        let read = read(&meta).0;
        assert_eq!((read.max_body_bytes, read.connect_timeout.as_secs()), (None, 7));
    }
}
