//! What we think of an object: the conditions that become its status, each with reasons a person can act on.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::api::gateway::{ParentReference, RouteGroupKind};
use crate::api::{Kind, ObjectId};

/// All verdicts of one compile, by object.
pub type Verdicts = BTreeMap<ObjectId, Arc<Verdict>>;

/// What we think of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The generation of the object this speaks of; it is the `observedGeneration` of every condition.
    pub generation: i64,
    /// Conditions of the object itself. An Ingress has no place for them in its status: there they are for people and events.
    pub conditions: Vec<Condition>,
    /// What a GatewayClass can do, by the names of Gateway API, in order. Known to whoever knows what is installed.
    pub supported_features: Vec<&'static str>,
    /// Addresses of a Gateway: IP addresses, or names.
    pub addresses: Vec<String>,
    /// Per listener of a Gateway, in the order of its spec.
    pub listeners: Vec<ListenerVerdict>,
    /// Per parent of a route, in the order of its spec.
    pub parents: Vec<ParentVerdict>,
    /// Per Service, or what stands in for one, that uses a policy: the oldest first.
    pub ancestors: Vec<AncestorVerdict>,
    /// Where an Ingress can be reached. None if its status is to be left alone.
    pub load_balancer: Option<Vec<Published>>,
    /// Where an Ingress is listened for; whether the system lets us is for others to find out.
    pub sockets: Vec<SocketAddr>,
    /// Remarks on objects that have no conditions (Service, Secret, kinds not served yet).
    pub notes: Vec<Problem>,
    /// Gateways that a route names and that do not exist: whose they would be nobody can know. They are in `notes`, too.
    pub missing_parents: Vec<Problem>,
    /// Plugins of a route that do not do their work, with what comes of it. They are in `notes`, too.
    pub broken_plugins: Vec<Problem>,
    /// What somebody wrote into annotations and nobody heeds, since it cannot be. They are in `notes`, too.
    pub unheeded: Vec<Problem>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerVerdict {
    pub name: String,
    /// Its own, which is not always that of its sockets.
    pub port: u16,
    pub attached_routes: u32,
    pub supported_kinds: Vec<RouteGroupKind>,
    /// Where it listens, if it can be served at all; whether the system lets us is for others to find out.
    pub sockets: Vec<SocketAddr>,
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentVerdict {
    /// In whose name we speak: the controller of the parent's GatewayClass.
    pub controller: Arc<str>,
    /// Index into `spec.parentRefs`.
    pub index: usize,
    pub parent: ParentReference,
    pub conditions: Vec<Condition>,
}

/// What a policy means to one object that uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AncestorVerdict {
    /// Service or KongServiceFacade, of the policy's namespace.
    pub kind: Kind,
    pub name: Arc<str>,
    pub conditions: Vec<Condition>,
}

/// An entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Published {
    Ip(String),
    Hostname(String),
}

/// One condition. `False`, and `True` with a remark, carry the problems that made it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub code: Code,
    pub problems: Vec<Problem>,
}

/// One thing that is wrong, where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Path in the object, for example `spec.rules[0].backendRefs[0].name`.
    pub field: String,
    /// What is wrong: a clause without a full stop.
    pub message: String,
    /// What would be right: a clause without a full stop.
    pub remedy: String,
}

impl Verdict {
    /// All conditions, each with the path of what carries it: empty for the object itself.
    pub fn every_condition(&self) -> impl Iterator<Item = (String, &Condition)> {
        let own = self.conditions.iter().map(|condition| (String::new(), condition));
        let listeners = self.listeners.iter().enumerate().flat_map(|(index, listener)| {
            listener.conditions.iter().map(move |condition| (format!("spec.listeners[{index}]"), condition))
        });
        let parents = self.parents.iter().flat_map(|parent| {
            parent.conditions.iter().map(|condition| (format!("spec.parentRefs[{}]", parent.index), condition))
        });
        let ancestors = self
            .ancestors
            .iter()
            .flat_map(|ancestor| ancestor.conditions.iter().map(|condition| (String::new(), condition)));
        own.chain(listeners).chain(parents).chain(ancestors)
    }
}

impl Problem {
    pub fn new(field: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem { field: field.into(), message: message.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(formatter, "{}: ", self.field)?;
        }
        write!(formatter, "{}; {}", self.message, self.remedy)
    }
}

/// How many problems a message tells: the API caps messages at 32,768 characters, and nobody reads that many.
const MOST_PROBLEMS: usize = 16;

/// Which kind of thing carries a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bearer {
    GatewayClass,
    Gateway,
    Listener,
    RouteParent,
    /// A plugin, a consumer and the like.
    Kong,
}

/// Every (bearer, condition, status, reason) that we can say. Closed, so that a test can ask for an example of each.
macro_rules! codes {
    ($($name:ident = $bearer:ident $condition:literal $status:literal $reason:literal $sentence:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code { $($name),* }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            pub fn bearer(self) -> Bearer {
                match self { $(Code::$name => Bearer::$bearer),* }
            }

            /// The condition's `type`.
            pub fn condition(self) -> &'static str {
                match self { $(Code::$name => $condition),* }
            }

            /// True or False; we never say Unknown.
            pub fn status(self) -> bool {
                match self { $(Code::$name => $status),* }
            }

            pub fn reason(self) -> &'static str {
                match self { $(Code::$name => $reason),* }
            }

            /// The message when there is no problem to tell.
            pub fn sentence(self) -> &'static str {
                match self { $(Code::$name => $sentence),* }
            }
        }
    };
}

codes! {
    ClassAccepted = GatewayClass "Accepted" true "Accepted" "Portico serves the Gateways of this class.";
    ClassInvalidParameters = GatewayClass "Accepted" false "InvalidParameters" "The parameters cannot be used.";

    ClassSupportedVersion = GatewayClass "SupportedVersion" true "SupportedVersion" "The installed release of Gateway API is served.";
    ClassUnsupportedVersion = GatewayClass "SupportedVersion" false "UnsupportedVersion" "The installed release of Gateway API is not known.";

    GatewayAccepted = Gateway "Accepted" true "Accepted" "The Gateway is valid.";
    GatewaySomeListenersInvalid = Gateway "Accepted" true "ListenersNotValid" "Some listeners are not valid.";
    GatewayNoListenerValid = Gateway "Accepted" false "ListenersNotValid" "No listener is valid.";
    GatewayUnsupportedAddress = Gateway "Accepted" false "UnsupportedAddress" "An address is of a type that cannot be used.";
    GatewayInvalidParameters = Gateway "Accepted" false "InvalidParameters" "The parameters cannot be used.";
    GatewayInvalid = Gateway "Accepted" false "Invalid" "The GatewayClass is not accepted.";
    GatewayProgrammed = Gateway "Programmed" true "Programmed" "The Gateway is being served.";
    GatewayAddressNotUsable = Gateway "Programmed" false "AddressNotUsable" "An address cannot be used.";
    GatewayAddressNotAssigned = Gateway "Programmed" false "AddressNotAssigned" "There is no address yet.";
    GatewayNotProgrammed = Gateway "Programmed" false "Invalid" "No listener can be served.";

    ListenerAccepted = Listener "Accepted" true "Accepted" "The listener is valid.";
    ListenerUnsupportedProtocol = Listener "Accepted" false "UnsupportedProtocol" "The protocol is not served.";
    ListenerUnsupportedValue = Listener "Accepted" false "UnsupportedValue" "A field has a value that cannot be honored.";
    ListenerHostnameConflictRefused = Listener "Accepted" false "HostnameConflict" "Another listener has this port and hostname.";
    ListenerProtocolConflictRefused = Listener "Accepted" false "ProtocolConflict" "Another listener uses this port for another protocol.";
    ListenerPortUnavailable = Listener "Accepted" false "PortUnavailable" "The port is taken.";
    ListenerProgrammed = Listener "Programmed" true "Programmed" "The listener is being served.";
    ListenerHostnameConflictUnserved = Listener "Programmed" false "HostnameConflict" "Another listener has this port and hostname.";
    ListenerProtocolConflictUnserved = Listener "Programmed" false "ProtocolConflict" "Another listener uses this port for another protocol.";
    ListenerNotProgrammed = Listener "Programmed" false "Invalid" "The listener cannot be served.";
    ListenerPending = Listener "Programmed" false "Pending" "The port is not open yet.";
    ListenerResolvedRefs = Listener "ResolvedRefs" true "ResolvedRefs" "All references are resolved.";
    ListenerInvalidRouteKinds = Listener "ResolvedRefs" false "InvalidRouteKinds" "A kind of route cannot attach here.";
    ListenerInvalidCertificateRef = Listener "ResolvedRefs" false "InvalidCertificateRef" "A certificate cannot be used.";
    ListenerRefNotPermitted = Listener "ResolvedRefs" false "RefNotPermitted" "A certificate may not be used from here.";
    ListenerHostnameConflict = Listener "Conflicted" true "HostnameConflict" "Another listener has this port and hostname.";
    ListenerProtocolConflict = Listener "Conflicted" true "ProtocolConflict" "Another listener uses this port for another protocol.";
    ListenerOverlappingHostnames = Listener "OverlappingTLSConfig" true "OverlappingHostnames" "Another listener of this port has an overlapping hostname.";
    ListenerOverlappingCertificates = Listener "OverlappingTLSConfig" true "OverlappingCertificates" "A certificate is good for hosts of another listener of this port.";

    RouteAccepted = RouteParent "Accepted" true "Accepted" "The route is attached.";
    RouteNoMatchingParent = RouteParent "Accepted" false "NoMatchingParent" "The parent has no such listener.";
    RouteNotAllowedByListeners = RouteParent "Accepted" false "NotAllowedByListeners" "No listener lets this route in.";
    RouteNoMatchingListenerHostname = RouteParent "Accepted" false "NoMatchingListenerHostname" "No hostname is one of a listener.";
    RouteUnsupportedValue = RouteParent "Accepted" false "UnsupportedValue" "No rule can be honored.";
    RouteResolvedRefs = RouteParent "ResolvedRefs" true "ResolvedRefs" "All references are resolved.";
    RouteRefNotPermitted = RouteParent "ResolvedRefs" false "RefNotPermitted" "A backend may not be used from here.";
    RouteInvalidKind = RouteParent "ResolvedRefs" false "InvalidKind" "A reference is to a kind that cannot be used.";
    RouteBackendNotFound = RouteParent "ResolvedRefs" false "BackendNotFound" "A backend does not exist.";
    RouteUnsupportedProtocol = RouteParent "ResolvedRefs" false "UnsupportedProtocol" "A backend speaks a protocol that is not served.";
    RouteInvalidBackendTls = RouteParent "ResolvedRefs" false "InvalidBackendTLS" "A backend cannot be spoken to in TLS as its annotations want.";
    RoutePartiallyInvalid = RouteParent "PartiallyInvalid" true "UnsupportedValue" "Some rules cannot be honored.";

    PolicyAccepted = Kong "Accepted" true "Accepted" "The policy is valid.";
    PolicyConflicted = Kong "Accepted" false "Conflicted" "Another Service of the same rule has another policy.";

    KongProgrammed = Kong "Programmed" true "Programmed" "The object is in effect.";
    KongInvalid = Kong "Programmed" false "Invalid" "The object cannot be used as it is.";
    KongPending = Kong "Programmed" false "Pending" "The object is not used yet.";
    KongDegraded = Kong "Degraded" true "ServerUnavailable" "A server that it needs does not answer.";
}

impl Code {
    /// Whether something is wrong. What is only to be known, such as listeners that overlap, is not.
    pub fn is_bad(self) -> bool {
        match self.condition() {
            "OverlappingTLSConfig" => false,
            // Nobody misses what nobody uses.
            _ if self == Code::KongPending => false,
            "Conflicted" | "Degraded" | "PartiallyInvalid" => self.status(),
            _ => !self.status(),
        }
    }
}

impl Condition {
    pub fn new(code: Code, problems: Vec<Problem>) -> Self {
        Condition { code, problems }
    }

    /// A condition without remarks.
    pub fn plain(code: Code) -> Self {
        Condition::new(code, Vec::new())
    }

    /// The message of the condition: all problems, or the sentence of the code.
    pub fn message(&self) -> String {
        if self.problems.is_empty() {
            return self.code.sentence().to_owned();
        }
        let mut parts: Vec<_> = self.problems.iter().take(MOST_PROBLEMS).map(Problem::to_string).collect();
        if let Some(more) = self.problems.len().checked_sub(MOST_PROBLEMS).filter(|more| *more > 0) {
            parts.push(format!("And {more} more problems like these"));
        }
        // Gateway API wants this message to start so, since it says what became of the rules that are left.
        let start = if self.code == Code::RoutePartiallyInvalid { "Dropped Rule: " } else { "" };
        format!("{start}{}.", parts.join(". "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_and_what_is_only_to_be_known() {
        for (code, is_bad) in [
            (Code::ListenerProgrammed, false),
            (Code::ListenerNotProgrammed, true),
            (Code::ListenerHostnameConflict, true),
            (Code::RoutePartiallyInvalid, true),
            (Code::ListenerOverlappingHostnames, false),
            (Code::KongPending, false),
            (Code::KongDegraded, true),
        ] {
            assert_eq!(code.is_bad(), is_bad, "{code:?}");
        }
    }
}
