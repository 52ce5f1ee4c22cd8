//! Reads the annotations of a Service or facade that configure requests to it (docs/kong-compatibility.md, 2.1).

use std::time::Duration;

use http::HeaderValue;

use super::known_annotations::{SERVICE_ANNOTATIONS, note_unknown};
use crate::api::core::Service;
use crate::api::kong::annotations::{
    CA_CERTIFICATES_CONFIG_MAPS, CA_CERTIFICATES_SECRETS, CLIENT_CERT, CONNECT_TIMEOUT, HOST_HEADER, PATH, PROTOCOL,
    READ_TIMEOUT, RETRIES, SERVICE_UPSTREAM, TLS_VERIFY, TLS_VERIFY_DEPTH, WRITE_TIMEOUT, list,
};
use crate::api::{Kind, Meta, Object, ObjectKey};
use crate::compile::backend::annotated_tls::BackendTlsSettings;
use crate::compile::backend::{AnnotatedProtocol, BackendSettings, UnknownAppProtocol};
use crate::compile::objects::annotation_reader::{AnnotationReader, annotation_field};
use crate::diagnostic::Diagnostic;
use crate::request_target::path_encoding::is_sendable_path;
use crate::snapshot::router::by_conditions::HostName;

/// How requests are sent to a Service.
#[derive(Clone, Debug)]
pub(in crate::compile) struct ServiceSettings {
    /// The protocol of `konghq.com/protocol`; `None` if the annotation is missing or ignored.
    pub protocol: Option<AnnotatedProtocol>,
    pub tls: BackendTlsSettings,
    pub path: Box<str>,
    pub connect_timeout: Duration,
    pub write_timeout: Duration,
    pub read_timeout: Duration,
    pub retries: u32,
    pub host: Option<HeaderValue>,
    /// Whether to connect to the ClusterIP of the Service instead of its endpoints.
    pub via_cluster_ip: bool,
    /// Warnings about annotations without effect.
    pub notes: Vec<Diagnostic>,
}

/// The protocol of `konghq.com/protocol`. An unknown value is ignored; but if other annotations configure TLS, it
/// counts as a protocol that cannot be served, so that requests are not sent in plain text.
fn annotated_protocol(meta: &Meta) -> Option<AnnotatedProtocol> {
    let text = meta.annotations.get(PROTOCOL)?;
    parse_protocol(text).or_else(|| has_tls_annotations(meta).then_some(AnnotatedProtocol::Stream))
}

/// Reads all settings. `has_tls_port`: whether the appProtocol of a port is a TLS protocol.
pub(in crate::compile) fn read(meta: &Meta, kind: Kind, has_tls_port: bool) -> ServiceSettings {
    let mut reader = AnnotationReader::new(meta);
    let remedy = "write http, https, grpc, grpcs, ws, wss, tls, tcp or tls_passthrough";
    let protocol = reader.read(PROTOCOL, parse_protocol, remedy).or_else(|| annotated_protocol(meta));
    let timeout = |reader: &mut AnnotationReader<'_>, key| {
        reader.read(key, parse_milliseconds, "write a positive whole number of milliseconds").unwrap_or(DEFAULT_TIMEOUT)
    };
    let settings = ServiceSettings {
        protocol,
        tls: tls_settings(meta),
        path: reader
            .read(
                PATH,
                |text| is_sendable_path(text).then_some(text),
                "write a path that starts with a slash, without query and dot segments; encode spaces and other \
                 special characters",
            )
            .unwrap_or("/")
            .into(),
        connect_timeout: timeout(&mut reader, CONNECT_TIMEOUT),
        write_timeout: timeout(&mut reader, WRITE_TIMEOUT),
        read_timeout: timeout(&mut reader, READ_TIMEOUT),
        retries: reader.read(RETRIES, parse_retries, "write a whole number from 0 to 32767").unwrap_or(DEFAULT_RETRIES),
        host: reader.read(HOST_HEADER, parse_host, "write a host name, such as backend.example"),
        via_cluster_ip: reader.bool(SERVICE_UPSTREAM).unwrap_or(false),
        notes: Vec::new(),
    };
    let verification_keys = [TLS_VERIFY_DEPTH, CA_CERTIFICATES_SECRETS, CA_CERTIFICATES_CONFIG_MAPS];
    if !protocol.map_or(has_tls_port, AnnotatedProtocol::is_tls) {
        for key in [CLIENT_CERT, TLS_VERIFY].into_iter().chain(verification_keys) {
            // `tls-verify: "false"` is the default and needs no warning.
            let configures_tls = |text: &str| key != TLS_VERIFY || !text.eq_ignore_ascii_case("false");
            if reader.text(key).is_some_and(configures_tls) {
                let message = "connections to the Service do not use TLS, so it has no effect";
                reader.ignore(Diagnostic::error(
                    annotation_field(key),
                    message,
                    "set konghq.com/protocol to https, or remove it",
                ));
            }
        }
    } else if !settings.tls.verify && settings.tls.invalid.is_none() {
        for key in verification_keys {
            if reader.text(key).is_some() {
                let message = "the certificate of the Service is not verified, so it has no effect";
                let remedy = "set konghq.com/tls-verify to \"true\", or remove it";
                reader.ignore(Diagnostic::error(annotation_field(key), message, remedy));
            }
        }
    }
    note_unknown(&mut reader, kind, SERVICE_ANNOTATIONS, &format!("a {kind}"));
    ServiceSettings { notes: reader.notes, ..settings }
}

/// The settings of a Service for Gateway API routes: `appProtocol` counts as the Gateway API defines, and annotations
/// configure what the API has no fields for.
pub(in crate::compile) fn for_gateway_api(service: &Object<Service>) -> BackendSettings<'_> {
    BackendSettings {
        source: (Kind::Service, &service.meta),
        protocol: annotated_protocol(&service.meta),
        requires_http2: false,
        tls_by_app_protocol: false,
        unknown_app_protocol: UnknownAppProtocol::Reject,
        via_cluster_ip: AnnotationReader::new(&service.meta).bool(SERVICE_UPSTREAM).unwrap_or(false),
        tls: tls_settings(&service.meta),
        route_tls: None,
    }
}

/// The settings of a Service for gRPC calls, which need HTTP/2.
pub(in crate::compile) fn for_grpc(service: &Object<Service>) -> BackendSettings<'_> {
    BackendSettings { requires_http2: true, ..for_gateway_api(service) }
}

/// The settings of a Service for Ingresses.
pub(in crate::compile) fn for_ingress(service: &Object<Service>) -> BackendSettings<'_> {
    BackendSettings {
        tls_by_app_protocol: true,
        unknown_app_protocol: UnknownAppProtocol::Ignore,
        ..for_gateway_api(service)
    }
}

/// The same for a class that makes all requests go to the ClusterIP of Services.
pub(in crate::compile) fn for_ingress_via_cluster_ip(service: &Object<Service>) -> BackendSettings<'_> {
    BackendSettings { via_cluster_ip: true, ..for_ingress(service) }
}

/// The annotations that configure TLS connections, without the protocol.
pub(in crate::compile) const TLS_ANNOTATIONS: &[&str] =
    &[CLIENT_CERT, TLS_VERIFY, TLS_VERIFY_DEPTH, CA_CERTIFICATES_SECRETS, CA_CERTIFICATES_CONFIG_MAPS];

/// The values of these annotations.
fn tls_settings(meta: &Meta) -> BackendTlsSettings {
    let text = |key: &str| meta.annotations.get(key).map(|value| &**value);
    let names = |key| list(text(key).unwrap_or_default()).map(Box::from).collect();
    let mut invalid = None;
    // Other invalid annotations are ignored. Ignoring one of these would verify less than configured.
    let mut reject = |key: &str, value: &str, remedy: &str| {
        invalid = Some(Diagnostic::error(annotation_field(key), format!("{value:?} is not a valid value"), remedy));
    };
    let mut verify = false;
    match text(TLS_VERIFY) {
        Some(value) if value.eq_ignore_ascii_case("true") => verify = true,
        Some(value) if !value.eq_ignore_ascii_case("false") => reject(TLS_VERIFY, value, "write \"true\" or \"false\""),
        Some(_) | None => {}
    }
    let mut depth = None;
    if let Some(value) = text(TLS_VERIFY_DEPTH).filter(|_| verify) {
        depth = value.trim().parse().ok();
        if depth.is_none() {
            reject(TLS_VERIFY_DEPTH, value, "write a whole number, 0 or greater");
        }
    }
    BackendTlsSettings {
        client: text(CLIENT_CERT).map(|name| name.trim().into()),
        verify,
        depth,
        secrets: names(CA_CERTIFICATES_SECRETS),
        config_maps: names(CA_CERTIFICATES_CONFIG_MAPS),
        invalid,
    }
}

fn parse_protocol(text: &str) -> Option<AnnotatedProtocol> {
    Some(match text {
        "http" | "ws" => AnnotatedProtocol::Http,
        "grpc" => AnnotatedProtocol::Grpc,
        "https" | "wss" => AnnotatedProtocol::Https,
        "grpcs" => AnnotatedProtocol::Grpcs,
        "tls" | "tcp" | "tls_passthrough" => AnnotatedProtocol::Stream,
        _ => return None,
    })
}

/// Whether annotations other than the protocol configure TLS.
fn has_tls_annotations(meta: &Meta) -> bool {
    let verifies = meta.annotations.get(TLS_VERIFY).is_some_and(|text| !text.eq_ignore_ascii_case("false"));
    verifies
        || [CLIENT_CERT, CA_CERTIFICATES_SECRETS, CA_CERTIFICATES_CONFIG_MAPS]
            .iter()
            .any(|key| meta.annotations.contains_key(*key))
}

fn parse_milliseconds(text: &str) -> Option<Duration> {
    let number: u64 = text.trim().parse().ok()?;
    (1..=i32::MAX as u64 - 1).contains(&number).then(|| Duration::from_millis(number))
}

fn parse_retries(text: &str) -> Option<u32> {
    text.trim().parse().ok().filter(|number| *number <= 32_767)
}

/// A host name without wildcard, optionally with a port.
pub(in crate::compile) fn parse_host(text: &str) -> Option<HeaderValue> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let is_port_valid = port.is_none_or(|port| port.parse::<u16>().is_ok());
    HostName::parse(name).filter(|name| is_port_valid && name.is_exact())?;
    HeaderValue::from_str(text).ok()
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_RETRIES: u32 = 5;

/// The `Host` for a Service if the client's is not kept and the configuration sets none: the name that Kong's ingress
/// controller gives the service, or the external name of an ExternalName Service.
pub(in crate::compile) fn default_host(service: &Object<Service>, port: u16, is_tls: bool) -> HeaderValue {
    let ObjectKey { namespace, name } = &service.meta.key;
    let external = service.spec.external_name.as_deref();
    let host = match external.filter(|_| service.spec.kind.as_deref() == Some("ExternalName")) {
        Some(external) => external.trim_end_matches('.').to_owned(),
        None => format!("{name}.{namespace}.{port}.svc"),
    };
    let default_port = if is_tls { 443 } else { 80 };
    let host = if port == default_port { host } else { format!("{host}:{port}") };
    HeaderValue::from_str(&host).unwrap_or(HeaderValue::from_static("localhost"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::AnyObject;

    #[test]
    fn invalid_protocol_with_tls_annotations_is_not_plain_text() {
        let protocol = |annotations: serde_json::Value| {
            let meta = serde_json::json!({"metadata": {"name": "s", "annotations": annotations}});
            let AnyObject::Service(service) = AnyObject::parse(Kind::Service, meta).unwrap() else {
                panic!("not a Service")
            };
            assert_eq!(read(&service.meta, Kind::Service, false).protocol, annotated_protocol(&service.meta));
            annotated_protocol(&service.meta)
        };
        for (tls_annotation, value) in [
            ("konghq.com/tls-verify", "true"),
            ("konghq.com/tls-verify", "yes"),
            ("konghq.com/client-cert", "me"),
            ("konghq.com/ca-certificates-secrets", "authority"),
            ("konghq.com/ca-certificates-configmaps", "authority"),
        ] {
            let found = protocol(serde_json::json!({"konghq.com/protocol": "HTTPS", tls_annotation: value}));
            assert_eq!(found, Some(AnnotatedProtocol::Stream), "{tls_annotation}: {value}");
        }
        let verify_off = serde_json::json!({"konghq.com/protocol": "HTTPS", "konghq.com/tls-verify": "false"});
        assert_eq!(protocol(verify_off), None);
        assert_eq!(protocol(serde_json::json!({"konghq.com/protocol": "HTTPS"})), None);
    }

    // docs/kong-compatibility.md, 2.1
    #[test]
    fn valid_and_invalid_service_annotations() {
        type Matches = fn(&ServiceSettings) -> bool;
        let has_defaults: Matches = |settings| {
            let timeouts = [settings.connect_timeout, settings.write_timeout, settings.read_timeout];
            timeouts == [Duration::from_millis(60_000); 3]
                && (&*settings.path, settings.retries, settings.protocol) == ("/", 5, None)
                && settings.host.is_none()
                && !settings.via_cluster_ip
        };
        let cases: &[(&str, &str, Matches, usize)] = &[
            ("konghq.com/protocol", "grpc", |found| found.protocol == Some(AnnotatedProtocol::Grpc), 0),
            ("konghq.com/protocol", "ws", |found| found.protocol == Some(AnnotatedProtocol::Http), 0),
            ("konghq.com/protocol", "https", |found| found.protocol == Some(AnnotatedProtocol::Https), 0),
            ("konghq.com/protocol", "wss", |found| found.protocol == Some(AnnotatedProtocol::Https), 0),
            ("konghq.com/protocol", "grpcs", |found| found.protocol == Some(AnnotatedProtocol::Grpcs), 0),
            ("konghq.com/protocol", "tcp", |found| found.protocol == Some(AnnotatedProtocol::Stream), 0),
            ("konghq.com/protocol", "h2", has_defaults, 1),
            ("konghq.com/path", "/v1", |found| &*found.path == "/v1", 0),
            ("konghq.com/path", "/v1/%2F;x=%41/{id}", |found| &*found.path == "/v1/%2F;x=%41/{id}", 0),
            ("konghq.com/path", "v1", has_defaults, 1),
            ("konghq.com/path", "", has_defaults, 1),
            ("konghq.com/path", "/a b", has_defaults, 1),
            ("konghq.com/path", "/a?b=c", has_defaults, 1),
            ("konghq.com/path", "/a#b", has_defaults, 1),
            ("konghq.com/path", "/a/../b", has_defaults, 1),
            ("konghq.com/path", "/a/%2e%2E/b", has_defaults, 1),
            ("konghq.com/path", "/a\r\nb", has_defaults, 1),
            ("konghq.com/path", "/a\n", has_defaults, 1),
            ("konghq.com/path", "/100%", has_defaults, 1),
            ("konghq.com/path", "/caf\u{e9}", has_defaults, 1),
            ("konghq.com/connect-timeout", "500", |found| found.connect_timeout == Duration::from_millis(500), 0),
            ("konghq.com/write-timeout", "500", |found| found.write_timeout == Duration::from_millis(500), 0),
            ("konghq.com/read-timeout", "500", |found| found.read_timeout == Duration::from_millis(500), 0),
            ("konghq.com/read-timeout", "5s", has_defaults, 1),
            ("konghq.com/read-timeout", "0", has_defaults, 1),
            ("konghq.com/retries", "0", |found| found.retries == 0, 0),
            ("konghq.com/retries", "32768", has_defaults, 1),
            (
                "konghq.com/host-header",
                "a.example:81",
                |found| found.host.as_ref().is_some_and(|host| host == "a.example:81"),
                0,
            ),
            ("konghq.com/host-header", "*.example", has_defaults, 1),
            ("konghq.com/host-header", "a b", has_defaults, 1),
            ("konghq.com/client-cert", "secret", has_defaults, 1),
            ("konghq.com/tls-verify", "true", has_defaults, 1),
            ("konghq.com/tls-verify-depth", "1", has_defaults, 1),
            ("konghq.com/ca-certificates-secrets", "a", has_defaults, 1),
            ("konghq.com/ca-certificates-configmaps", "a", has_defaults, 1),
            ("konghq.com/override", "a", has_defaults, 0),
            ("konghq.com/upstream-policy", "a", has_defaults, 0),
            ("konghq.com/tags", "a", has_defaults, 0),
            ("ingress.kubernetes.io/service-upstream", "true", |found| found.via_cluster_ip, 0),
            ("ingress.kubernetes.io/service-upstream", "1", has_defaults, 1),
            ("konghq.com/strip-path", "true", has_defaults, 1),
            ("konghq.com/retrys", "1", has_defaults, 1),
        ];
        for (key, value, expected, notes) in cases {
            let meta = json!({"namespace": "a", "name": "b", "annotations": {*key: value}});
            let settings = read(&serde_json::from_value(meta).unwrap(), Kind::Service, false);
            assert!(expected(&settings), "{key}: {value}: {settings:?}");
            assert_eq!(settings.notes.len(), *notes, "{key}: {value}: {:?}", settings.notes);
        }
    }
}
