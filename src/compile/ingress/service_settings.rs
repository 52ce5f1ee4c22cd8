//! What the annotations of a Service, or of a facade in its place, say about requests to it (`kong-compat.md` §2.1).

use std::time::Duration;

use http::HeaderValue;

use super::super::verdict::Problem;
use super::annotations::{Annotations, ON_SERVICES};
use crate::api::Meta;
use crate::api::kong::annotations::{
    CA_CERTIFICATES_CONFIG_MAPS, CA_CERTIFICATES_SECRETS, CLIENT_CERT, CONNECT_TIMEOUT, HOST_HEADER, PATH, PROTOCOL,
    READ_TIMEOUT, RETRIES, SERVICE_UPSTREAM, TLS_VERIFY, TLS_VERIFY_DEPTH, WRITE_TIMEOUT,
};
use crate::snapshot::kong::HostName;

/// How requests go to a Service.
#[derive(Clone, Debug)]
pub(in crate::compile) struct ServiceSettings {
    /// None if it is not said.
    pub protocol: Option<Speech>,
    pub path: Box<str>,
    pub connect: Duration,
    pub write: Duration,
    pub read: Duration,
    pub retries: u32,
    pub host: Option<HeaderValue>,
    /// To the address of the Service, and not to its endpoints.
    pub whole: bool,
    pub notes: Vec<Problem>,
}

/// What `konghq.com/protocol` names, as far as requests are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::compile) enum Speech {
    Http,
    Grpc,
    /// Not spoken towards backends.
    Tls,
    /// None of requests.
    Stream,
}

pub(in crate::compile) fn read(meta: &Meta, on: &str) -> ServiceSettings {
    let mut read = Annotations::of(meta);
    let remedy = "write http, https, grpc, grpcs, ws, wss, tls, tcp or tls_passthrough";
    let protocol = read.read(PROTOCOL, speech, remedy);
    let timeout = |read: &mut Annotations<'_>, key| {
        read.read(key, milliseconds, "write milliseconds as a whole number from 1 up").unwrap_or(USUAL_TIMEOUT)
    };
    let settings = ServiceSettings {
        protocol,
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
    };
    if protocol != Some(Speech::Tls) {
        for key in [CLIENT_CERT, TLS_VERIFY, TLS_VERIFY_DEPTH, CA_CERTIFICATES_SECRETS, CA_CERTIFICATES_CONFIG_MAPS] {
            if read.text(key).is_some() {
                read.note(
                    key,
                    "the Service is not spoken to in TLS, so it has no effect",
                    "set konghq.com/protocol to https, or remove it",
                );
            }
        }
    }
    read.note_unknown(ON_SERVICES, on);
    ServiceSettings { notes: read.notes, ..settings }
}

fn speech(text: &str) -> Option<Speech> {
    Some(match text {
        "http" | "ws" => Speech::Http,
        "grpc" => Speech::Grpc,
        "https" | "grpcs" | "wss" => Speech::Tls,
        "tls" | "tcp" | "tls_passthrough" => Speech::Stream,
        _ => return None,
    })
}

fn milliseconds(text: &str) -> Option<Duration> {
    let number: u64 = text.trim().parse().ok()?;
    (1..=i32::MAX as u64 - 1).contains(&number).then(|| Duration::from_millis(number))
}

fn retries(text: &str) -> Option<u32> {
    text.trim().parse().ok().filter(|number| *number <= 32_767)
}

fn host(text: &str) -> Option<HeaderValue> {
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
            ("konghq.com/protocol", "https", |found| found.protocol == Some(Speech::Tls), 0),
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
            let settings = read(&serde_json::from_value(meta).unwrap(), "a Service");
            assert!(expected(&settings), "{key}: {value}: {settings:?}");
            assert_eq!(settings.notes.len(), *notes, "{key}: {value}: {:?}", settings.notes);
        }
    }
}
