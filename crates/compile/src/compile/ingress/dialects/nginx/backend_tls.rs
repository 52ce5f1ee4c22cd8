//! TLS to the backends of an Ingress: `proxy-ssl-secret` and what depends on it.

use std::sync::Arc;

use http::HeaderValue;
use rustls::SupportedCipherSuite;

use super::cipher_list;
use super::config_map::NginxConfig;
use super::referenced_objects::{object_key, report_missing};
use super::value_reader::ValueReader;
use crate::api::core::Secret;
use crate::api::ingress_nginx::PREFIX;
use crate::api::{Kind, Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::backend::route_tls::RouteTls;
use crate::compile::certificates;
use crate::compile::certificates::ca_bundle;
use crate::compile::certificates::ca_bundle::CaBundleProblem;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::endpoint_tls::{EndpointIdentity, TlsTrust, TrustAnchors};

/// The settings of the annotations. `None` if there are none, or if they cannot be used: the reader has the errors
/// because of which no request is forwarded.
pub(super) fn read(cx: CompileContext<'_>, reader: &mut ValueReader<'_>, config: &NginxConfig) -> Option<RouteTls> {
    let verifies = reader.text("proxy-ssl-verify").map(str::trim) == Some("on");
    let depth = reader.number("proxy-ssl-verify-depth").and_then(|depth| usize::try_from(depth).ok());
    let name = reader.text("proxy-ssl-name").map(str::trim);
    // The name is sent in any case, as it is with backends without these annotations.
    reader.text("proxy-ssl-server-name");
    let protocols = reader.text(PROTOCOLS);
    let ciphers = reader.text(CIPHERS);
    let Some(secret) = reader.text("proxy-ssl-secret") else {
        reader.note_without(&DEPENDENT, SECRET);
        return None;
    };
    let key = object_key(reader, SECRET, secret, config)?;
    let Some(found) = cx.store.secrets.get(&key) else {
        report_missing(cx, reader, SECRET, Kind::Secret, &key);
        return None;
    };
    let field = annotation_field(&format!("{PREFIX}{SECRET}"));
    let mut client = None;
    if found.value("tls.crt").is_some() {
        match certificates::client_certificate(cx.store, &key) {
            Ok(certificate) => client = Some(certificate),
            Err(problem) => {
                reader.refuse(SECRET, &problem.message, &problem.remedy);
                return None;
            }
        }
    }
    let trust = if verifies { Some(trust(reader, found, &key, depth, name)?) } else { None };
    if !verifies && name.is_some() {
        let remedy = "set proxy-ssl-verify to on, or remove it";
        reader.note("proxy-ssl-name", "the certificate of the backend is not verified", remedy);
    }
    let suites = suites(reader, protocols, ciphers)
        .inspect_err(|message| reader.refuse(CIPHERS, message, cipher_list::REMEDY))
        .ok()?;
    Some(RouteTls { trust, client, client_field: field, suites })
}

/// The cipher suites of handshakes, and with them the versions; `None` for all.
///
/// # Errors
///
/// If the list leaves no suite for TLS 1.2, and that is permitted.
fn suites(
    reader: &mut ValueReader<'_>,
    protocols: Option<&str>,
    ciphers: Option<&str>,
) -> Result<Option<Arc<[SupportedCipherSuite]>>, String> {
    let ciphers = ciphers.filter(|ciphers| *ciphers != DEFAULT);
    if protocols.is_none() && ciphers.is_none() {
        return Ok(None);
    }
    let permits = |version: &str| protocols.is_none_or(|protocols| protocols.split(' ').any(|word| word == version));
    let mut suites = if permits("TLSv1.3") { cipher_list::suites_of_tls13() } else { Vec::new() };
    if permits("TLSv1.2") {
        let text = ciphers.unwrap_or(DEFAULT);
        let list = cipher_list::parse(text);
        if list.suites.is_empty() {
            return Err(format!("{text:?} names no cipher suite that is supported"));
        }
        if let Some(unknown) = list.unknown_in_words() {
            reader.warn(CIPHERS, unknown, cipher_list::REMEDY);
        }
        suites.extend(list.suites);
    } else if ciphers.is_some() {
        let remedy = "remove it, or add TLSv1.2 to proxy-ssl-protocols";
        reader.note(CIPHERS, "proxy-ssl-protocols permits only TLS 1.3, whose ciphers no list names", remedy);
    }
    Ok(Some(suites.into()))
}

/// Which certificates are accepted.
fn trust(
    reader: &mut ValueReader<'_>,
    secret: &Object<Secret>,
    key: &ObjectKey,
    depth: Option<usize>,
    name: Option<&str>,
) -> Option<TlsTrust> {
    let Some(bundle) = secret.value("ca.crt") else {
        let message = format!("Secret {key} has no key ca.crt, which proxy-ssl-verify needs");
        reader.refuse(SECRET, &message, "add the key ca.crt, whose value is the PEM of the authority");
        return None;
    };
    let authorities = match ca_bundle::parse(bundle) {
        Ok(authorities) => authorities,
        Err(CaBundleProblem { predicate, remedy }) => {
            reader.refuse(SECRET, &format!("ca.crt of Secret {key} {predicate}"), remedy);
            return None;
        }
    };
    let Some(name) = name else {
        let message = "proxy-ssl-name is missing, and no certificate has the name that ingress-nginx would verify";
        reader.refuse("proxy-ssl-verify", message, "set proxy-ssl-name to a name in the certificate of the backend");
        return None;
    };
    let is_name = rustls::pki_types::DnsName::try_from(name).is_ok();
    let Some(server_name) = HeaderValue::from_str(name).ok().filter(|_| is_name) else {
        let message = format!("{name:?} is not the name of a host");
        reader.refuse("proxy-ssl-name", &message, "write a name without variables, such as backend.example");
        return None;
    };
    Some(TlsTrust {
        anchors: Arc::new(TrustAnchors::new(authorities)),
        max_intermediates: Some(depth.filter(|depth| *depth > 0).unwrap_or(VERIFY_DEPTH)),
        identity: Some(EndpointIdentity { server_name, alternatives: Box::default() }),
    })
}

const SECRET: &str = "proxy-ssl-secret";

/// The annotations that have an effect with `proxy-ssl-secret` only.
const DEPENDENT: [&str; 6] =
    [CIPHERS, "proxy-ssl-name", PROTOCOLS, "proxy-ssl-server-name", "proxy-ssl-verify", "proxy-ssl-verify-depth"];

const CIPHERS: &str = "proxy-ssl-ciphers";
const PROTOCOLS: &str = "proxy-ssl-protocols";
/// The list of OpenSSL without exceptions.
const DEFAULT: &str = "DEFAULT";

/// The number of intermediate certificates that nginx accepts.
const VERIFY_DEPTH: usize = 1;
