//! What the annotations of a Service, or of a facade in its place, say about requests to it (`kong-compat.md` §2.1).

use std::time::Duration;

use http::HeaderValue;

use super::super::verdict::Problem;
use super::annotations::{Annotations, ON_SERVICES, field};
use crate::api::Meta;
use crate::api::kong::annotations::{
    CA_CERTIFICATES_CONFIG_MAPS, CA_CERTIFICATES_SECRETS, CLIENT_CERT, CONNECT_TIMEOUT, HOST_HEADER, PATH, PROTOCOL,
    READ_TIMEOUT, RETRIES, SERVICE_UPSTREAM, TLS_VERIFY, TLS_VERIFY_DEPTH, WRITE_TIMEOUT, list,
};
use crate::snapshot::kong::HostName;
use crate::upstream::Protocol;

/// How requests go to a Service.
#[derive(Clone, Debug)]
pub(in crate::compile) struct ServiceSettings {
    /// None if it is not said.
    pub protocol: Option<Speech>,
    pub tls: TlsSettings,
    pub path: Box<str>,
    pub connect: Duration,
    pub write: Duration,
    pub read: Duration,
    pub retries: u32,
    pub host: Option<HeaderValue>,
    /// To the address of the Service, and not to its endpoints.
    pub whole: bool,
    pub notes: Vec<Problem>,
    /// Those of the notes that are about what means nothing.
    pub unheeded: Vec<Problem>,
}

/// What `konghq.com/protocol` names, as far as requests are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::compile) enum Speech {
    Http,
    Grpc,
    Https,
    Grpcs,
    /// None of requests.
    Stream,
}

impl Speech {
    /// A word that nobody knows says nothing; but where other annotations want TLS, it is not known that plain text will do.
    pub(in crate::compile) fn of(meta: &Meta) -> Option<Self> {
        let text = meta.annotations.get(PROTOCOL)?;
        speech(text).or_else(|| wants_tls(meta).then_some(Speech::Stream))
    }

    pub(in crate::compile) fn is_tls(self) -> bool {
        matches!(self, Speech::Https | Speech::Grpcs)
    }

    /// None if it carries no requests.
    pub(in crate::compile) fn protocol(self) -> Option<Protocol> {
        match self {
            Speech::Http | Speech::Https => Some(Protocol::Http1),
            Speech::Grpc | Speech::Grpcs => Some(Protocol::Http2),
            Speech::Stream => None,
        }
    }
}

/// What there is to say where TLS is spoken.
#[derive(Clone, Debug, Default)]
pub(in crate::compile) struct TlsSettings {
    /// A Secret.
    pub client: Option<Box<str>>,
    pub verify: bool,
    pub depth: Option<usize>,
    /// Authorities. Without any, those of the system count.
    pub secrets: Vec<Box<str>>,
    pub config_maps: Vec<Box<str>>,
    /// Something that guards cannot be read, so that nothing is sent.
    pub unreadable: Option<Problem>,
}

/// `tls_port`: a port of the Service says that it speaks TLS.
pub(in crate::compile) fn read(meta: &Meta, on: &str, tls_port: bool) -> ServiceSettings {
    let mut read = Annotations::of(meta);
    let remedy = "write http, https, grpc, grpcs, ws, wss, tls, tcp or tls_passthrough";
    let protocol = read.read(PROTOCOL, speech, remedy).or_else(|| Speech::of(meta));
    let timeout = |read: &mut Annotations<'_>, key| {
        read.read(key, milliseconds, "write milliseconds as a whole number from 1 up").unwrap_or(USUAL_TIMEOUT)
    };
    let settings = ServiceSettings {
        protocol,
        tls: tls(&read),
        path: read
            .read(PATH, |text| text.starts_with('/').then_some(text), "write a path that begins with a slash")
            .unwrap_or("/")
            .into(),
        connect: timeout(&mut read, CONNECT_TIMEOUT),
        write: timeout(&mut read, WRITE_TIMEOUT),
        read: timeout(&mut read, READ_TIMEOUT),
        retries: read.read(RETRIES, retries, "write a whole number from 0 to 32767").unwrap_or(USUAL_RETRIES),
        host: read.read(HOST_HEADER, host, "write a host name, such as backend.example"),
        whole: read.bool(SERVICE_UPSTREAM).unwrap_or(false),
        notes: Vec::new(),
        unheeded: Vec::new(),
    };
    let of_verifying = [TLS_VERIFY_DEPTH, CA_CERTIFICATES_SECRETS, CA_CERTIFICATES_CONFIG_MAPS];
    if !protocol.map_or(tls_port, Speech::is_tls) {
        for key in [CLIENT_CERT, TLS_VERIFY].into_iter().chain(of_verifying) {
            // Not to verify is what happens.
            let is_wish = |text: &str| key != TLS_VERIFY || !text.eq_ignore_ascii_case("false");
            if read.text(key).is_some_and(is_wish) {
                let message = "the Service is not spoken to in TLS, so it has no effect";
                read.unheeded(Problem::new(field(key), message, "set konghq.com/protocol to https, or remove it"));
            }
        }
    } else if !settings.tls.verify && settings.tls.unreadable.is_none() {
        for key in of_verifying {
            if read.text(key).is_some() {
                let message = "the certificate of the Service is not verified, so it has no effect";
                let remedy = "set konghq.com/tls-verify to \"true\", or remove it";
                read.unheeded(Problem::new(field(key), message, remedy));
            }
        }
    }
    read.note_unknown(ON_SERVICES, on);
    ServiceSettings { notes: read.notes, unheeded: read.unheeded, ..settings }
}

/// Whether requests go to the address of the Service, and not to its endpoints.
pub(in crate::compile) fn is_whole(meta: &Meta) -> bool {
    Annotations::of(meta).bool(SERVICE_UPSTREAM).unwrap_or(false)
}

fn tls(read: &Annotations<'_>) -> TlsSettings {
    let names = |key| list(read.text(key).unwrap_or_default()).map(Box::from).collect();
    let mut unreadable = None;
    // Elsewhere what cannot be read counts as not written. Here that would be to verify less than somebody wants.
    let mut refuse = |key: &str, text: &str, remedy: &str| {
        unreadable = Some(Problem::new(field(key), format!("{text:?} cannot be read"), remedy));
    };
    let mut verify = false;
    match read.text(TLS_VERIFY) {
        Some(text) if text.eq_ignore_ascii_case("true") => verify = true,
        Some(text) if !text.eq_ignore_ascii_case("false") => refuse(TLS_VERIFY, text, "write \"true\" or \"false\""),
        Some(_) | None => {}
    }
    let mut depth = None;
    if let Some(text) = read.text(TLS_VERIFY_DEPTH).filter(|_| verify) {
        depth = text.trim().parse().ok();
        if depth.is_none() {
            refuse(TLS_VERIFY_DEPTH, text, "write a whole number from 0 up");
        }
    }
    TlsSettings {
        client: read.text(CLIENT_CERT).map(|name| name.trim().into()),
        verify,
        depth,
        secrets: names(CA_CERTIFICATES_SECRETS),
        config_maps: names(CA_CERTIFICATES_CONFIG_MAPS),
        unreadable,
    }
}

fn speech(text: &str) -> Option<Speech> {
    Some(match text {
        "http" | "ws" => Speech::Http,
        "grpc" => Speech::Grpc,
        "https" | "wss" => Speech::Https,
        "grpcs" => Speech::Grpcs,
        "tls" | "tcp" | "tls_passthrough" => Speech::Stream,
        _ => return None,
    })
}

/// Whether annotations other than that of the protocol speak of a connection in TLS.
fn wants_tls(meta: &Meta) -> bool {
    let verifies = meta.annotations.get(TLS_VERIFY).is_some_and(|text| !text.eq_ignore_ascii_case("false"));
    verifies
        || [CLIENT_CERT, CA_CERTIFICATES_SECRETS, CA_CERTIFICATES_CONFIG_MAPS]
            .iter()
            .any(|key| meta.annotations.contains_key(*key))
}

fn milliseconds(text: &str) -> Option<Duration> {
    let number: u64 = text.trim().parse().ok()?;
    (1..=i32::MAX as u64 - 1).contains(&number).then(|| Duration::from_millis(number))
}

fn retries(text: &str) -> Option<u32> {
    text.trim().parse().ok().filter(|number| *number <= 32_767)
}

pub(super) fn host(text: &str) -> Option<HeaderValue> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let good = port.is_none_or(|port| port.parse::<u16>().is_ok());
    HostName::parse(name).filter(|name| good && name.is_exact())?;
    HeaderValue::from_str(text).ok()
}

const USUAL_TIMEOUT: Duration = Duration::from_secs(60);
const USUAL_RETRIES: u32 = 5;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::Kind;
    use crate::store::AnyObject;

    #[test]
    fn a_misspelt_protocol_beside_wishes_for_tls_is_not_plain_text() {
        let protocol = |annotations: serde_json::Value| {
            let meta = serde_json::json!({"metadata": {"name": "s", "annotations": annotations}});
            let AnyObject::Service(service) = AnyObject::parse(Kind::Service, meta).unwrap() else {
                panic!("a Service")
            };
            assert_eq!(read(&service.meta, "a Service", false).protocol, Speech::of(&service.meta));
            Speech::of(&service.meta)
        };
        for (wish, value) in [
            ("konghq.com/tls-verify", "true"),
            ("konghq.com/tls-verify", "yes"),
            ("konghq.com/client-cert", "me"),
            ("konghq.com/ca-certificates-secrets", "authority"),
            ("konghq.com/ca-certificates-configmaps", "authority"),
        ] {
            let found = protocol(serde_json::json!({"konghq.com/protocol": "HTTPS", wish: value}));
            assert_eq!(found, Some(Speech::Stream), "{wish}: {value}");
        }
        let verify_off = serde_json::json!({"konghq.com/protocol": "HTTPS", "konghq.com/tls-verify": "false"});
        assert_eq!(protocol(verify_off), None);
        assert_eq!(protocol(serde_json::json!({"konghq.com/protocol": "HTTPS"})), None);
    }

    // kong-compat §2.1
    #[test]
    fn every_annotation_good_and_bad() {
        type Same = fn(&ServiceSettings) -> bool;
        let usual: Same = |settings| {
            let timeouts = [settings.connect, settings.write, settings.read];
            timeouts == [Duration::from_millis(60_000); 3]
                && (&*settings.path, settings.retries, settings.protocol) == ("/", 5, None)
                && settings.host.is_none()
                && !settings.whole
        };
        let cases: &[(&str, &str, Same, usize)] = &[
            ("konghq.com/protocol", "grpc", |found| found.protocol == Some(Speech::Grpc), 0),
            ("konghq.com/protocol", "ws", |found| found.protocol == Some(Speech::Http), 0),
            ("konghq.com/protocol", "https", |found| found.protocol == Some(Speech::Https), 0),
            ("konghq.com/protocol", "wss", |found| found.protocol == Some(Speech::Https), 0),
            ("konghq.com/protocol", "grpcs", |found| found.protocol == Some(Speech::Grpcs), 0),
            ("konghq.com/protocol", "tcp", |found| found.protocol == Some(Speech::Stream), 0),
            ("konghq.com/protocol", "h2", usual, 1),
            ("konghq.com/path", "/v1", |found| &*found.path == "/v1", 0),
            ("konghq.com/path", "v1", usual, 1),
            ("konghq.com/connect-timeout", "500", |found| found.connect == Duration::from_millis(500), 0),
            ("konghq.com/write-timeout", "500", |found| found.write == Duration::from_millis(500), 0),
            ("konghq.com/read-timeout", "500", |found| found.read == Duration::from_millis(500), 0),
            ("konghq.com/read-timeout", "5s", usual, 1),
            ("konghq.com/read-timeout", "0", usual, 1),
            ("konghq.com/retries", "0", |found| found.retries == 0, 0),
            ("konghq.com/retries", "32768", usual, 1),
            (
                "konghq.com/host-header",
                "a.example:81",
                |found| found.host.as_ref().is_some_and(|host| host == "a.example:81"),
                0,
            ),
            ("konghq.com/host-header", "*.example", usual, 1),
            ("konghq.com/host-header", "a b", usual, 1),
            ("konghq.com/client-cert", "secret", usual, 1),
            ("konghq.com/tls-verify", "true", usual, 1),
            ("konghq.com/tls-verify-depth", "1", usual, 1),
            ("konghq.com/ca-certificates-secrets", "a", usual, 1),
            ("konghq.com/ca-certificates-configmaps", "a", usual, 1),
            ("konghq.com/override", "a", usual, 0),
            ("konghq.com/upstream-policy", "a", usual, 0),
            ("konghq.com/tags", "a", usual, 0),
            ("ingress.kubernetes.io/service-upstream", "true", |found| found.whole, 0),
            ("ingress.kubernetes.io/service-upstream", "1", usual, 1),
            ("konghq.com/strip-path", "true", usual, 1),
            ("konghq.com/retrys", "1", usual, 1),
        ];
        for (key, value, expected, notes) in cases {
            let meta = json!({"namespace": "a", "name": "b", "annotations": {*key: value}});
            let settings = read(&serde_json::from_value(meta).unwrap(), "a Service", false);
            assert!(expected(&settings), "{key}: {value}: {settings:?}");
            assert_eq!(settings.notes.len(), *notes, "{key}: {value}: {:?}", settings.notes);
        }
    }
}
