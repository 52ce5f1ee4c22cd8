//! `key-auth`: a key in a header, the query or the body says who is asking.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: keys
//! plugin: key-auth
//! config:
//!   key_names: [apikey]
//!   hide_credentials: true
//! ```
//!
//! Keys are Secrets labeled `konghq.com/credential: key-auth`, which a KongConsumer lists. They are found by their digest, so
//! how long the search takes tells nothing about them.

use std::cell::LazyCell;

use http::{HeaderName, HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugin::authentication::{Gate, IdentityRealm, Shown, challenge, header_name};
use crate::plugin::consumers::{Digest, digest_of};
use crate::plugin::fields::{Fields, Form, Found, remove_from_query};
use crate::plugin::kind::{BuildCx, Invalid, Kind, Phases, Scopes};
use crate::plugin::{Outcome, Plugin, Reply, RequestCx};

/// Lets in who shows a key of a consumer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Where keys are looked for, in order: names of headers, of parameters of the query and of fields of the body. Letters,
    /// digits, `-` and `_`. A header is also found if it has `-` where the name has `_`.
    key_names: Vec<String>,
    /// Whether the endpoint does not get to see keys: those fields are removed from headers and query, also where no keys are
    /// looked for, and from a body that is searched.
    hide_credentials: bool,
    /// Id or username of the consumer in whose name requests without a valid key go on. Without it they are refused.
    anonymous: Option<String>,
    /// Whether headers are searched.
    key_in_header: bool,
    /// Whether the query is searched.
    key_in_query: bool,
    /// Whether bodies are searched, of the types `application/x-www-form-urlencoded`, `multipart/form-data` and
    /// `application/json`. Bodies are held back for it; one larger than 1 MiB is answered 413.
    key_in_body: bool,
    /// Whether OPTIONS requests need a key too.
    run_on_preflight: bool,
    /// What the client is told that the key is for, in `WWW-Authenticate`.
    realm: Option<String>,
    /// Where consumers are kept. Only those of this cluster are known here.
    identity_realms: Vec<IdentityRealm>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            key_names: vec!["apikey".to_owned()],
            hide_credentials: false,
            anonymous: None,
            key_in_header: true,
            key_in_query: true,
            key_in_body: false,
            run_on_preflight: true,
            realm: None,
            identity_realms: Vec::new(),
        }
    }
}

/// Bytes of a body that is searched.
const LARGEST_BODY: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct KeyAuth {
    names: Box<[KeyName]>,
    gate: Gate,
    challenge: HeaderValue,
    hides: bool,
    in_header: bool,
    in_query: bool,
    in_body: bool,
}

#[derive(Debug)]
struct KeyName {
    name: Box<str>,
    header: HeaderName,
    /// `api-key` for `api_key`: Kong finds that one too.
    dashed: Option<HeaderName>,
}

impl Kind for KeyAuth {
    const NAME: &'static str = "key-auth";
    const PRIORITY: i32 = 1250;
    const PHASES: Phases = Phases::ACCESS;
    const GUARD: bool = true;
    const SCOPES: Scopes = Scopes::FOR_EVERYBODY;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Invalid>> {
        let mut invalid = Vec::new();
        let mut names = Vec::new();
        for (at, name) in config.key_names.into_iter().enumerate() {
            names.extend(KeyName::new(at, name).map_err(|error| invalid.push(error)));
        }
        if names.is_empty() && invalid.is_empty() {
            invalid.push(Invalid::new("key_names", "is empty", "name at least one field, for example `apikey`"));
        }
        if !(config.key_in_header || config.key_in_query || config.key_in_body) {
            let remedy = "set at least one of key_in_header, key_in_query and key_in_body";
            invalid.push(Invalid::new("", "says that keys are nowhere", remedy));
        }
        let gate = Gate::new(config.anonymous, config.run_on_preflight).map_err(|error| invalid.push(error));
        let challenge = challenge("Key", config.realm.as_deref(), "").map_err(|error| invalid.push(error));
        let (Ok(gate), Ok(challenge), []) = (gate, challenge, &invalid[..]) else { return Err(invalid) };
        Ok(KeyAuth {
            names: names.into(),
            gate,
            challenge,
            hides: config.hide_credentials,
            in_header: config.key_in_header,
            in_query: config.key_in_query,
            in_body: config.key_in_body,
        })
    }
}

impl KeyName {
    fn new(at: usize, name: String) -> Result<Self, Invalid> {
        let path = format!("key_names[{at}]");
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let header = header_name(&path, if is_plain { &name } else { "" }).map_err(|_| {
            Invalid::new(&path, format!("`{name}` is no name of a key"), "use letters, digits, `-` and `_` only")
        })?;
        let dashed = name.contains('_').then(|| header_name(&path, &name.replace('_', "-"))).transpose()?;
        Ok(KeyName { name: name.into(), header, dashed })
    }
}

impl Plugin for KeyAuth {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> Outcome<'a> {
        if self.gate.is_open(cx) {
            return Outcome::Next;
        }
        let shown = self.shown(cx);
        if self.hides {
            self.hide(cx);
        }
        let consumers = cx.consumers;
        let known = shown.and_then(|digest| {
            let known = consumers.keys.get(digest).ok_or(WRONG_KEY)?;
            if known.expires.is_some_and(|expires| expires <= cx.now) { Err(WRONG_KEY) } else { Ok(known) }
        });
        let reply = match known {
            Ok(known) => {
                let (consumer, identifier) = (Some(&known.consumer), Some(known.id.header()));
                self.gate.admit(cx, Shown { consumer, credential: &known.id, identifier });
                None
            }
            Err((message, reason)) => self.gate.turn_away(cx, || {
                let reply = Reply::negotiated(StatusCode::UNAUTHORIZED, message, reason);
                reply.with(header::WWW_AUTHENTICATE, self.challenge.clone())
            }),
        };
        reply.map_or(Outcome::Next, Outcome::Reply)
    }

    fn reads_body(&self) -> Option<usize> {
        self.in_body.then_some(LARGEST_BODY)
    }
}

/// A message, and the word for logs.
type Refused = (&'static str, &'static str);

const NO_KEY: Refused = ("No API key found in request", "no_credentials");
const SEVERAL_KEYS: Refused = ("Duplicate API key found", "several_credentials");
const WRONG_KEY: Refused = ("Unauthorized", "wrong_credentials");

impl KeyAuth {
    /// The digest of the first key there is.
    fn shown(&self, cx: &RequestCx<'_>) -> Result<Digest, Refused> {
        let query = Form(cx.query.filter(|_| self.in_query).unwrap_or_default().as_bytes());
        let body = LazyCell::new(|| self.fields(cx));
        for name in &self.names {
            let mut found = if self.in_header { name.in_header(cx) } else { Found::Nothing };
            if !matches!(found, Found::One(_) | Found::Many) && self.in_query {
                found = query.find(name.name.as_bytes());
            }
            if !matches!(found, Found::One(_) | Found::Many)
                && let Some(body) = &*body
            {
                found = body.find(&name.name);
            }
            match found {
                Found::Nothing | Found::NoText => {}
                Found::One(key) if key.is_empty() => return Err(NO_KEY),
                Found::One(key) => return Ok(digest_of(&key)),
                Found::Many => return Err(SEVERAL_KEYS),
            }
        }
        Err(NO_KEY)
    }

    fn fields<'c>(&self, cx: &'c RequestCx<'_>) -> Option<Fields<'c>> {
        let body = cx.current_body().filter(|_| self.in_body)?;
        Fields::read(&cx.head.headers, body)
    }

    /// Removes every key from wherever one could stand, also one that was not looked at. A body is there only if it is
    /// searched.
    fn hide(&self, cx: &mut RequestCx<'_>) {
        let is_key = |name: &[u8]| self.names.iter().any(|known| known.name.as_bytes() == name);
        for name in &self.names {
            cx.head.headers.remove(&name.header);
            if let Some(dashed) = &name.dashed {
                cx.head.headers.remove(dashed);
            }
        }
        remove_from_query(cx.head, is_key);
        if let Some(rest) = self.fields(cx).and_then(|fields| fields.without(is_key)) {
            cx.write_body(rest.into());
        }
    }
}

impl KeyName {
    fn in_header<'c>(&self, cx: &'c RequestCx<'_>) -> Found<'c> {
        let found = Found::of_header(&cx.head.headers, &self.header);
        match &self.dashed {
            Some(dashed) if found == Found::Nothing => Found::of_header(&cx.head.headers, dashed),
            _ => found,
        }
    }
}

#[cfg(test)]
mod tests;
