//! Reads credentials from Secrets, whose type is in a label (docs/kong-compatibility.md, 3.7).
//!
//! Diagnostics never contain keys, passwords or usernames. These are used as they are, including a trailing newline.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER_PERMISSIVE;

use super::claim_conflicts::ConsumerClaim;
use super::oauth_client::OAuthClientFields;
use crate::api::core::Secret;
use crate::api::kong::annotations::CREDENTIAL_LABEL;
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::compile::objects::missing_object::missing_object;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::Consumer;
use crate::plugin_api::consumers::{
    BasicCredential, CertificateCredential, ConsumerDirectory, EntityId, HmacCredential, JwtCredential, KeyCredential,
    OAuthClient, Sha256Digest, StoredPassword, sha256,
};
use crate::plugin_api::password::{InvalidPasswordHash, PasswordHash, parse_htpasswd};
use crate::plugin_api::token::signature::{Algorithm, HmacSecret as TokenSecret, PublicKey, VerificationKey};
use crate::store::Store;

/// A credential of a consumer, as the directory stores it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Credential {
    Key(Arc<KeyCredential>),
    Basic(Arc<BasicCredential>),
    Hmac(Arc<HmacCredential>),
    Jwt(Arc<JwtCredential>),
    Certificate(Arc<CertificateCredential>),
    OAuthClient(Arc<OAuthClient>),
}

/// The content of a credential Secret.
pub(super) enum CredentialSecret<'s> {
    /// A group for access lists.
    Acl(Arc<str>),
    Credential(RawCredential<'s>),
    Htpasswd(Htpasswd),
    /// Ignored, as in Kong.
    Ignored,
}

/// The usernames of an htpasswd file, with their hashes, and its lines that cannot be used.
pub(super) struct Htpasswd {
    pub(super) entries: Vec<(Arc<str>, Arc<PasswordHash>)>,
    pub(super) problems: Vec<Diagnostic>,
}

pub(super) enum RawCredential<'s> {
    Key { digest: Sha256Digest, expires: Option<SystemTime> },
    Basic { username: Arc<str>, password: StoredPassword },
    Hmac { username: Arc<str>, secret: &'s [u8] },
    Jwt { claim: Arc<str>, key: VerificationKey },
    Certificate { subject: Arc<str> },
    OAuthClient(OAuthClientFields),
}

impl Credential {
    pub(super) fn new(id: EntityId, raw: RawCredential, consumer: &Arc<Consumer>) -> Self {
        let consumer = Arc::clone(consumer);
        match raw {
            RawCredential::Key { digest, expires } => {
                Credential::Key(Arc::new(KeyCredential::from_digest(id, digest, expires, consumer)))
            }
            RawCredential::Basic { username, password } => {
                Credential::Basic(Arc::new(BasicCredential::with_password(id, username, password, consumer)))
            }
            RawCredential::Hmac { username, secret } => {
                Credential::Hmac(Arc::new(HmacCredential::new(id, username, secret, consumer)))
            }
            RawCredential::Jwt { claim, key } => {
                Credential::Jwt(Arc::new(JwtCredential::new(id, claim, key, consumer)))
            }
            RawCredential::Certificate { subject } => {
                Credential::Certificate(Arc::new(CertificateCredential::new(id, subject, consumer)))
            }
            RawCredential::OAuthClient(OAuthClientFields { client_id, secret, redirect_uris }) => {
                let client_id = client_id.into();
                Credential::OAuthClient(Arc::new(OAuthClient { id, client_id, secret, redirect_uris, consumer }))
            }
        }
    }

    pub(super) fn id(&self) -> &EntityId {
        match self {
            Credential::Key(credential) => &credential.id,
            Credential::Basic(credential) => &credential.id,
            Credential::Hmac(credential) => &credential.id,
            Credential::Jwt(credential) => &credential.id,
            Credential::Certificate(credential) => &credential.id,
            Credential::OAuthClient(client) => &client.id,
        }
    }

    /// The username of basic-auth.
    pub(super) fn username(&self) -> Option<&str> {
        match self {
            Credential::Basic(credential) => Some(&credential.username),
            Credential::Key(_)
            | Credential::Hmac(_)
            | Credential::Jwt(_)
            | Credential::Certificate(_)
            | Credential::OAuthClient(_) => None,
        }
    }

    pub(super) fn claim(&self) -> ConsumerClaim {
        match self {
            Credential::Key(credential) => ConsumerClaim::ApiKey(credential.digest),
            Credential::Basic(credential) => ConsumerClaim::BasicAuthUsername(Arc::clone(credential.username.text())),
            Credential::Hmac(credential) => ConsumerClaim::HmacAuthUsername(Arc::clone(credential.username.text())),
            Credential::Jwt(credential) => ConsumerClaim::JwtKey(Arc::clone(credential.claim.text())),
            Credential::Certificate(credential) => {
                ConsumerClaim::CertificateSubject(Arc::clone(credential.subject.text()))
            }
            Credential::OAuthClient(client) => ConsumerClaim::OAuthClientId(Arc::clone(client.client_id.text())),
        }
    }

    pub(super) fn insert_into(&self, directory: &mut ConsumerDirectory) {
        match self {
            Credential::Key(credential) => directory.keys.insert(Arc::clone(credential)),
            Credential::Basic(credential) => directory.insert_password(Arc::clone(credential)),
            Credential::Hmac(credential) => directory.signers.insert(Arc::clone(credential)),
            Credential::Jwt(credential) => directory.tokens.insert(Arc::clone(credential)),
            Credential::Certificate(credential) => directory.certificates.insert(Arc::clone(credential)),
            Credential::OAuthClient(client) => directory.oauth_clients.insert(Arc::clone(client)),
        }
    }
}

/// Reads the credential in a Secret. `field` is the field of the consumer that refers to it.
pub(super) fn read_credential<'s>(
    store: &'s Store,
    key: &ObjectKey,
    field: &str,
) -> Result<CredentialSecret<'s>, Diagnostic> {
    let Some(secret) = store.secrets.get(key) else {
        return Err(missing_object(store, field, Kind::Secret, key));
    };
    let Some(kind) = secret.meta.labels.get(CREDENTIAL_LABEL) else {
        let message = format!("Secret {key} has no label {CREDENTIAL_LABEL}, so its credential type is unknown");
        let remedy = "set it to key-auth, basic-auth, hmac-auth, jwt, mtls-auth, oauth2 or acl";
        return Err(Diagnostic::error(field, message, remedy));
    };
    let reader = SecretReader { secret, key, field, kind };
    match &**kind {
        "key-auth" => {
            let digest = reader.key_digest()?;
            Ok(CredentialSecret::Credential(RawCredential::Key { digest, expires: reader.expires()? }))
        }
        "basic-auth" => reader.basic(),
        "hmac-auth" => {
            let (username, secret) = (reader.text("username")?, reader.bytes("secret")?);
            Ok(CredentialSecret::Credential(RawCredential::Hmac { username, secret }))
        }
        "jwt" => Ok(CredentialSecret::Credential(reader.jwt()?)),
        "mtls-auth" => Ok(CredentialSecret::Credential(reader.certificate()?)),
        "acl" => Ok(CredentialSecret::Acl(reader.text("group")?)),
        "konnect" => Ok(CredentialSecret::Ignored),
        "oauth2" => Ok(CredentialSecret::Credential(RawCredential::OAuthClient(reader.oauth_client()?))),
        other => {
            let message =
                format!("label {CREDENTIAL_LABEL} of Secret {key} has value {other:?}, which is not a credential type");
            Err(Diagnostic::error(
                field,
                message,
                "set it to key-auth, basic-auth, hmac-auth, jwt, mtls-auth, oauth2 or acl",
            ))
        }
    }
}

pub(super) struct SecretReader<'s, 'a> {
    pub(super) secret: &'s Object<Secret>,
    key: &'a ObjectKey,
    field: &'a str,
    kind: &'a str,
}

impl<'s> SecretReader<'s, '_> {
    pub(super) fn problem(&self, message: String, remedy: &str) -> Diagnostic {
        Diagnostic::error(self.field, format!("Secret {}: {message}", self.key), remedy)
    }

    pub(super) fn bytes(&self, name: &str) -> Result<&'s [u8], Diagnostic> {
        let value = self.secret.value(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| {
            let message = format!("{} credentials need {name}, which is missing or empty", self.kind);
            self.problem(message, "set it under stringData, or in base64 under data")
        })
    }

    pub(super) fn text(&self, name: &str) -> Result<Arc<str>, Diagnostic> {
        let bytes = self.bytes(name)?;
        let text =
            std::str::from_utf8(bytes).map_err(|_| self.problem(format!("{name} is not text"), "encode it in UTF-8"));
        text.map(Arc::from)
    }

    /// Which of these keys the Secret has. `None` if it has none of them; an error if it has several.
    pub(super) fn only(&self, names: &[&'static str]) -> Result<Option<&'static str>, Diagnostic> {
        let mut present = names.iter().copied().filter(|name| self.secret.value(name).is_some());
        match (present.next(), present.next()) {
            (Some(first), Some(second)) => {
                let message = format!("has {first} and {second}, and only one of them can be meant");
                Err(self.problem(message, "remove one of the two"))
            }
            (found, _) => Ok(found),
        }
    }

    /// The digest of the key, which the Secret contains as `key` or as its SHA-256.
    fn key_digest(&self) -> Result<Sha256Digest, Diagnostic> {
        let Some(name @ "key_sha256") = self.only(&["key", "key_sha256"])? else {
            return Ok(sha256(self.bytes("key")?));
        };
        let digits = self.text(name)?;
        parse_hex(digits.trim()).ok_or_else(|| {
            let message = format!("{name} is not the SHA-256 of a key in 64 hexadecimal digits");
            self.problem(message, "use the output of printf %s KEY | sha256sum, without the dash")
        })
    }

    /// One username with its password or a hash of it, or the lines of an htpasswd file.
    fn basic(&self) -> Result<CredentialSecret<'s>, Diagnostic> {
        let found = self.only(&["password", "password_hash", "htpasswd", ".htpasswd", "auth"])?;
        if let Some(name @ ("htpasswd" | ".htpasswd" | "auth")) = found {
            return self.htpasswd(name);
        }
        let username = self.text("username")?;
        let password = match found {
            Some(name @ "password_hash") => {
                let hash = PasswordHash::parse(self.text(name)?.trim());
                let hash =
                    hash.map_err(|error| self.problem(format!("{name}: {error}"), InvalidPasswordHash::REMEDY))?;
                StoredPassword::Hash(Arc::new(hash))
            }
            _ => StoredPassword::Digest(sha256(self.bytes("password")?)),
        };
        Ok(CredentialSecret::Credential(RawCredential::Basic { username, password }))
    }

    fn htpasswd(&self, name: &str) -> Result<CredentialSecret<'s>, Diagnostic> {
        if self.secret.value("username").is_some() {
            let message = format!("has username and {name}, whose lines have usernames of their own");
            return Err(self.problem(message, "remove username"));
        }
        let text = self.text(name)?;
        let (entries, invalid) = parse_htpasswd(&text);
        let problems = invalid.into_iter().take(MAX_LINE_PROBLEMS);
        let problems =
            problems.map(|line| self.problem(format!("{name}: {line}"), InvalidPasswordHash::REMEDY)).collect();
        let entries = entries.into_iter().map(|(username, hash)| (username.into(), Arc::new(hash))).collect();
        Ok(CredentialSecret::Htpasswd(Htpasswd { entries, problems }))
    }

    /// The expiry from the Secret's `ttl`, which is relative to the creation of the Secret so that a restart of Portico
    /// does not extend it.
    fn expires(&self) -> Result<Option<SystemTime>, Diagnostic> {
        if self.secret.value("ttl").is_none_or(<[u8]>::is_empty) {
            return Ok(None);
        }
        let text = self.text("ttl")?;
        let seconds: u64 = text.trim().parse().map_err(|_| {
            self.problem("ttl is not a number of seconds".to_owned(), "write it in digits, for example 3600")
        })?;
        let created = self.secret.meta.created.and_then(|created| u64::try_from(created).ok());
        let created = created.ok_or_else(|| {
            let message =
                "ttl is relative to the creation of the Secret, but metadata.creationTimestamp is missing".to_owned();
            self.problem(message, "remove ttl, or set the timestamp")
        })?;
        // A time that cannot be represented is treated as no expiry.
        Ok(SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(created.saturating_add(seconds))))
    }

    /// A name in certificates. A credential for certificates of one authority must not be one for those of all.
    fn certificate(&self) -> Result<RawCredential<'s>, Diagnostic> {
        if self.secret.value("ca_certificate").is_some_and(|id| !id.is_empty()) {
            let message = "ca_certificate is not supported, so this credential is ignored".to_owned();
            let remedy = "remove it; ca_certificates of the plugin lists the authorities";
            return Err(self.problem(message, remedy));
        }
        Ok(RawCredential::Certificate { subject: self.text("subject_name")? })
    }

    fn jwt(&self) -> Result<RawCredential<'s>, Diagnostic> {
        let claim = self.text("key")?;
        let algorithm_name =
            if self.secret.value("algorithm").is_some() { self.text("algorithm")? } else { "HS256".into() };
        let algorithm = Algorithm::parse(algorithm_name.trim()).ok_or_else(|| {
            let supported: Vec<_> = Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
            self.problem(
                format!("algorithm {algorithm_name:?} is not supported"),
                &format!("use one of {}", supported.join(", ")),
            )
        })?;
        let unusable = |key: &str, error: &dyn std::fmt::Display| {
            self.problem(
                format!("{key} cannot be used with {}: {error}", algorithm.name()),
                "correct it, or correct algorithm",
            )
        };
        let key = if algorithm.is_symmetric() {
            let secret = self.bytes("secret")?;
            VerificationKey::Secret(TokenSecret::new(algorithm, secret).map_err(|error| unusable("secret", &error))?)
        } else {
            let pem = self.bytes("rsa_public_key")?;
            VerificationKey::Public(
                PublicKey::from_pem(algorithm, pem).map_err(|error| unusable("rsa_public_key", &error))?,
            )
        };
        Ok(RawCredential::Jwt { claim, key })
    }
}

/// How many lines of one file are reported.
const MAX_LINE_PROBLEMS: usize = 8;

/// Whether a credential that cannot be read may be a group: its Secret exists and is unknown, its label is missing or
/// not valid, or it is one of a group.
pub(super) fn may_be_group(store: &Store, key: &ObjectKey) -> bool {
    let Some(secret) = store.secrets.get(key) else {
        let id = ObjectId::new(Kind::Secret, key.clone());
        let is_withheld = [store.unfetched(), store.forbidden()].iter().any(|withheld| withheld.contains(&id));
        return is_withheld || store.is_rejected(&id) || store.oversized.contains_key(&id);
    };
    let others = ["key-auth", "basic-auth", "hmac-auth", "jwt", "mtls-auth", "oauth2", "konnect"];
    secret.meta.labels.get(CREDENTIAL_LABEL).is_none_or(|label| !others.contains(&&**label))
}

fn parse_hex(digits: &str) -> Option<Sha256Digest> {
    HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::store::{AnyObject, Batch};

    #[test]
    fn credentials_without_a_known_type_may_be_groups() {
        let secret = |name: &str, label: Option<&str>| {
            let labels = label.map_or(json!({}), |label| json!({ CREDENTIAL_LABEL: label }));
            let secret =
                json!({"metadata": {"namespace": "a", "name": name, "labels": labels}, "stringData": {"a": "b"}});
            AnyObject::parse(crate::api::Kind::Secret, secret).unwrap()
        };
        let upserts = vec![
            secret("key", Some("key-auth")),
            secret("group", Some("acl")),
            secret("misspelled", Some("alc")),
            secret("without", None),
        ];
        let mut store = Store::default();
        store.apply(Batch { upserts, removes: Vec::new() });
        store
            .set_unfetched(BTreeSet::from([ObjectId::new(Kind::Secret, ObjectKey::new("a", "late"))]), BTreeSet::new());
        for (name, expected) in [
            ("late", true),
            ("key", false),
            ("group", true),
            ("misspelled", true),
            ("without", true),
            ("missing", false),
        ] {
            assert_eq!(may_be_group(&store, &ObjectKey::new("a", name)), expected, "{name}");
        }
    }

    // docs/kong-compatibility.md, 3.7
    // docs/kong-compatibility.md, 7.29
    #[test]
    fn trailing_newlines_belong_to_the_value() {
        let secret = |name: &str, kind: &str, data: serde_json::Value| {
            json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"namespace": "a", "name": name, "labels": {CREDENTIAL_LABEL: kind}},
                "stringData": data,
            })
        };
        let secrets = [
            secret("key", "key-auth", json!({"key": "k\n"})),
            secret("login", "basic-auth", json!({"username": "ann\n", "password": "p\n"})),
            secret("group", "acl", json!({"group": "staff\n"})),
        ];
        let mut store = Store::default();
        let upserts = secrets.into_iter().map(|secret| AnyObject::parse(crate::api::Kind::Secret, secret).unwrap());
        store.apply(Batch { upserts: upserts.collect(), removes: Vec::new() });
        let read = |name| {
            read_credential(&store, &ObjectKey::new("a", name), "credentials[0]")
                .unwrap_or_else(|problem| panic!("{problem}"))
        };
        assert!(matches!(read("key"), CredentialSecret::Credential(RawCredential::Key { digest, .. })
            if digest == sha256(b"k\n")));
        let login = read("login");
        assert!(matches!(login, CredentialSecret::Credential(RawCredential::Basic { username, password })
            if &*username == "ann\n" && password == StoredPassword::Digest(sha256(b"p\n"))));
        assert!(matches!(read("group"), CredentialSecret::Acl(group) if &*group == "staff\n"));
    }

    // docs/kong-compatibility.md, 3.7
    #[test]
    fn required_and_optional_fields_per_credential_type() {
        const CREATED: &str = "2026-01-01T00:00:00Z";
        let seconds_since_epoch = |second: u64| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
        let parsed = |data: &str| serde_json::from_str::<serde_json::Value>(data).unwrap();
        type Expected = Result<&'static str, &'static str>;
        let hash = |hash: &str| format!(r#"{{"username": "a", "password_hash": "{hash}"}}"#);
        let (sha1, costly) = (
            hash("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="),
            hash("$2y$15$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"),
        );
        let digest = format!(r#"{{"key_sha256": "{}\n"}}"#, "0aF9".repeat(16));
        let cases: [(&str, &str, Expected); 39] = [
            ("key-auth", r#"{"key": "k"}"#, Ok("key without expiry")),
            ("key-auth", r#"{"key": "k", "ttl": "60"}"#, Ok("key with expiry")),
            ("key-auth", r#"{"key": "k", "ttl": ""}"#, Ok("key without expiry")),
            ("key-auth", r#"{"key": "k", "ttl": "1h"}"#, Err("ttl is not a number of seconds")),
            ("key-auth", "{}", Err("key-auth credentials need key, which is missing or empty")),
            ("key-auth", r#"{"key": ""}"#, Err("key-auth credentials need key, which is missing or empty")),
            ("key-auth", &digest, Ok("key without expiry")),
            ("key-auth", r#"{"key_sha256": "0af9"}"#, Err("key_sha256 is not the SHA-256 of a key in 64 hexadecimal")),
            ("key-auth", r#"{"key": "k", "key_sha256": "0af9"}"#, Err("has key and key_sha256, and only one of them")),
            ("basic-auth", r#"{"username": "a", "password": "b"}"#, Ok("login")),
            ("basic-auth", &sha1, Ok("login with hash")),
            ("basic-auth", &costly, Err("password_hash: the cost of the bcrypt hash is 15, and the highest is 14")),
            ("basic-auth", r#"{"username": "a", "password_hash": "b"}"#, Err("password_hash: the format of the hash")),
            ("basic-auth", r#"{"username": "a", "password": "b", "password_hash": "c"}"#, Err("has password and pass")),
            ("basic-auth", r#"{"auth": "a:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\nb:c\n"}"#, Ok("1 lines, 1 problems")),
            ("basic-auth", r#"{".htpasswd": "a:b", "username": "a"}"#, Err("has username and .htpasswd")),
            ("basic-auth", r#"{"htpasswd": ""}"#, Err("basic-auth credentials need htpasswd")),
            ("basic-auth", r#"{"username": "a"}"#, Err("basic-auth credentials need password")),
            ("basic-auth", r#"{"password": "b"}"#, Err("basic-auth credentials need username")),
            ("jwt", r#"{"key": "a", "secret": "s"}"#, Ok("HS256")),
            ("jwt", r#"{"key": "a", "secret": "s", "algorithm": "HS512"}"#, Ok("HS512")),
            ("jwt", r#"{"key": "a"}"#, Err("jwt credentials need secret")),
            ("jwt", r#"{"secret": "s"}"#, Err("jwt credentials need key")),
            ("jwt", r#"{"key": "a", "secret": "s", "algorithm": "RS256"}"#, Err("need rsa_public_key")),
            (
                "jwt",
                r#"{"key": "a", "rsa_public_key": "p", "algorithm": "ES256"}"#,
                Err("rsa_public_key cannot be used"),
            ),
            ("jwt", r#"{"key": "a", "secret": "s", "algorithm": "none"}"#, Err("algorithm \"none\" is not supported")),
            ("acl", r#"{"group": "staff"}"#, Ok("group staff")),
            ("acl", "{}", Err("acl credentials need group")),
            ("konnect", r#"{"any": "thing"}"#, Ok("nothing")),
            ("hmac-auth", r#"{"username": "a", "secret": "b"}"#, Ok("signer")),
            ("hmac-auth", r#"{"username": "a"}"#, Err("hmac-auth credentials need secret, which is missing or empty")),
            ("hmac-auth", r#"{"secret": "a"}"#, Err("hmac-auth credentials need username, which is missing or empty")),
            ("oauth2", r#"{"name": "a", "client_id": "b", "client_secret": "c"}"#, Ok("client b")),
            ("oauth2", r#"{"name": "a", "client_id": "b"}"#, Err("oauth2 credentials need client_secret")),
            ("oauth2", "{}", Err("oauth2 credentials need name")),
            ("mtls-auth", r#"{"subject_name": "a"}"#, Ok("subject a")),
            ("mtls-auth", "{}", Err("mtls-auth credentials need subject_name")),
            ("mtls-auth", r#"{"subject_name": "a", "ca_certificate": "b"}"#, Err("ca_certificate is not supported")),
            ("password", "{}", Err("has value \"password\", which is not a credential type")),
        ];
        for (kind, data, expected) in cases {
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {
                    "namespace": "a", "name": "s", "labels": {CREDENTIAL_LABEL: kind}, "creationTimestamp": CREATED,
                },
                "stringData": parsed(data),
            });
            let mut store = Store::default();
            let upserts = vec![AnyObject::parse(crate::api::Kind::Secret, secret).unwrap()];
            store.apply(Batch { upserts, removes: Vec::new() });
            let found = read_credential(&store, &ObjectKey::new("a", "s"), "credentials[0]");
            let found = found.map(|read| match read {
                CredentialSecret::Credential(RawCredential::Key { expires: None, .. }) => {
                    "key without expiry".to_owned()
                }
                // 60 seconds after the creation of the Secret.
                CredentialSecret::Credential(RawCredential::Key { expires, .. })
                    if expires == seconds_since_epoch(1_767_225_660) =>
                {
                    "key with expiry".to_owned()
                }
                CredentialSecret::Credential(RawCredential::Key { expires, .. }) => {
                    format!("key that expires at {expires:?}")
                }
                CredentialSecret::Credential(RawCredential::Basic { password: StoredPassword::Digest(_), .. }) => {
                    "login".to_owned()
                }
                CredentialSecret::Credential(RawCredential::Basic { .. }) => "login with hash".to_owned(),
                CredentialSecret::Credential(RawCredential::Hmac { .. }) => "signer".to_owned(),
                CredentialSecret::Htpasswd(htpasswd) => {
                    format!("{} lines, {} problems", htpasswd.entries.len(), htpasswd.problems.len())
                }
                CredentialSecret::Credential(RawCredential::Jwt { key, .. }) => key.algorithm().name().to_owned(),
                CredentialSecret::Credential(RawCredential::Certificate { subject }) => format!("subject {subject}"),
                CredentialSecret::Credential(RawCredential::OAuthClient(client)) => {
                    format!("client {}", client.client_id)
                }
                CredentialSecret::Acl(group) => format!("group {group}"),
                CredentialSecret::Ignored => "nothing".to_owned(),
            });
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{kind} {data}"),
                (Err(problem), Err(expected)) => {
                    assert!(problem.message.contains(expected), "{kind} {data}: {problem}");
                    assert_eq!(problem.field, "credentials[0]", "{kind} {data}");
                }
                (found, expected) => {
                    panic!("{kind} {data}: {:?}, not {expected:?}", found.map_err(|problem| problem.to_string()))
                }
            }
        }
    }
}
