//! Verdicts on objects: the conditions that become their status, with diagnostics that users can act on.

pub mod unique_diagnostics;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::api::gateway::{ParentReference, RouteGroupKind};
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::bind_address::BindAddress;
use crate::diagnostic::{Diagnostic, Severity, Topic};

/// All verdicts of one compilation, by object.
pub type Verdicts = BTreeMap<ObjectId, Arc<Verdict>>;

/// The result of validating one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The generation of the validated object, which is the `observedGeneration` of every condition.
    pub generation: i64,
    /// Conditions of the object itself. An Ingress's status has no conditions; they appear in reports and events only.
    pub conditions: Vec<Condition>,
    /// How the condition Accepted of a Gateway begins in a cluster.
    pub acceptance: Option<String>,
    /// Supported features of a GatewayClass by their Gateway API names, sorted. Set by the status writer, which knows
    /// the installed release.
    pub supported_features: Vec<&'static str>,
    /// Addresses of a Gateway: IP addresses or hostnames.
    pub addresses: Vec<String>,
    /// Per listener of a Gateway or ListenerSet, in the order of its spec.
    pub listeners: Vec<ListenerVerdict>,
    /// The number of accepted ListenerSets of a Gateway; `None` if no ListenerSet refers to it.
    pub attached_listener_sets: Option<u32>,
    /// Per parent of a route, in the order of its spec.
    pub parents: Vec<ParentVerdict>,
    /// Per object that an entry in the status of a policy is about.
    pub ancestors: Vec<AncestorVerdict>,
    /// Addresses of an Ingress; `None` if its status must not be changed.
    pub load_balancer: Option<Vec<PublishedAddress>>,
    /// Sockets of an Ingress. Whether they could be bound is not part of the verdict.
    pub sockets: Vec<BindAddress>,
    /// The policies that affect a Service or facade, whose status does not say it: `Affected by BackendPolicy
    /// shop/cart`.
    pub affected_by: Option<String>,
    /// Diagnostics without a condition: warnings, for example about ignored fields or about objects that have no
    /// conditions, such as Services; and errors about plugins that do not work.
    pub diagnostics: Vec<Diagnostic>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerVerdict {
    pub name: String,
    /// The port of the listener, which may differ from that of its sockets.
    pub port: u16,
    pub attached_routes: u32,
    pub supported_kinds: Vec<RouteGroupKind>,
    /// Its sockets, if it can be served. Whether they could be bound is not part of the verdict.
    pub sockets: Vec<BindAddress>,
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentVerdict {
    /// The controller of the parent's GatewayClass, which owns this status entry.
    pub controller: Arc<str>,
    /// Index into `spec.parentRefs`; `None` for a default Gateway, which the route does not name.
    pub index: Option<usize>,
    pub parent: ParentReference,
    pub conditions: Vec<Condition>,
}

impl ParentVerdict {
    /// The path of the reference to the parent.
    pub fn field(&self) -> String {
        parent_field(self.index)
    }
}

/// The path of the reference to a parent in `spec.parentRefs`, or of that to the default Gateways.
pub fn parent_field(index: Option<usize>) -> String {
    index.map_or_else(|| "spec.useDefaultGateways".to_owned(), |index| format!("spec.parentRefs[{index}]"))
}

/// The verdict on a policy with respect to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AncestorVerdict {
    pub reference: AncestorReference,
    /// The controller that owns this status entry; `None` for the first one of this installation.
    pub controller: Option<Arc<str>>,
    pub conditions: Vec<Condition>,
}

/// The object that an entry in the status of a policy is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AncestorReference {
    /// A Gateway whose routes send requests to a target of the policy.
    Gateway(ObjectKey),
    /// A Service or KongServiceFacade that refers to the policy, in the policy's namespace.
    Referrer(Kind, Arc<str>),
    /// A target of the policy, in the policy's namespace.
    Target(Kind, Arc<str>),
}

/// `Gateway default/web`, or `Service shop`.
impl fmt::Display for AncestorReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AncestorReference::Gateway(gateway) => write!(formatter, "{} {gateway}", Kind::Gateway),
            AncestorReference::Referrer(kind, name) | AncestorReference::Target(kind, name) => {
                write!(formatter, "{kind} {name}")
            }
        }
    }
}

/// An entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PublishedAddress {
    Ip(String),
    Hostname(String),
}

/// One condition, with the diagnostics that caused it. A condition without a problem or remark has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub code: Code,
    pub diagnostics: Vec<Diagnostic>,
    /// What the message says in place of the sentence of the code if there are no diagnostics, without a full stop.
    pub fact: Option<String>,
}

impl Verdict {
    /// The diagnostics without a condition that are about this topic.
    pub fn about(&self, topic: Topic) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(move |diagnostic| diagnostic.topic == topic)
    }

    /// All conditions, each with the path of its listener or parent. The path is empty for the object itself and for
    /// ancestors.
    pub fn all_conditions(&self) -> impl Iterator<Item = (String, &Condition)> {
        let object_conditions = self.conditions.iter().map(|condition| (String::new(), condition));
        let listeners = self.listeners.iter().enumerate().flat_map(|(index, listener)| {
            listener.conditions.iter().map(move |condition| (format!("spec.listeners[{index}]"), condition))
        });
        let parents = self.parents.iter().flat_map(|parent| {
            let field = parent.field();
            parent.conditions.iter().map(move |condition| (field.clone(), condition))
        });
        let ancestors = self
            .ancestors
            .iter()
            .flat_map(|ancestor| ancestor.conditions.iter().map(|condition| (String::new(), condition)));
        object_conditions.chain(listeners).chain(parents).chain(ancestors)
    }
}

/// The maximum number of diagnostics in a message, since the API limits messages to 32,768 characters.
const MAX_DIAGNOSTICS: usize = 16;

/// The kind of object, listener or parent that has a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionTarget {
    GatewayClass,
    Gateway,
    ListenerSet,
    /// A listener of a Gateway or ListenerSet.
    Listener,
    RouteParent,
    /// A Gateway in the status of a BackendTLSPolicy or XBackendTrafficPolicy.
    ServicePolicyAncestor,
    /// A Gateway or target in the status of a BackendPolicy.
    BackendPolicyAncestor,
    /// A Gateway in the status of an XBackend.
    XBackendAncestor,
    /// An object whose API defines no conditions for controllers in general, such as a plugin, consumer or policy.
    Object,
}

impl ConditionTarget {
    /// That of the entries about Gateways and other objects in the status of objects of a kind.
    pub fn of_ancestors(kind: Kind) -> Self {
        match kind {
            Kind::BackendTlsPolicy | Kind::XBackendTrafficPolicy => ConditionTarget::ServicePolicyAncestor,
            Kind::BackendPolicy => ConditionTarget::BackendPolicyAncestor,
            Kind::XBackend => ConditionTarget::XBackendAncestor,
            _ => ConditionTarget::Object,
        }
    }
}

/// Every possible (target, condition, status, reason), in a closed list, so that a test can require an example of each.
macro_rules! codes {
    ($($name:ident = $target:ident $condition:literal $status:literal $reason:literal $sentence:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code { $($name),* }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            pub fn target(self) -> ConditionTarget {
                match self { $(Code::$name => ConditionTarget::$target),* }
            }

            /// The condition's `type`.
            pub fn condition(self) -> &'static str {
                match self { $(Code::$name => $condition),* }
            }

            /// The condition's `status`: true or false, never Unknown.
            pub fn status(self) -> bool {
                match self { $(Code::$name => $status),* }
            }

            pub fn reason(self) -> &'static str {
                match self { $(Code::$name => $reason),* }
            }

            /// The message of a condition without diagnostics.
            pub fn sentence(self) -> &'static str {
                match self { $(Code::$name => $sentence),* }
            }
        }
    };
}

codes! {
    ClassAccepted = GatewayClass "Accepted" true "Accepted" "Portico serves the Gateways of this class.";
    ClassInvalidParameters = GatewayClass "Accepted" false "InvalidParameters" "The parameters cannot be used.";
    ClassParametersPartlyInvalid = GatewayClass "portico.dev/ParametersValid" false "PartiallyInvalid"
        "Some of the parameters are ignored.";

    ClassSupportedVersion = GatewayClass "SupportedVersion" true "SupportedVersion"
        "The installed release of Gateway API is served.";
    ClassUnsupportedVersion = GatewayClass "SupportedVersion" false "UnsupportedVersion"
        "The installed release of Gateway API is not supported.";

    GatewayAccepted = Gateway "Accepted" true "Accepted" "The Gateway is valid.";
    GatewaySomeListenersInvalid = Gateway "Accepted" true "ListenersNotValid" "Some listeners are not valid.";
    GatewayNoListenerValid = Gateway "Accepted" false "ListenersNotValid" "No listener is valid.";
    GatewayUnsupportedAddress = Gateway "Accepted" false "UnsupportedAddress"
        "An address is of a type that cannot be used.";
    GatewayInvalidParameters = Gateway "Accepted" false "InvalidParameters" "The parameters cannot be used.";
    GatewayParametersPartlyInvalid = Gateway "portico.dev/ParametersValid" false "PartiallyInvalid"
        "Some of the parameters are ignored.";
    GatewayInvalid = Gateway "Accepted" false "Invalid" "The GatewayClass is not accepted.";
    GatewayProgrammed = Gateway "Programmed" true "Programmed" "The Gateway is being served.";
    GatewayAddressNotUsable = Gateway "Programmed" false "AddressNotUsable" "An address cannot be used.";
    GatewayAddressNotAssigned = Gateway "Programmed" false "AddressNotAssigned" "There is no address yet.";
    GatewayNotProgrammed = Gateway "Programmed" false "Invalid" "No listener can be served.";
    GatewayResolvedRefs = Gateway "ResolvedRefs" true "ResolvedRefs" "All references are resolved.";
    GatewayInvalidClientCertificateRef = Gateway "ResolvedRefs" false "InvalidClientCertificateRef"
        "The client certificate for backends cannot be used.";
    GatewayRefNotPermitted = Gateway "ResolvedRefs" false "RefNotPermitted"
        "A certificate in another namespace may not be used.";
    GatewayDefault = Gateway "DefaultGateway" true "DefaultGateway"
        "Routes with useDefaultGateways attach to the Gateway.";
    GatewayInsecureFrontend = Gateway "InsecureFrontendValidationMode" true "ConfigurationChanged"
        "Clients without a valid certificate are served.";

    ListenerSetAccepted = ListenerSet "Accepted" true "Accepted" "All listeners are valid.";
    ListenerSetSomeListenersInvalid = ListenerSet "Accepted" true "ListenersNotValid" "Some listeners are not valid.";
    ListenerSetNoListenerValid = ListenerSet "Accepted" false "ListenersNotValid" "No listener is valid.";
    ListenerSetNotAllowed = ListenerSet "Accepted" false "NotAllowed" "The Gateway does not allow the ListenerSet.";
    ListenerSetParentNotAccepted = ListenerSet "Accepted" false "ParentNotAccepted" "The Gateway is not accepted.";
    ListenerSetProgrammed = ListenerSet "Programmed" true "Programmed" "The listeners are being served.";
    ListenerSetListenersUnserved = ListenerSet "Programmed" false "ListenersNotValid" "No listener can be served.";
    ListenerSetPortUnavailable = ListenerSet "Programmed" false "PortUnavailable" "No port can be opened.";
    ListenerSetPending = ListenerSet "Programmed" false "Pending" "The ports are not open yet.";
    ListenerSetNotAllowedUnserved = ListenerSet "Programmed" false "NotAllowed"
        "The Gateway does not allow the ListenerSet.";
    ListenerSetParentNotProgrammed = ListenerSet "Programmed" false "ParentNotProgrammed"
        "The Gateway is not served.";

    ListenerAccepted = Listener "Accepted" true "Accepted" "The listener is valid.";
    ListenerUnsupportedProtocol = Listener "Accepted" false "UnsupportedProtocol" "The protocol is not served.";
    ListenerUnsupportedValue = Listener "Accepted" false "UnsupportedValue"
        "A field has a value that is not supported.";
    ListenerHostnameConflictRefused = Listener "Accepted" false "HostnameConflict"
        "Another listener has this port and hostname.";
    ListenerProtocolConflictRefused = Listener "Accepted" false "ProtocolConflict"
        "Another listener uses this port for another protocol.";
    ListenerPortUnavailable = Listener "Accepted" false "PortUnavailable" "Another Gateway uses the port.";
    ListenerTooMany = Listener "Accepted" false "TooManyListeners" "The Gateway has too many ports.";
    ListenerNoValidCaCertificate = Listener "Accepted" false "NoValidCACertificate"
        "No certificate of an authority can be used to verify clients.";
    ListenerProgrammed = Listener "Programmed" true "Programmed" "The listener is being served.";
    ListenerHostnameConflictUnserved = Listener "Programmed" false "HostnameConflict"
        "Another listener has this port and hostname.";
    ListenerProtocolConflictUnserved = Listener "Programmed" false "ProtocolConflict"
        "Another listener uses this port for another protocol.";
    ListenerNotProgrammed = Listener "Programmed" false "Invalid" "The listener cannot be served.";
    ListenerPending = Listener "Programmed" false "Pending" "The port is not open yet.";
    ListenerResolvedRefs = Listener "ResolvedRefs" true "ResolvedRefs" "All references are resolved.";
    ListenerInvalidRouteKinds = Listener "ResolvedRefs" false "InvalidRouteKinds"
        "A kind in allowedRoutes cannot attach.";
    ListenerInvalidCertificateRef = Listener "ResolvedRefs" false "InvalidCertificateRef"
        "A certificate cannot be used.";
    ListenerInvalidCaCertificateRef = Listener "ResolvedRefs" false "InvalidCACertificateRef"
        "A certificate of an authority cannot be used.";
    ListenerInvalidCaCertificateKind = Listener "ResolvedRefs" false "InvalidCACertificateKind"
        "A reference is to a kind that has no certificates of authorities.";
    ListenerRefNotPermitted = Listener "ResolvedRefs" false "RefNotPermitted"
        "A certificate in another namespace may not be used.";
    ListenerHostnameConflict = Listener "Conflicted" true "HostnameConflict"
        "Another listener has this port and hostname.";
    ListenerProtocolConflict = Listener "Conflicted" true "ProtocolConflict"
        "Another listener uses this port for another protocol.";
    ListenerOverlappingHostnames = Listener "OverlappingTLSConfig" true "OverlappingHostnames"
        "Another listener of this port has an overlapping hostname.";
    ListenerOverlappingCertificates = Listener "OverlappingTLSConfig" true "OverlappingCertificates"
        "A certificate covers hosts of another listener of this port.";

    RouteAccepted = RouteParent "Accepted" true "Accepted" "The route is attached.";
    RouteNoMatchingParent = RouteParent "Accepted" false "NoMatchingParent" "The parent has no such listener.";
    RouteNotAllowedByListeners = RouteParent "Accepted" false "NotAllowedByListeners" "No listener allows this route.";
    RouteNoMatchingListenerHostname = RouteParent "Accepted" false "NoMatchingListenerHostname"
        "No hostname intersects a listener's hostname.";
    RouteUnsupportedValue = RouteParent "Accepted" false "UnsupportedValue" "No rule is supported.";
    RouteResolvedRefs = RouteParent "ResolvedRefs" true "ResolvedRefs" "All references are resolved.";
    RouteRefNotPermitted = RouteParent "ResolvedRefs" false "RefNotPermitted"
        "A backend in another namespace may not be used.";
    RouteInvalidKind = RouteParent "ResolvedRefs" false "InvalidKind" "A reference is to a kind that cannot be used.";
    RouteBackendNotFound = RouteParent "ResolvedRefs" false "BackendNotFound" "A backend does not exist.";
    RouteUnsupportedProtocol = RouteParent "ResolvedRefs" false "UnsupportedProtocol"
        "A backend uses a protocol that is not supported.";
    RouteInvalidBackendTls = RouteParent "ResolvedRefs" false "InvalidBackendTLS"
        "TLS to a backend cannot be used as its annotations require.";
    RoutePluginNotFound = RouteParent "portico.dev/PluginsResolved" false "PluginNotFound" "A plugin does not exist.";
    RoutePluginRefNotPermitted = RouteParent "portico.dev/PluginsResolved" false "RefNotPermitted"
        "A plugin in another namespace may not be used.";
    RouteInvalidPlugin = RouteParent "portico.dev/PluginsResolved" false "InvalidPlugin" "A plugin cannot be used.";
    RoutePartiallyInvalid = RouteParent "PartiallyInvalid" true "UnsupportedValue" "Some rules are not supported.";

    ServicePolicyAccepted = ServicePolicyAncestor "Accepted" true "Accepted" "The policy is valid.";
    ServicePolicyConflicted = ServicePolicyAncestor "Accepted" false "Conflicted" "An older policy applies to the target.";
    ServicePolicyInvalid = ServicePolicyAncestor "Accepted" false "Invalid" "A field has a value that is not supported.";
    TlsPolicyNoValidCaCertificate = ServicePolicyAncestor "Accepted" false "NoValidCACertificate"
        "No reference leads to a certificate of an authority.";
    ServicePolicyTargetNotFound = ServicePolicyAncestor "Accepted" false "TargetNotFound" "No target exists.";
    TlsPolicyResolvedRefs = ServicePolicyAncestor "ResolvedRefs" true "ResolvedRefs" "All references are resolved.";
    TlsPolicyInvalidCaCertificateRef = ServicePolicyAncestor "ResolvedRefs" false "InvalidCACertificateRef"
        "A certificate of an authority cannot be used.";
    TlsPolicyInvalidKind = ServicePolicyAncestor "ResolvedRefs" false "InvalidKind"
        "A reference is to a kind that cannot be used.";

    BackendPolicyAccepted = BackendPolicyAncestor "Accepted" true "Accepted" "Policy is accepted.";
    BackendPolicyTargetNotFound = BackendPolicyAncestor "Accepted" false "TargetNotFound" "No target exists.";
    BackendPolicyInvalid = BackendPolicyAncestor "Accepted" false "Invalid"
        "A field has a value that is not supported.";
    BackendPolicyConflicted = BackendPolicyAncestor "Accepted" false "Conflicted"
        "Every block is already set by older policies.";
    BackendPolicyProgrammed = BackendPolicyAncestor "Programmed" true "Programmed" "Policy is in effect.";
    BackendPolicyPartiallyProgrammed = BackendPolicyAncestor "Programmed" true "PartiallyProgrammed"
        "Policy is partly in effect.";
    BackendPolicyReconciling = BackendPolicyAncestor "Programmed" false "Reconciling" "Policy is not in effect yet.";
    BackendPolicyOverridden = BackendPolicyAncestor "Programmed" false "Overridden"
        "Every block is set by other policies, or by the rules themselves.";

    XBackendAccepted = XBackendAncestor "Accepted" true "Accepted" "The backend is valid.";
    XBackendInvalid = XBackendAncestor "Accepted" false "Invalid" "A field is not valid.";
    XBackendUnsupportedValue = XBackendAncestor "Accepted" false "UnsupportedValue"
        "A field has a value that is not supported.";
    XBackendNoValidCaCertificate = XBackendAncestor "Accepted" false "NoValidCACertificate"
        "No reference leads to a certificate of an authority.";
    XBackendAffected = XBackendAncestor "portico.dev/BackendPolicyAffected" true "PolicyAffected"
        "A BackendPolicy applies.";
    XBackendResolvedRefs = XBackendAncestor "ResolvedRefs" true "ResolvedRefs" "All references are resolved.";
    XBackendInvalidCaCertificateRef = XBackendAncestor "ResolvedRefs" false "InvalidCACertificateRef"
        "A certificate of an authority cannot be used.";
    XBackendInvalidKind = XBackendAncestor "ResolvedRefs" false "InvalidKind"
        "A reference is to a kind that cannot be used.";
    XBackendInvalidClientCertificateRef = XBackendAncestor "ResolvedRefs" false "InvalidClientCertificateRef"
        "The client certificate cannot be used.";
    XBackendRefNotPermitted = XBackendAncestor "ResolvedRefs" false "RefNotPermitted"
        "A certificate in another namespace may not be used.";

    PolicyAccepted = Object "Accepted" true "Accepted" "The policy is valid.";
    PolicyConflicted = Object "Accepted" false "Conflicted" "Another Service of the same rule has a different policy.";

    ObjectProgrammed = Object "Programmed" true "Programmed" "The object is in effect.";
    ObjectInvalid = Object "Programmed" false "Invalid" "The object is not valid.";
    ObjectPending = Object "Programmed" false "Pending" "The object is not used yet.";
    ObjectDegraded = Object "Degraded" true "ServerUnavailable" "A required server does not respond.";
}

/// The condition of a route of which requests get an error in place of a response of the backend, because of plugins. A
/// route without such plugins does not have it.
pub const PLUGINS_RESOLVED: &str = "portico.dev/PluginsResolved";

/// The condition of a Gateway or GatewayClass of whose parameters some are ignored because of a mistake. One without
/// mistakes does not have it.
pub const PARAMETERS_VALID: &str = "portico.dev/ParametersValid";

impl Code {
    /// Whether the condition reports an error. Information, such as overlapping listeners, does not.
    pub fn is_error(self) -> bool {
        match self.condition() {
            "OverlappingTLSConfig" => false,
            // An unused object is not an error.
            _ if self == Code::ObjectPending => false,
            // Neither is a policy that others override.
            _ if matches!(self, Code::BackendPolicyReconciling | Code::BackendPolicyOverridden) => false,
            "Conflicted" | "Degraded" | "PartiallyInvalid" => self.status(),
            _ => !self.status(),
        }
    }

    /// The severity of the diagnostics that caused the condition. A pending condition is expected to resolve without a
    /// change by the user, so its diagnostics are warnings.
    pub fn severity(self) -> Severity {
        if self.is_error() && self.reason() != "Pending" { Severity::Error } else { Severity::Warning }
    }
}

impl Condition {
    pub fn new(code: Code, diagnostics: Vec<Diagnostic>) -> Self {
        let diagnostics = diagnostics.into_iter().map(|diagnostic| diagnostic.with_severity(code.severity())).collect();
        Condition { code, diagnostics, fact: None }
    }

    /// A condition whose message states a fact, which is a clause without a full stop.
    pub fn of_fact(code: Code, fact: String) -> Self {
        Condition { code, diagnostics: Vec::new(), fact: Some(fact) }
    }

    /// Adds a problem with a reference. The code of the first error becomes that of the condition; the message has all
    /// diagnostics.
    pub fn add(&mut self, code: Code, problem: Diagnostic) {
        if !self.code.is_error() {
            self.code = code;
        }
        self.diagnostics.push(problem.with_severity(code.severity()));
    }

    /// Adds the problems of another condition that this one does not have.
    pub fn add_all(&mut self, other: &Condition) {
        for problem in &other.diagnostics {
            if !self.diagnostics.contains(problem) {
                self.add(other.code, problem.clone());
            }
        }
    }

    /// A condition without diagnostics.
    pub fn without_diagnostics(code: Code) -> Self {
        Condition::new(code, Vec::new())
    }

    /// The message of the condition: all diagnostics, or the sentence of the code.
    pub fn message(&self) -> String {
        if self.diagnostics.is_empty() {
            return self.fact.as_ref().map_or_else(|| self.code.sentence().to_owned(), |fact| format!("{fact}."));
        }
        let mut parts: Vec<_> = self.diagnostics.iter().take(MAX_DIAGNOSTICS).map(Diagnostic::to_string).collect();
        if let Some(more) = self.diagnostics.len().checked_sub(MAX_DIAGNOSTICS).filter(|more| *more > 0) {
            parts.push(format!("And {more} more"));
        }
        // Gateway API requires this prefix if the other rules are served and the invalid ones are not.
        let prefix = if self.code == Code::RoutePartiallyInvalid { "Dropped Rule: " } else { "" };
        format!("{prefix}{}.", parts.join(". "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn informational_conditions_are_not_errors() {
        for (code, is_error) in [
            (Code::ListenerProgrammed, false),
            (Code::ListenerNotProgrammed, true),
            (Code::ListenerHostnameConflict, true),
            (Code::RoutePartiallyInvalid, true),
            (Code::ListenerOverlappingHostnames, false),
            (Code::ObjectPending, false),
            (Code::ObjectDegraded, true),
        ] {
            assert_eq!(code.is_error(), is_error, "{code:?}");
        }
    }
}
