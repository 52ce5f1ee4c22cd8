//! A plugin kind: name, priority, phases, scopes, configuration type, and building a plugin from a configuration.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use schemars::{JsonSchema, Schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};
use serde_path_to_error::{Path, Segment};

use super::dumped_fields::{self, DumpedFields};
use super::remote::{is_host, is_short_name};
use super::{Plugin, PluginServices, PluginState};
use crate::diagnostic::{Diagnostic, Reason};
use crate::ssrf_guard::BlockedAddress;

/// The static properties of a plugin, and how it is built. Implemented once by each plugin in `plugins/`.
pub trait PluginKind: Send + Sync + 'static {
    /// The value of `plugin` in a KongPlugin.
    const NAME: &'static str;
    /// Whether requests have credentials that the plugin reads, or responses those that it writes. Then
    /// [`Plugin::credential_locations`] says where, so that logs do not contain them. There is no default, so that no
    /// plugin forgets it.
    const HAS_CREDENTIALS: bool;
    /// Whether the plugin decides by consumers which requests pass. If it is attached to a Service of another namespace
    /// than the route, only consumers that both namespaces admit may use the rule.
    const JUDGES_CONSUMERS: bool = Self::HAS_CREDENTIALS;
    /// Kong's priority of the plugin; higher priorities run first.
    const PRIORITY: i32;
    const PHASES: Phases;
    /// Whether requests must not be served without the plugin. If it cannot be built, requests then get a 503; a plugin
    /// that does not fail closed is skipped, and a condition reports it.
    const FAIL_CLOSED: bool;
    /// Whether instances [identify the client](Plugin::declare_assertions) toward endpoints.
    const ASSERTS: bool = false;
    const SCOPES: Scopes = Scopes::ALL;
    /// Default of `protocols` in a KongPlugin.
    const PROTOCOLS: &'static [&'static str] = if Self::LOGS_SESSIONS { ALL_PROTOCOLS } else { HTTP_FAMILY };
    /// The list in the configuration to which KongCustomEntities add elements.
    const ENTITIES: Option<&'static EntityList> = None;
    /// Fields that count as unset with Kong's default, most of which the plugin does not have.
    const DUMPED_FIELDS: &'static [DumpedFields] = &[];
    /// Whether `log` also runs when a connection or UDP session of a stream route has ended.
    const LOGS_SESSIONS: bool = false;
    /// The type rejects unknown fields and has a default for every optional one. Its doc comments become the reference
    /// page.
    type Config: DeserializeOwned + JsonSchema;
    type Plugin: Plugin;

    /// Validates the configuration and prepares everything that does not depend on a request. Diagnostics name a path
    /// below `config`.
    fn build(config: Self::Config, cx: &BuildCx<'_>) -> Result<Self::Plugin, Vec<Diagnostic>>;
}

/// A list in the configuration of a plugin. The fields of each KongCustomEntity of the plugin become an element, after
/// those of the configuration. Diagnostics of [`PluginKind::build`] about an element name its index.
#[derive(Clone, Copy, Debug)]
pub struct EntityList {
    /// The values of `spec.type`.
    pub types: &'static [&'static str],
    /// The name of the list.
    pub field: &'static str,
}

/// The names of all protocols that requests use, as in `protocols`.
pub const HTTP_FAMILY: &[&str] = &["grpc", "grpcs", "http", "https"];

/// The names of all protocols of connections and UDP sessions, as in `protocols`.
pub const STREAM_FAMILY: &[&str] = &["tcp", "tls", "tls_passthrough", "udp"];

/// The names of both families.
pub const ALL_PROTOCOLS: &[&str] = &["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"];

/// The phases that a plugin runs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    pub access: bool,
    pub before_forward: bool,
    /// In place of the backend of every request. A plugin that runs in this phase runs in none before it.
    pub replace_backend: bool,
    pub response: bool,
    pub log: bool,
    /// For connections of TCPRoutes and TLSRoutes, and sessions of UDPRoutes.
    pub stream_open: bool,
}

impl Phases {
    const NONE: Phases = Phases {
        access: false,
        before_forward: false,
        replace_backend: false,
        response: false,
        log: false,
        stream_open: false,
    };
    pub const ACCESS: Phases = Phases { access: true, ..Phases::NONE };
    pub const ACCESS_AND_RESPONSE: Phases = Phases { access: true, response: true, ..Phases::NONE };
    pub const ACCESS_AND_STREAM_OPEN: Phases = Phases { access: true, stream_open: true, ..Phases::NONE };
    pub const BEFORE_FORWARD: Phases = Phases { before_forward: true, ..Phases::NONE };
    pub const REPLACE_BACKEND: Phases = Phases { replace_backend: true, ..Phases::NONE };
    pub const RESPONSE: Phases = Phases { response: true, ..Phases::NONE };
    pub const LOG: Phases = Phases { log: true, ..Phases::NONE };

    /// The phases that either of both has.
    pub fn or(self, other: Phases) -> Phases {
        Phases {
            access: self.access || other.access,
            before_forward: self.before_forward || other.before_forward,
            replace_backend: self.replace_backend || other.replace_backend,
            response: self.response || other.response,
            log: self.log || other.log,
            stream_open: self.stream_open || other.stream_open,
        }
    }
}

/// The objects that a plugin can be attached to.
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
    /// For `acl`, which already compares the groups of the consumer with a list.
    pub const NO_CONSUMER: Scopes = Scopes { consumer: false, ..Scopes::ALL };
    /// For plugins that authenticate the consumer or run before authentication. They cannot depend on the consumer: an
    /// instance for one consumer or group would never run.
    pub const NO_CONSUMER_OR_GROUP: Scopes = Scopes { consumer_group: false, ..Scopes::NO_CONSUMER };
}

/// Context for building a plugin.
#[derive(Clone, Copy)]
pub struct BuildCx<'a> {
    /// The object that holds the configuration, for example `KongPlugin/default/limit`. Keys in [`PluginState`] begin
    /// with it.
    pub object: &'a str,
    pub state: &'a PluginState,
    pub services: &'a Arc<dyn PluginServices>,
    /// Name of this replica.
    pub node: &'a str,
    /// Collects notes about a valid configuration.
    pub notes: &'a BuildNotes,
}

impl BuildCx<'_> {
    /// Adds a note about a configuration that is valid and in effect.
    pub fn note(&self, note: Diagnostic) {
        self.notes.0.borrow_mut().push(note.into_warning());
    }

    /// A number of milliseconds as a duration. If it is above the longest one that takes effect, that one, with a note.
    pub fn limited_duration(&self, field: impl fmt::Display, milliseconds: u32, longest: Duration) -> Duration {
        let duration = Duration::from_millis(milliseconds.into());
        if duration > longest {
            let message = format!("{milliseconds} ms has the effect of {} ms, the longest time", longest.as_millis());
            let remedy = format!("set it to {} or less", longest.as_millis());
            self.note(Diagnostic::in_config(field, message, remedy));
        }
        duration.min(longest)
    }

    /// The diagnostic for a host that the SSRF guard blocks, or that can be no name of a server. The addresses that a
    /// name resolves to are checked in the same way on each connection.
    pub fn check_host(&self, field: impl fmt::Display, host: &str) -> Option<Diagnostic> {
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if !is_host(address) || host.len() > MAX_NAME_BYTES {
            let message = format!("{host:?} is neither the name nor the address of a server");
            let remedy = "write only the host, such as server.shop.svc or 192.0.2.1: no scheme, port or path";
            return Some(Diagnostic::in_config(field, message, remedy));
        }
        if self.namespace().is_none() && is_short_name(host) && !self.services.resolves_short_names() {
            let message =
                format!("{host} is a name without dots, but this object has no namespace in which it is a Service");
            let remedy =
                format!("write the namespace of the Service, as in {host}.NAMESPACE.svc, or the whole DNS name");
            return Some(Diagnostic::in_config(field, message, remedy));
        }
        let blocked = BlockedAddress::check_host(host, &self.services.address_policy())?;
        let remedy = "use another address of the server, or its Service; in a cluster, a server inside Portico's own \
                      Pod needs --allow-loopback-backends";
        Some(Diagnostic::in_config(field, format!("{host} is {blocked}, and connections to it are blocked"), remedy))
    }

    /// Namespace of the object, if it is namespaced.
    pub fn namespace(&self) -> Option<&str> {
        let mut parts = self.object.splitn(3, '/').skip(1);
        parts.next().filter(|_| parts.next().is_some())
    }
}

/// RFC 1035, section 2.3.4, and the dot at the end.
const MAX_NAME_BYTES: usize = 254;

/// Collects the notes of [`BuildCx::note`].
#[derive(Debug, Default)]
pub struct BuildNotes(RefCell<Vec<Diagnostic>>);

impl BuildNotes {
    pub fn into_vec(self) -> Vec<Diagnostic> {
        self.0.into_inner()
    }
}

/// A [`PluginKind`] as a trait object.
pub trait AnyPluginKind: Send + Sync {
    fn name(&self) -> &'static str;
    fn has_credentials(&self) -> bool;
    /// Whether the plugin decides by consumers which requests pass.
    fn judges_consumers(&self) -> bool;
    fn priority(&self) -> i32;
    fn phases(&self) -> Phases;
    fn fails_closed(&self) -> bool;
    /// Whether the plugin identifies the client toward endpoints.
    fn asserts(&self) -> bool;
    fn scopes(&self) -> Scopes;
    fn protocols(&self) -> &'static [&'static str];
    fn entities(&self) -> Option<&'static EntityList>;
    fn dumped_fields(&self) -> &'static [DumpedFields];
    /// Whether the plugin runs for connections and UDP sessions.
    fn runs_for_streams(&self) -> bool;
    fn schema(&self) -> Schema;
    /// Fields that are null in the configuration count as unset, and `10.0` is the integer 10.
    fn build(&self, config: &Value, cx: &BuildCx<'_>) -> Result<Arc<dyn Plugin>, Vec<Diagnostic>>;
}

/// The registry entry of a plugin kind.
pub struct RegisteredKind<K>(PhantomData<fn() -> K>);

impl<K> RegisteredKind<K> {
    pub const NEW: RegisteredKind<K> = RegisteredKind(PhantomData);
}

impl<K: PluginKind> AnyPluginKind for RegisteredKind<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn has_credentials(&self) -> bool {
        K::HAS_CREDENTIALS
    }

    fn judges_consumers(&self) -> bool {
        K::JUDGES_CONSUMERS
    }

    fn priority(&self) -> i32 {
        K::PRIORITY
    }

    fn phases(&self) -> Phases {
        K::PHASES
    }

    fn fails_closed(&self) -> bool {
        K::FAIL_CLOSED
    }

    fn asserts(&self) -> bool {
        K::ASSERTS
    }

    fn scopes(&self) -> Scopes {
        K::SCOPES
    }

    fn protocols(&self) -> &'static [&'static str] {
        K::PROTOCOLS
    }

    fn entities(&self) -> Option<&'static EntityList> {
        K::ENTITIES
    }

    fn dumped_fields(&self) -> &'static [DumpedFields] {
        K::DUMPED_FIELDS
    }

    fn runs_for_streams(&self) -> bool {
        K::PHASES.stream_open || K::LOGS_SESSIONS
    }

    fn schema(&self) -> Schema {
        schemars::schema_for!(K::Config)
    }

    fn build(&self, config: &Value, cx: &BuildCx<'_>) -> Result<Arc<dyn Plugin>, Vec<Diagnostic>> {
        let mut config = match config {
            Value::Null => Value::Object(Map::new()),
            Value::Object(_) => normalize(config.clone()),
            value => {
                let message = format!("must be an object, not {}", json_type_name(value));
                return Err(vec![Diagnostic::in_config("", message, "write the fields of the plugin as an object")]);
            }
        };
        if let Value::Object(fields) = &mut config {
            K::DUMPED_FIELDS.iter().for_each(|defaults| defaults.remove_from(fields));
        }
        let (config, mut problems) = read_fields::<K::Config>(config);
        for problem in problems.iter_mut().filter(|problem| problem.reason == Reason::UnknownField) {
            let field = problem.field.strip_prefix("config.").unwrap_or_default();
            if let Some(default) = dumped_fields::of_field(K::DUMPED_FIELDS, field) {
                problem.message = format!("is not supported, except with Kong's default, {}", default.shown());
                problem.remedy = "remove it, and see the plugin's reference page".to_owned();
            }
        }
        let Some(config) = config else { return Err(problems) };
        match K::build(config, cx) {
            Ok(plugin) if problems.is_empty() => {
                let asserts = plugin.assertions().is_some();
                debug_assert_eq!(asserts, K::ASSERTS, "`ASSERTS` of {} contradicts `declare_assertions`", K::NAME);
                Ok(Arc::new(plugin))
            }
            Ok(_) => Err(problems),
            Err(build_problems) => {
                // A diagnostic about the whole configuration may be the consequence of an unknown, misspelled field.
                let is_certain = |problem: &Diagnostic| problems.is_empty() || problem.field != "config";
                let certain_problems: Vec<_> = build_problems.into_iter().filter(is_certain).collect();
                problems.extend(certain_problems);
                Err(problems)
            }
        }
    }
}

/// The plugin kinds of a crate. The list is a `static`, because each crate that reads a constant list would contain all
/// code of its kinds once more.
pub type PluginKinds = &'static [&'static dyn AnyPluginKind];

/// All registered plugin kinds: a list for each crate of plugins.
#[derive(Clone, Copy)]
pub struct PluginRegistry {
    pub kinds: &'static [&'static PluginKinds],
    /// Those that only the compiler configures, such as the guards of locations.
    pub internal: &'static [&'static PluginKinds],
}

impl PluginRegistry {
    /// A kind that only the compiler configures.
    pub fn find_internal(&self, name: &str) -> Option<&'static dyn AnyPluginKind> {
        self.internal.iter().copied().copied().flatten().copied().find(|kind| kind.name() == name)
    }

    pub fn find(&self, name: &str) -> Option<&'static dyn AnyPluginKind> {
        self.all().find(|kind| kind.name() == name)
    }

    /// All kinds, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &'static dyn AnyPluginKind> + use<> {
        let mut kinds: Vec<_> = self.all().collect();
        kinds.sort_by_key(|kind| kind.name());
        kinds.into_iter()
    }

    fn all(&self) -> impl Iterator<Item = &'static dyn AnyPluginKind> + use<> {
        self.kinds.iter().copied().copied().flatten().copied()
    }
}

impl fmt::Debug for PluginRegistry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter().map(AnyPluginKind::name)).finish()
    }
}

/// Deserializes an object, for `deserialize_with`. Serde alone would also accept a list of the values, in the order of
/// the fields.
pub fn record<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
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

    deserializer.deserialize_map(Record(PhantomData))
}

/// Like [`record`], for an object that may be absent.
pub fn optional_record<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    record(deserializer).map(Some)
}

/// Removes fields that are null, and writes whole numbers as integers. Lua has one type of numbers, so files of Kong
/// may have either form.
fn normalize(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let set_fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(set_fields.map(|(name, value)| (name, normalize(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(normalize).collect()),
        Value::Number(number) => Value::Number(whole_number(&number).unwrap_or(number)),
        other => other,
    }
}

/// The integer that a number with a fraction of 0 is. `None` for other numbers, and for those that a float cannot have
/// exactly.
fn whole_number(number: &Number) -> Option<Number> {
    const EXACT: f64 = (1_u64 << 53) as f64;
    let float = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() < EXACT)?;
    Some((float as i64).into())
}

/// Parses a configuration and finds all errors: after each error, the field is removed, and the rest is parsed again.
/// Returns the configuration if only unknown fields were removed; known fields that were removed would have defaults
/// that the user did not choose.
fn read_fields<T: DeserializeOwned>(mut config: Value) -> (Option<T>, Vec<Diagnostic>) {
    let mut problems = Vec::new();
    let mut has_all_known_fields = true;
    let mut rewritten = 0;
    while problems.len() < MAX_FIELD_ERRORS {
        let error = match serde_path_to_error::deserialize(config.clone()) {
            Ok(parsed) => return (has_all_known_fields.then_some(parsed), problems),
            Err(error) => error,
        };
        let text = error.inner().to_string();
        if rewritten < MAX_FIELD_ERRORS && rewrite_empty(&mut config, error.path(), &text) {
            rewritten += 1;
            continue;
        }
        // The missing field may be one that was removed.
        if !has_all_known_fields && text.starts_with("missing field") {
            break;
        }
        let is_unknown = text.starts_with("unknown field");
        let reason = if is_unknown { Reason::UnknownField } else { Reason::default() };
        problems.push(diagnostic_from_serde(&error).with_reason(reason));
        has_all_known_fields &= is_unknown;
        if !remove_field(&mut config, error.path()) {
            break;
        }
    }
    (None, problems)
}

/// Removes the field at a path. Returns whether there was one.
fn remove_field(config: &mut Value, path: &Path) -> bool {
    let mut segments: Vec<_> = path.iter().collect();
    let Some(Segment::Map { key }) = segments.pop() else { return false };
    let parent = value_at(config, segments.into_iter());
    parent.and_then(Value::as_object_mut).is_some_and(|fields| fields.remove(key).is_some())
}

/// Writes an empty list as an empty object, or the other way around, where the other one is expected. Lua has one type
/// for both, so files of Kong may have either form. Returns whether anything was written.
fn rewrite_empty(config: &mut Value, path: &Path, error: &str) -> bool {
    let Some(value) = value_at(config, path.iter()) else { return false };
    let is_expected = |expected: &[&str]| expected.iter().any(|name| error.contains(&format!("expected {name}")));
    let rewritten = match value {
        Value::Array(items) if items.is_empty() && is_expected(&["a map", "an object", "struct "]) => {
            Value::Object(Map::new())
        }
        Value::Object(fields) if fields.is_empty() && is_expected(&["a sequence"]) => Value::Array(Vec::new()),
        _ => return false,
    };
    *value = rewritten;
    true
}

fn value_at<'v, 's>(config: &'v mut Value, mut segments: impl Iterator<Item = &'s Segment>) -> Option<&'v mut Value> {
    segments.try_fold(config, |value, segment| match segment {
        Segment::Map { key } => value.get_mut(key),
        Segment::Seq { index } => value.get_mut(index),
        Segment::Enum { .. } | Segment::Unknown => None,
    })
}

/// The most errors to report: each one costs another parsing.
const MAX_FIELD_ERRORS: usize = 16;

/// Splits serde's message into message and remedy, and replaces Rust's type names by those of YAML.
fn diagnostic_from_serde(error: &serde_path_to_error::Error<serde_json::Error>) -> Diagnostic {
    let text = error.inner().to_string();
    let (message, expected) = text.rsplit_once(", expected ").unwrap_or((&text, ""));
    let message = match redact_value(message) {
        "unknown variant" => "is not one of the allowed values".to_owned(),
        message => match message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: ")) {
            Some(found) => format!("{} is not valid here", yaml_type_name(found)),
            None => message.to_owned(),
        },
    };
    let remedy = match expected {
        "" if message.starts_with("missing field") => "set it".to_owned(),
        "" => "see the plugin's reference page for its fields".to_owned(),
        expected => format!("use {}", yaml_type_name(expected)),
    };
    let path = error.path().to_string();
    // The path of an unknown field includes that field; `.` is the configuration itself.
    Diagnostic::in_config(if path == "." { "" } else { &path }, message, remedy)
}

/// Translates serde's name of a type to the one that YAML users know.
fn yaml_type_name(name: &str) -> &str {
    match name {
        "u8" | "u16" | "u32" | "u64" | "usize" => "an integer of at least 0, without quotes",
        "i8" | "i16" | "i32" | "i64" | "isize" => "an integer, without quotes",
        "f32" | "f64" => "a number, without quotes",
        "a boolean" => "true or false, without quotes",
        "string" => "a string",
        "a string" => "a string, in quotes if it looks like a number",
        "boolean" => "true or false",
        "integer" => "this integer",
        "floating point" => "this number",
        "sequence" | "a sequence" => "a list",
        "map" | "a map" => "an object",
        name if name.starts_with("struct ") => "an object",
        name if name.starts_with("a nonzero ") => "an integer of at least 1, without quotes",
        name => name,
    }
}

/// Removes the value from messages such as `invalid type: string "secret"`, because it may be a secret in the wrong
/// field.
fn redact_value(message: &str) -> &str {
    if !["invalid type: ", "invalid value: ", "unknown variant "].iter().any(|start| message.starts_with(start)) {
        return message;
    }
    message.find(['`', '"']).map_or(message, |value| message[..value].trim_end())
}

fn json_type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
