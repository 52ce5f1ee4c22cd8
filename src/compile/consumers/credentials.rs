//! Credentials: Secrets whose label says what they hold (`kong-compat.md` §3.7).
//!
//! No message repeats a value. Values are taken as they are, also with a newline at the end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::verdict::Problem;
use super::claims::Claim;
use crate::api::core::Secret;
use crate::api::kong::annotations::CREDENTIAL_LABEL;
use crate::api::{Object, ObjectKey};
use crate::plugin::Consumer;
use crate::plugin::consumers::{BasicCredential, Directory, Id, JwtCredential, KeyCredential};
use crate::plugin::signature::{Algorithm, Key, PublicKey, Secret as TokenSecret};
use crate::store::Store;

/// A credential of a consumer, ready for the directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Credential {
    Key(Arc<KeyCredential>),
    Basic(Arc<BasicCredential>),
    Jwt(Arc<JwtCredential>),
}

/// What a Secret holds.
pub(super) enum Read<'s> {
    /// A group for access lists.
    Acl(Arc<str>),
    Credential(Raw<'s>),
    /// It means nothing here, as in Kong.
    Ignored,
}

pub(super) enum Raw<'s> {
    Key { key: &'s [u8], expires: Option<SystemTime> },
    Basic { username: Arc<str>, password: &'s [u8] },
    Jwt { claim: Arc<str>, key: Key },
}

impl Credential {
    pub(super) fn new(id: Id, raw: Raw, consumer: &Arc<Consumer>) -> Self {
        let consumer = Arc::clone(consumer);
        match raw {
            Raw::Key { key, expires } => Credential::Key(Arc::new(KeyCredential::new(id, key, expires, consumer))),
            Raw::Basic { username, password } => {
                Credential::Basic(Arc::new(BasicCredential::new(id, username, password, consumer)))
            }
            Raw::Jwt { claim, key } => Credential::Jwt(Arc::new(JwtCredential::new(id, claim, key, consumer))),
        }
    }

    pub(super) fn id(&self) -> &Id {
        match self {
            Credential::Key(made) => &made.id,
            Credential::Basic(made) => &made.id,
            Credential::Jwt(made) => &made.id,
        }
    }

    pub(super) fn claim(&self) -> Claim {
        match self {
            Credential::Key(made) => Claim::Key(made.digest),
            Credential::Basic(made) => Claim::Login(Arc::clone(made.username.text())),
            Credential::Jwt(made) => Claim::Token(Arc::clone(made.claim.text())),
        }
    }

    pub(super) fn enter(&self, directory: &mut Directory) {
        match self {
            Credential::Key(made) => directory.keys.insert(Arc::clone(made)),
            Credential::Basic(made) => directory.passwords.insert(Arc::clone(made)),
            Credential::Jwt(made) => directory.tokens.insert(Arc::clone(made)),
        }
    }
}

/// `field` is where the consumer names the Secret.
pub(super) fn read<'s>(store: &'s Store, key: &ObjectKey, field: &str) -> Result<Read<'s>, Problem> {
    let Some(secret) = store.secrets.get(key) else {
        let message = format!("Secret {key} does not exist");
        return Err(Problem::new(field, message, "create it or correct the name"));
    };
    let Some(kind) = secret.meta.labels.get(CREDENTIAL_LABEL) else {
        let message = format!("Secret {key} has no label {CREDENTIAL_LABEL}, so it is not known what it holds");
        let remedy = "set it to key-auth, basic-auth, jwt or acl";
        return Err(Problem::new(field, message, remedy));
    };
    let holder = Holder { secret, key, field, kind };
    match &**kind {
        "key-auth" => {
            let value = holder.bytes("key")?;
            Ok(Read::Credential(Raw::Key { key: value, expires: holder.expires()? }))
        }
        "basic-auth" => {
            let username = holder.text("username")?;
            Ok(Read::Credential(Raw::Basic { username, password: holder.bytes("password")? }))
        }
        "jwt" => Ok(Read::Credential(holder.jwt()?)),
        "acl" => Ok(Read::Acl(holder.text("group")?)),
        "konnect" => Ok(Read::Ignored),
        known @ ("hmac-auth" | "oauth2" | "mtls-auth") => {
            let message = format!("credentials of type {known} are not served by this version, so it admits nobody");
            Err(Problem::new(field, message, "use key-auth, basic-auth or jwt"))
        }
        other => {
            let message =
                format!("label {CREDENTIAL_LABEL} of Secret {key} says {other:?}, which is no type of credential");
            Err(Problem::new(field, message, "set it to key-auth, basic-auth, jwt or acl"))
        }
    }
}

struct Holder<'s, 'a> {
    secret: &'s Object<Secret>,
    key: &'a ObjectKey,
    field: &'a str,
    kind: &'a str,
}

impl<'s> Holder<'s, '_> {
    fn problem(&self, message: String, remedy: &str) -> Problem {
        Problem::new(self.field, format!("Secret {}: {message}", self.key), remedy)
    }

    fn bytes(&self, name: &str) -> Result<&'s [u8], Problem> {
        let value = self.secret.value(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| {
            let message = format!("{} credentials need {name}, which is missing or empty", self.kind);
            self.problem(message, "set it under stringData, or in base64 under data")
        })
    }

    fn text(&self, name: &str) -> Result<Arc<str>, Problem> {
        let bytes = self.bytes(name)?;
        let text =
            std::str::from_utf8(bytes).map_err(|_| self.problem(format!("{name} is not text"), "write it in UTF-8"));
        text.map(Arc::from)
    }

    /// Counted from when the Secret was made, so that a restart gives nobody more time.
    fn expires(&self) -> Result<Option<SystemTime>, Problem> {
        if self.secret.value("ttl").is_none_or(<[u8]>::is_empty) {
            return Ok(None);
        }
        let text = self.text("ttl")?;
        let seconds: u64 = text.trim().parse().map_err(|_| {
            self.problem("ttl is no number of seconds".to_owned(), "write it in digits, for example 3600")
        })?;
        let made = self.secret.meta.created.and_then(|created| u64::try_from(created).ok());
        let made = made.ok_or_else(|| {
            let message = "ttl is counted from when the Secret was made, which is not known here".to_owned();
            self.problem(message, "remove ttl, or set metadata.creationTimestamp")
        })?;
        // A time too far away to be written down never comes.
        Ok(SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(made.saturating_add(seconds))))
    }

    fn jwt(&self) -> Result<Raw<'s>, Problem> {
        let claim = self.text("key")?;
        let named = if self.secret.value("algorithm").is_some() { self.text("algorithm")? } else { "HS256".into() };
        let algorithm = Algorithm::named(named.trim()).ok_or_else(|| {
            let known: Vec<_> = Algorithm::ALL.iter().map(|known| known.name()).collect();
            self.problem(format!("algorithm {named:?} is not known"), &format!("use one of {}", known.join(", ")))
        })?;
        let wrong = |part: &str, error: &dyn std::fmt::Display| {
            self.problem(
                format!("{part} cannot be used with {}: {error}", algorithm.name()),
                "correct it, or algorithm",
            )
        };
        let key = if algorithm.is_symmetric() {
            let secret = self.bytes("secret")?;
            Key::Secret(TokenSecret::new(algorithm, secret).map_err(|error| wrong("secret", &error))?)
        } else {
            let pem = self.bytes("rsa_public_key")?;
            Key::Public(PublicKey::from_pem(algorithm, pem).map_err(|error| wrong("rsa_public_key", &error))?)
        };
        Ok(Raw::Jwt { claim, key })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::{AnyObject, Batch};

    // kong-compat §3.7
    // kong-compat §7.29
    #[test]
    fn values_are_taken_with_the_newline_at_their_end() {
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
            read(&store, &ObjectKey::new("a", name), "credentials[0]").unwrap_or_else(|problem| panic!("{problem}"))
        };
        assert!(matches!(read("key"), Read::Credential(Raw::Key { key, .. }) if key == b"k\n"));
        let login = read("login");
        assert!(matches!(login, Read::Credential(Raw::Basic { username, password })
            if &*username == "ann\n" && password == b"p\n"));
        assert!(matches!(read("group"), Read::Acl(group) if &*group == "staff\n"));
    }

    // kong-compat §3.7
    #[test]
    fn what_each_type_needs_and_may_have() {
        const CREATED: &str = "2026-01-01T00:00:00Z";
        let at = |second: u64| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
        let parsed = |data: &str| serde_json::from_str::<serde_json::Value>(data).unwrap();
        type Expected = Result<&'static str, &'static str>;
        let cases: [(&str, &str, Expected); 23] = [
            ("key-auth", r#"{"key": "k"}"#, Ok("key that stays")),
            ("key-auth", r#"{"key": "k", "ttl": "60"}"#, Ok("key that ends")),
            ("key-auth", r#"{"key": "k", "ttl": ""}"#, Ok("key that stays")),
            ("key-auth", r#"{"key": "k", "ttl": "1h"}"#, Err("ttl is no number of seconds")),
            ("key-auth", "{}", Err("key-auth credentials need key, which is missing or empty")),
            ("key-auth", r#"{"key": ""}"#, Err("key-auth credentials need key, which is missing or empty")),
            ("basic-auth", r#"{"username": "a", "password": "b"}"#, Ok("login")),
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
            ("jwt", r#"{"key": "a", "secret": "s", "algorithm": "none"}"#, Err("algorithm \"none\" is not known")),
            ("acl", r#"{"group": "staff"}"#, Ok("group staff")),
            ("acl", "{}", Err("acl credentials need group")),
            ("konnect", r#"{"any": "thing"}"#, Ok("nothing")),
            ("hmac-auth", r#"{"username": "a", "secret": "b"}"#, Err("type hmac-auth are not served by this version")),
            ("oauth2", "{}", Err("type oauth2 are not served by this version")),
            ("mtls-auth", "{}", Err("type mtls-auth are not served by this version")),
            ("password", "{}", Err("says \"password\", which is no type of credential")),
        ];
        for (kind, data, expected) in cases {
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"namespace": "a", "name": "s", "labels": {CREDENTIAL_LABEL: kind}, "creationTimestamp": CREATED},
                "stringData": parsed(data),
            });
            let mut store = Store::default();
            let upserts = vec![AnyObject::parse(crate::api::Kind::Secret, secret).unwrap()];
            store.apply(Batch { upserts, removes: Vec::new() });
            let found = read(&store, &ObjectKey::new("a", "s"), "credentials[0]");
            let found = found.map(|read| match read {
                Read::Credential(Raw::Key { expires: None, .. }) => "key that stays".to_owned(),
                // So long after the Secret was made.
                Read::Credential(Raw::Key { expires, .. }) if expires == at(1_767_225_660) => {
                    "key that ends".to_owned()
                }
                Read::Credential(Raw::Key { expires, .. }) => format!("key that ends at {expires:?}"),
                Read::Credential(Raw::Basic { .. }) => "login".to_owned(),
                Read::Credential(Raw::Jwt { key, .. }) => key.algorithm().name().to_owned(),
                Read::Acl(group) => format!("group {group}"),
                Read::Ignored => "nothing".to_owned(),
            });
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{kind} {data}"),
                (Err(problem), Err(expected)) => {
                    assert!(problem.message.contains(expected), "{kind} {data}: {problem}");
                    assert_eq!(problem.field, "credentials[0]", "{kind} {data}");
                }
                (found, expected) => {
                    panic!("{kind} {data}: {:?}, not {expected:?}", found.map_err(|it| it.to_string()))
                }
            }
        }
    }
}
