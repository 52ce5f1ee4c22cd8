//! A kind of plugin: its name, its place in the order, its configuration, and how one is built from that.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use schemars::{JsonSchema, Schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{Plugin, Services, State};
use crate::upstream::NoBackend;

/// One file in `plugins/` implements this once.
pub trait Kind: Send + Sync + 'static {
    /// As `plugin:` of a KongPlugin says it.
    const NAME: &'static str;
    /// Kong's: higher ones run first.
    const PRIORITY: i32;
    const PHASES: Phases;
    /// Whether requests must not be served without it. One that cannot be built then answers 503 in its place; any other is
    /// left out, and a condition says so.
    const GUARD: bool;
    const SCOPES: Scopes = Scopes::ALL;
    /// For which requests it runs unless `protocols:` names only some of these.
    const PROTOCOLS: &'static [&'static str] = HTTP_FAMILY;
    /// Closed, with a default for every field that has one; its doc comments are the reference page.
    type Config: DeserializeOwned + JsonSchema;
    type Plugin: Plugin;

    /// Everything that can be decided before a request comes. What is refused names a path below `config`.
    fn build(config: Self::Config, cx: &BuildCx<'_>) -> Result<Self::Plugin, Vec<Invalid>>;
}

pub const HTTP_FAMILY: &[&str] = &["grpc", "grpcs", "http", "https"];

/// When a plugin takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    pub access: bool,
    pub answer: bool,
    pub log: bool,
}

impl Phases {
    pub const ACCESS: Phases = Phases { access: true, answer: false, log: false };
    pub const ACCESS_AND_ANSWER: Phases = Phases { access: true, answer: true, log: false };
    pub const LOG: Phases = Phases { access: false, answer: false, log: true };
}

/// What a plugin can be attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes {
    pub consumer: bool,
    pub consumer_group: bool,
    pub route: bool,
    pub service: bool,
    pub global: bool,
}

impl Scopes {
    pub const ALL: Scopes = Scopes { consumer: true, consumer_group: true, route: true, service: true, global: true };
    /// Those that compare who is asking with a list.
    pub const NO_CONSUMER: Scopes = Scopes { consumer: false, ..Scopes::ALL };
    /// Those that find out who is asking, or run before anybody knows, cannot depend on it: for some people only they would
    /// run for nobody.
    pub const FOR_EVERYBODY: Scopes = Scopes { consumer_group: false, ..Scopes::NO_CONSUMER };
}

/// What a plugin may use when it is built.
#[derive(Clone, Copy)]
pub struct BuildCx<'a> {
    /// Of the object with the configuration, for example `KongPlugin/default/limit`. A key for [`State`] begins with it.
    pub object: &'a str,
    pub state: &'a State,
    pub services: &'a Arc<dyn Services>,
    /// The name of this process among its replicas.
    pub node: &'a str,
    /// What is said about a configuration that is good all the same.
    pub notes: &'a Notes,
}

impl BuildCx<'_> {
    /// Tells whoever wrote this configuration something about it, although it is in effect.
    pub fn note(&self, note: Invalid) {
        self.notes.0.borrow_mut().push(note);
    }

    /// Why no server can be asked at this host, which is what the field says or part of it. What a name leads to is
    /// held against the same list whenever it is connected to.
    pub fn unreachable(&self, field: impl fmt::Display, host: &str) -> Option<Invalid> {
        let why = NoBackend::of_host(host, self.services.loopback())?;
        let remedy = "name another address of the server, or its Service; in a cluster, one within Portico's own Pod needs \
                      --allow-loopback-backends";
        Some(Invalid::new(field, format!("{host} is {why}, so nothing is asked there"), remedy))
    }

    /// Where the object is, if it is in a namespace.
    pub fn namespace(&self) -> Option<&str> {
        let mut parts = self.object.splitn(3, '/').skip(1);
        parts.next().filter(|_| parts.next().is_some())
    }
}

/// Collects what [`BuildCx::note`] is told.
#[derive(Debug, Default)]
pub struct Notes(RefCell<Vec<Invalid>>);

impl Notes {
    pub fn into_vec(self) -> Vec<Invalid> {
        self.0.into_inner()
    }
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// `config.limit_by`.
    pub field: String,
    /// What is wrong, without the path.
    pub message: String,
    /// What would be right.
    pub remedy: String,
}

impl Invalid {
    /// `path` is below `config`, which is put before it.
    pub fn new(path: impl fmt::Display, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let path = path.to_string();
        let field = if path.is_empty() { "config".to_owned() } else { format!("config.{path}") };
        Invalid { field, message: message.into(), remedy: remedy.into() }
    }
}

/// A kind whose types are forgotten.
pub trait AnyKind: Send + Sync {
    fn name(&self) -> &'static str;
    fn priority(&self) -> i32;
    fn phases(&self) -> Phases;
    fn is_guard(&self) -> bool;
    fn scopes(&self) -> Scopes;
    fn protocols(&self) -> &'static [&'static str];
    fn schema(&self) -> Schema;
    /// Null in the configuration means that a field is not set.
    fn build(&self, config: &Value, cx: &BuildCx<'_>) -> Result<Arc<dyn Plugin>, Vec<Invalid>>;
}

/// The entry of a kind in the registry.
pub struct Entry<K>(PhantomData<fn() -> K>);

impl<K> Entry<K> {
    pub const NEW: Entry<K> = Entry(PhantomData);
}

impl<K: Kind> AnyKind for Entry<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn priority(&self) -> i32 {
        K::PRIORITY
    }

    fn phases(&self) -> Phases {
        K::PHASES
    }

    fn is_guard(&self) -> bool {
        K::GUARD
    }

    fn scopes(&self) -> Scopes {
        K::SCOPES
    }

    fn protocols(&self) -> &'static [&'static str] {
        K::PROTOCOLS
    }

    fn schema(&self) -> Schema {
        schemars::schema_for!(K::Config)
    }

    fn build(&self, config: &Value, cx: &BuildCx<'_>) -> Result<Arc<dyn Plugin>, Vec<Invalid>> {
        let config = match config {
            Value::Null => Value::Object(Map::new()),
            Value::Object(_) => without_nulls(config.clone()),
            other => {
                let message = format!("{} is no configuration", kind_of(other));
                return Err(vec![Invalid::new("", message, "write the fields of the plugin as an object")]);
            }
        };
        let config: K::Config = serde_path_to_error::deserialize(config).map_err(|error| vec![unreadable(&error)])?;
        Ok(Arc::new(K::build(config, cx)?))
    }
}

/// All kinds there are.
#[derive(Clone, Copy)]
pub struct Registry(pub &'static [&'static dyn AnyKind]);

impl Registry {
    pub fn find(&self, name: &str) -> Option<&'static dyn AnyKind> {
        self.0.iter().copied().find(|kind| kind.name() == name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &'static dyn AnyKind> {
        self.0.iter().copied()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter().map(AnyKind::name)).finish()
    }
}

/// For `deserialize_with` of fields that are records: as a list, their fields by position, they are refused.
pub fn record<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    struct Record<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Record<T> {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    from.deserialize_map(Record(PhantomData))
}

/// What is wrong with a regular expression, in one line. The parser draws the expression first.
pub fn said_of_expression(error: &regex::Error) -> String {
    let drawing = error.to_string();
    let sentence = drawing.lines().rev().find_map(|line| line.strip_prefix("error: ")).unwrap_or(&drawing);
    format!("it is no regular expression: {sentence}")
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let set = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(set.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// Serde's words, split into what is wrong and what would be right, in the words of those who write YAML.
fn unreadable(error: &serde_path_to_error::Error<serde_json::Error>) -> Invalid {
    let said = error.inner().to_string();
    let (message, expected) = said.rsplit_once(", expected ").unwrap_or((&said, ""));
    let message = match without_value(message) {
        "unknown variant" => "is none of what may stand here".to_owned(),
        message => match message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: ")) {
            Some(found) => format!("{} does not fit here", in_yaml(found)),
            None => message.to_owned(),
        },
    };
    let remedy = match expected {
        "" if message.starts_with("missing field") => "set it".to_owned(),
        "" => "see the plugin's reference page for what it takes".to_owned(),
        expected => format!("use {}", in_yaml(expected)),
    };
    let path = error.path().to_string();
    // The path to an unknown field ends with it, and is `.` for the configuration itself.
    Invalid::new(if path == "." { "" } else { &path }, message, remedy)
}

/// What Rust calls a type, by its name in YAML.
fn in_yaml(name: &str) -> &str {
    match name {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number of at least 0, without quotes",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number, without quotes",
        "f32" | "f64" => "a number, without quotes",
        "a boolean" => "true or false, without quotes",
        "string" => "a text",
        "a string" => "a text, in quotes if it looks like a number",
        "boolean" => "true or false",
        "integer" => "this whole number",
        "floating point" => "this number",
        "sequence" | "a sequence" => "a list",
        "map" | "a map" => "an object",
        name if name.starts_with("struct ") => "an object",
        name if name.starts_with("a nonzero ") => "a whole number of at least 1, without quotes",
        name => name,
    }
}

/// `invalid type: string "secret"` without the secret: what stands in the wrong place may be one.
fn without_value(message: &str) -> &str {
    if !["invalid type: ", "invalid value: ", "unknown variant "].iter().any(|start| message.starts_with(start)) {
        return message;
    }
    message.find(['`', '"']).map_or(message, |value| message[..value].trim_end())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
