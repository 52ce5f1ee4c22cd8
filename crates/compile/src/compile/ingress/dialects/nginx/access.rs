//! Which clients may send requests to the paths of an Ingress: the configuration of the guard of addresses, passwords
//! and servers. What cannot be resolved is an error, because of which no request is forwarded.

use std::sync::Arc;

use serde_json::{Value, json};

use super::addresses::AddressLists;
use super::auth_server::AuthServerText;
use super::config_map::NginxConfig;
use super::referenced_objects::{object_key, report_missing};
use super::value_reader::{ValueReader, written};
use crate::api::Kind;
use crate::api::ingress_nginx::PREFIX;
use crate::compile::CompileContext;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::Diagnostic;
use crate::snapshot::host::HostPattern;

/// The kind of guard.
pub(super) const KIND: &str = "location-access";

/// What protects the paths of an Ingress.
#[derive(Debug, Default)]
pub(super) struct AccessSettings<'a> {
    addresses: AddressLists,
    /// The realm and the users, with the field of the configuration of their scheme.
    passwords: Option<(&'static str, Value)>,
    server: Option<AuthServerText<'a>>,
    /// The headers of the ConfigMap for requests to the server.
    server_headers: Vec<(String, String)>,
    any: bool,
}

impl<'a> AccessSettings<'a> {
    pub(super) fn read(cx: CompileContext<'_>, reader: &mut ValueReader<'a>, config: &'a NginxConfig) -> Self {
        let addresses = AddressLists::read(reader, config);
        let passwords = passwords(cx, reader, config);
        let own = AuthServerText::of_annotations(reader, config);
        let is_global = reader.flag("enable-global-auth", true);
        let global = config.global_auth.as_ref().filter(|_| is_global).map(AuthServerText::of_config_map);
        let server_headers = server_headers(cx, reader, config);
        AccessSettings {
            addresses,
            passwords,
            server: own.or(global.flatten()),
            server_headers,
            any: reader.text("satisfy").is_some_and(|text| text.trim() == "any"),
        }
    }

    /// Whether some clients may not send requests.
    pub(super) fn restricts(&self) -> bool {
        !self.addresses.is_empty() || self.passwords.is_some() || self.server.is_some()
    }

    /// Whether clients without a login are redirected.
    pub(super) fn redirects_to_login(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.sign_in_config().is_some())
    }

    /// The configuration for the paths of a host; `None` if nothing protects them. `asks`: whether clients have to log
    /// in, or a server decides.
    ///
    /// # Errors
    ///
    /// If the server cannot be known for this host.
    pub(super) fn config(&self, host: &HostPattern, asks: bool) -> Result<Option<Value>, Diagnostic> {
        let server = self.server.as_ref().filter(|_| asks);
        let passwords = self.passwords.as_ref().filter(|_| asks);
        if self.addresses.is_empty() && server.is_none() && passwords.is_none() {
            return Ok(None);
        }
        let AddressLists { denied, allowed } = &self.addresses;
        let mut addresses = json!({"denied": denied});
        if let Some(allowed) = allowed {
            addresses["allowed"] = json!(allowed);
        }
        let server_config = server.map(|server| server.config(host, &self.server_headers)).transpose()?;
        let sign_in = server.and_then(AuthServerText::sign_in_config);
        let mut config = json!({"addresses": addresses, "any": self.any});
        if let Some((scheme, users)) = passwords {
            config[scheme] = users.clone();
        }
        for (field, value) in [("server", server_config), ("sign_in", sign_in)] {
            if let Some(value) = value {
                config[field] = value;
            }
        }
        Ok(Some(config))
    }
}

/// A diagnostic about the configuration as one about the annotation that it comes from.
pub(super) fn about_annotation(problem: Diagnostic) -> Diagnostic {
    const FIELDS: [(&str, &str); 6] = [
        ("config.cache_key", "auth-cache-key"),
        ("config.headers", "auth-proxy-set-headers"),
        ("config.response_headers", "auth-response-headers"),
        ("config.sign_in", "auth-signin"),
        ("config.url", "auth-url"),
        ("config.users", "auth-secret"),
    ];
    let annotation = FIELDS.iter().find(|(field, _)| problem.field.starts_with(field));
    match annotation {
        Some((_, annotation)) => problem.at(annotation_field(&format!("{PREFIX}{annotation}"))),
        None => problem,
    }
}

/// The configuration of HTTP Basic or Digest authentication, and its field.
fn passwords(
    cx: CompileContext<'_>,
    reader: &mut ValueReader<'_>,
    config: &NginxConfig,
) -> Option<(&'static str, Value)> {
    if written(reader.meta, "auth-type").is_none() {
        reader.note_without(&["auth-realm", "auth-secret", "auth-secret-type"], "auth-type");
    }
    let kind = reader.text("auth-type")?;
    let realm = reader.text("auth-realm").unwrap_or_default();
    let is_map = reader.text("auth-secret-type").is_some_and(|text| text.trim() == "auth-map");
    let (scheme, program) = match kind.trim() {
        "basic" => ("passwords", "htpasswd"),
        "digest" => ("digest", "htdigest"),
        _ => {
            reader.refuse("auth-type", "only Basic and Digest authentication are supported", "write basic or digest");
            return None;
        }
    };
    let Some(secret) = reader.text("auth-secret") else {
        if written(reader.meta, "auth-secret").is_none() {
            let remedy = format!("set auth-secret to a Secret with the key auth, as {program} writes it");
            reader.refuse("auth-type", "auth-secret is missing", &remedy);
        }
        return None;
    };
    let key = object_key(reader, "auth-secret", secret, config)?;
    let Some(found) = cx.store.secrets.get(&key) else {
        report_missing(cx, reader, "auth-secret", Kind::Secret, &key);
        return None;
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let users = if is_map {
        let lines = found.values().map(|(user, hash)| format!("{user}:{}\n", text(hash).trim()));
        Some(lines.collect::<String>())
    } else {
        found.value("auth").map(text)
    };
    let Some(users) = users else {
        let message = format!("Secret {key} has no key auth");
        reader.refuse("auth-secret", &message, &format!("add the key auth, whose value is a file of {program}"));
        return None;
    };
    Some((scheme, json!({"realm": realm, "users": users})))
}

/// The headers that requests to the server get.
fn server_headers(cx: CompileContext<'_>, reader: &mut ValueReader<'_>, config: &NginxConfig) -> Vec<(String, String)> {
    // A missing ConfigMap of a server that is not asked does no harm.
    if written(reader.meta, "auth-url").is_none() {
        return Vec::new();
    }
    let Some(name) = reader.text("auth-proxy-set-headers") else { return Vec::new() };
    let Some(key) = object_key(reader, "auth-proxy-set-headers", name, config) else { return Vec::new() };
    let Some(found) = cx.store.config_maps.get(&key) else {
        report_missing(cx, reader, "auth-proxy-set-headers", Kind::ConfigMap, &key);
        return Vec::new();
    };
    found.data.iter().map(|(name, value)| (name.clone(), Arc::clone(value).to_string())).collect()
}
