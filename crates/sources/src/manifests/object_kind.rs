//! The kind of an object in a file, and the one that its author meant if there is no such kind.

use serde_json::{Map, Value};

use super::unserved_kinds::replacement_of_operator_kind;
use crate::api::Kind;
use crate::api::kind::{
    CORE_GROUP, DISCOVERY_GROUP, GATEWAY_GROUP, GATEWAY_X_GROUP, KONG_GROUP, KONG_INCUBATOR_GROUP, NETWORKING_GROUP,
    PORTICO_GROUP,
};
use crate::diagnostic::{Diagnostic, Reason};
use crate::schema;

/// Why the kind of an object is not known.
pub(super) enum UnresolvedKind {
    /// As `apiVersion/kind`.
    Ignored(String),
    Rejected {
        meant: Option<MeantKind>,
        name: Option<String>,
        finding: Box<Diagnostic>,
        /// Whether the group has kinds that protect, and it is not known which one is meant.
        may_protect: bool,
    },
}

/// The kind that the author of an object probably meant.
#[derive(Clone, Copy)]
pub(super) struct MeantKind {
    pub(super) kind: Kind,
    /// Whether its name is written correctly, so that the version or the group is the only mistake.
    pub(super) is_certain: bool,
}

impl MeantKind {
    /// The kind with this name or, if there is none, with a similar one, in whatever group.
    fn of_name(name: &str) -> Option<MeantKind> {
        let is_same = |kind: &Kind| {
            kind.name().eq_ignore_ascii_case(name)
                || kind.plural().eq_ignore_ascii_case(name)
                || schema::misspells(name, kind.name())
        };
        let exact = Kind::ALL.iter().copied().find(|kind| kind.name() == name);
        let kind = exact.or_else(|| Kind::ALL.iter().copied().find(is_same))?;
        Some(MeantKind { kind, is_certain: exact.is_some() })
    }

    fn suggestion(self) -> String {
        format!("did you mean `{}` of `{}`?", self.kind, preferred_api_version(self.kind))
    }

    /// Whether no other project has kinds with such names.
    fn has_unique_name(&self) -> bool {
        self.kind.name().starts_with("Kong")
    }
}

/// The kind of the object.
pub(super) fn resolve_kind(object: &Map<String, Value>) -> Result<Kind, UnresolvedKind> {
    let text_field = |field: &str| object.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let name = match (text_field("kind"), display_name(object)) {
        (Some(kind), Some(name)) => Some(format!("{kind} {name}")),
        (kind, name) => kind.map(str::to_owned).or(name),
    };
    let (Some(api_version), Some(kind_name)) = (text_field("apiVersion"), text_field("kind")) else {
        let remedy = match ["services", "routes", "consumers", "plugins"].iter().any(|list| object.contains_key(*list))
        {
            true => "a declarative file of Kong begins with _format_version: \"3.0\"",
            false => "for example apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute",
        };
        let missing: Vec<_> = ["apiVersion", "kind"].into_iter().filter(|field| text_field(field).is_none()).collect();
        let message = format!("an object needs {}", missing.join(" and "));
        let finding = finding(missing[0], "NoKind", message, remedy).into();
        let meant = text_field("kind").and_then(MeantKind::of_name);
        return Err(UnresolvedKind::Rejected { meant, name, finding, may_protect: false });
    };
    let (group, version) = api_version.split_once('/').unwrap_or((CORE_GROUP, api_version));
    let reject = |meant: Option<MeantKind>, field: &str, reason: &'static str, message: String, remedy: String| {
        let finding = finding(field, reason, message, remedy).into();
        let is_known_elsewhere = OTHER_GATEWAY_KINDS.contains(&kind_name);
        let may_protect =
            meant.is_none() && reason == UNKNOWN_KIND && GUARD_GROUPS.contains(&group) && !is_known_elsewhere;
        Err(UnresolvedKind::Rejected { meant, name: name.clone(), finding, may_protect })
    };

    if let Some(kind) = Kind::find(group, kind_name) {
        if kind.versions().contains(&version) {
            return Ok(kind);
        }
        let message = format!("{kind} has no version `{version}`");
        return reject(
            Some(MeantKind { kind, is_certain: true }),
            "apiVersion",
            "WrongVersion",
            message,
            format!("did you mean `{}`?", preferred_api_version(kind)),
        );
    }
    if let Some(replacement) = replacement_of_operator_kind(kind_name).filter(|_| group == KONG_GROUP) {
        let message = format!("{kind_name} configures a control plane of Kong Operator, and is not served here");
        return reject(None, "kind", "UnservedKind", message, replacement.to_owned());
    }
    let similar = schema::nearest_kind(group, kind_name);
    let meant = similar.and_then(|name| Kind::find(group, name)).map(|kind| MeantKind { kind, is_certain: false });
    let meant = meant.or_else(|| MeantKind::of_name(kind_name).filter(MeantKind::has_unique_name));
    if COMPLETE_GROUPS.contains(&group) {
        // A name without a mistake is more certain than a similar one of the group.
        let certain = MeantKind::of_name(kind_name).filter(|meant| meant.is_certain);
        let (similar, meant) = (similar.filter(|_| certain.is_none()), certain.or(meant));
        let message = format!("the group {group} has no kind `{kind_name}`");
        let remedy = match (similar, meant) {
            (Some(similar), _) => format!("did you mean `{similar}`?"),
            (None, Some(meant)) => meant.suggestion(),
            (None, None) => format!("its kinds are {}", kind_names(group)),
        };
        return reject(meant, "kind", UNKNOWN_KIND, message, remedy);
    }
    if let Some(similar) = similar.filter(|_| [CORE_GROUP, NETWORKING_GROUP].contains(&group)) {
        let message = format!("{api_version} has no kind `{kind_name}`");
        return reject(meant, "kind", UNKNOWN_KIND, message, format!("did you mean `{similar}`?"));
    }
    // A known kind in a misspelled or missing group is a mistake, not a kind of another project with the same name.
    let is_misplaced = |meant: &MeantKind| {
        let is_near = || schema::nearest(group, [meant.kind.group()]).is_some();
        meant.has_unique_name() || meant.is_certain && ([CORE_GROUP, FORMER_GROUP].contains(&group) || is_near())
    };
    if let Some(meant) = MeantKind::of_name(kind_name).filter(is_misplaced) {
        let message = format!("`{api_version}` has no kind `{kind_name}`");
        let remedy = match meant.is_certain {
            true => format!("did you mean `{}`?", preferred_api_version(meant.kind)),
            false => meant.suggestion(),
        };
        return reject(Some(meant), "apiVersion", "WrongGroup", message, remedy);
    }
    Err(UnresolvedKind::Ignored(format!("{api_version}/{kind_name}")))
}

/// `namespace/name` of an object of unknown kind.
fn display_name(object: &Map<String, Value>) -> Option<String> {
    let metadata = object.get("metadata")?;
    let name = metadata.get("name")?.as_str()?;
    let namespace = metadata.get("namespace").and_then(Value::as_str).unwrap_or("default");
    Some(format!("{namespace}/{name}"))
}

fn preferred_api_version(kind: Kind) -> String {
    let version = kind.versions()[0];
    if kind.group() == CORE_GROUP { version.to_owned() } else { format!("{}/{version}", kind.group()) }
}

fn kind_names(group: &str) -> String {
    let names: Vec<_> = Kind::ALL.iter().filter(|kind| kind.group() == group).map(|kind| kind.name()).collect();
    names.join(", ")
}

pub(super) fn finding(
    field: &str,
    reason: &'static str,
    message: impl Into<String>,
    remedy: impl Into<String>,
) -> Diagnostic {
    Diagnostic::error(field, message, remedy).with_reason(Reason::Named(reason))
}

pub(super) const UNKNOWN_KIND: &str = "UnknownKind";

/// Groups whose unknown kinds may be meant as one that protects, or as a route that takes requests from another one.
const GUARD_GROUPS: &[&str] = &[GATEWAY_GROUP, GATEWAY_X_GROUP, KONG_GROUP, KONG_INCUBATOR_GROUP, PORTICO_GROUP];

/// Kinds of other releases of the Gateway API, none of which protects requests or takes them from others.
const OTHER_GATEWAY_KINDS: &[&str] = &["BackendLBPolicy", "XListenerSet"];

/// The API group of Ingress before Kubernetes 1.22.
const FORMER_GROUP: &str = "extensions";

/// Groups whose kinds are all known, so that any other kind is a mistake.
const COMPLETE_GROUPS: &[&str] =
    &[GATEWAY_GROUP, GATEWAY_X_GROUP, DISCOVERY_GROUP, KONG_GROUP, KONG_INCUBATOR_GROUP, PORTICO_GROUP];
