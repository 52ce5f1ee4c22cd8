//! `spec.failover` and `spec.circuitBreaker.fallback.backendRef`: the upstreams that get the requests of another one.
//!
//! An alternative of a used upstream is itself used, so that it has endpoints. Alternatives that lead back to the
//! upstream are refused: two upstreams that keep each other would never be removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::Kind;
use crate::api::gateway::BackendObjectReference;
use crate::api::portico::BackendPolicySpec;
use crate::compile::CompileContext;
use crate::compile::affected::keys_of_kind;
use crate::compile::backend::upstream_usage::UpstreamUsage;
use crate::compile::backend::{StreamBackend, reference};
use crate::compile::kong::{service_annotations, service_facade};
use crate::compile::objects::reference_grants::Referrer;
use crate::compile::policies::backend_policy::{
    Block, backend_key, failover_settings, first_with_block, is_enforceable, policies_of_upstream,
};
use crate::diagnostic::Diagnostic;
use crate::endpoint_tls::UpstreamProtocol;
use crate::store::{Changes, Store};
use crate::transport_protocol::TransportProtocol;
use crate::upstream::{AlternativeBackends, UpstreamKey, UpstreamSource};

/// The alternatives of the used upstreams.
#[derive(Debug, Default)]
pub(super) struct UpstreamAlternatives {
    by_upstream: BTreeMap<UpstreamKey, Arc<AlternativeBackends>>,
}

impl UpstreamAlternatives {
    pub(super) fn of(&self, upstream: &UpstreamKey) -> Option<Arc<AlternativeBackends>> {
        self.by_upstream.get(upstream).cloned()
    }

    /// Updates the alternatives of touched upstreams and of those that became used or unused, which are in `changed`.
    /// Adds the alternatives that become used or unused thereby.
    pub(super) fn update(
        &mut self,
        cx: CompileContext<'_>,
        touched: &Changes,
        usage: &mut UpstreamUsage,
        changed: &mut BTreeSet<UpstreamKey>,
    ) {
        if cx.store.backend_policies.is_empty() && self.by_upstream.is_empty() {
            return;
        }
        let behind_facades = service_facade::services_of_changed(cx.store, touched);
        let services = keys_of_kind(touched, Kind::Service).chain(keys_of_kind(touched, Kind::XBackend));
        let of_touched = services.chain(&behind_facades).flat_map(|key| usage.of_name(key));
        let mut pending: Vec<UpstreamKey> = of_touched.chain(&*changed).cloned().collect();
        // Ends because alternatives do not lead back to an upstream.
        while let Some(upstream) = pending.pop() {
            let after = usage.is_used(&upstream).then(|| alternatives(cx, &upstream)).flatten();
            let before = self.by_upstream.get(&upstream);
            if before.map(|before| &**before) == after.as_ref() {
                continue;
            }
            let mut further = BTreeSet::new();
            let before = before.map(|before| keys(before)).unwrap_or_default();
            usage.replace(&before, &after.as_ref().map(keys).unwrap_or_default(), &mut further);
            match after {
                Some(after) => drop(self.by_upstream.insert(upstream, Arc::new(after))),
                None => drop(self.by_upstream.remove(&upstream)),
            }
            pending.extend(further.iter().cloned());
            changed.append(&mut further);
        }
    }
}

/// The upstreams that an upstream needs, each once.
fn keys(alternatives: &AlternativeBackends) -> Vec<UpstreamKey> {
    let AlternativeBackends { failover, circuit_fallback, .. } = alternatives;
    let keys: BTreeSet<&UpstreamKey> = failover.iter().chain(circuit_fallback).collect();
    keys.into_iter().cloned().collect()
}

/// The usable alternatives of an upstream; `None` if it has none.
fn alternatives(cx: CompileContext<'_>, upstream: &UpstreamKey) -> Option<AlternativeBackends> {
    let policies = policies_of_upstream(cx.store, upstream);
    let spec = first_with_block(&policies, Block::Failover).and_then(|policy| policy.spec.failover.as_ref());
    let mut problems = Vec::new();
    let settings = spec.map(|spec| failover_settings(spec, &mut problems));
    let (min_available_percent, on_statuses) = settings.filter(|_| problems.is_empty()).unwrap_or_default();
    let (failover, circuit) = permitted_references(cx, upstream);
    let failover: Box<[UpstreamKey]> = if problems.is_empty() { failover.into() } else { Box::default() };
    if failover.is_empty() && circuit.is_none() {
        return None;
    }
    Some(AlternativeBackends {
        failover,
        min_available_percent: min_available_percent.max(1),
        on_statuses,
        circuit_fallback: circuit,
    })
}

/// The alternatives that do not lead back to the upstream: those of the failover, and that of the circuit breaker.
fn permitted_references(cx: CompileContext<'_>, upstream: &UpstreamKey) -> (Vec<UpstreamKey>, Option<UpstreamKey>) {
    let (mut failover, mut circuit) = (Vec::new(), None);
    for Reference { block, resolved, .. } in references(cx, upstream) {
        let Ok(key) = resolved else { continue };
        if leads_to(cx, &key, upstream) || failover.contains(&key) && block == Block::Failover {
            continue;
        }
        match block {
            Block::Failover => failover.push(key),
            _ => circuit = Some(key),
        }
    }
    (failover, circuit)
}

/// A reference of a policy to another backend.
struct Reference {
    block: Block,
    /// The path of the reference.
    field: String,
    resolved: Result<UpstreamKey, Diagnostic>,
}

/// The references of the policies in effect for an upstream.
fn references(cx: CompileContext<'_>, upstream: &UpstreamKey) -> Vec<Reference> {
    let policies = policies_of_upstream(cx.store, upstream);
    let failover = first_with_block(&policies, Block::Failover).into_iter().flat_map(|policy| {
        let backends = policy.spec.failover.iter().flat_map(|failover| failover.backend_refs.iter().enumerate());
        backends.map(move |(index, backend)| {
            (policy, Block::Failover, format!("spec.failover.backendRefs[{index}]"), backend)
        })
    });
    // The circuit breaker is taken whole from one policy, and is not used if it is not valid or may not be enforced.
    let of_circuit = first_with_block(&policies, Block::CircuitBreaker).and_then(|policy| {
        let backend = circuit_reference(&policy.spec)?;
        let is_used = is_enforceable(Block::CircuitBreaker, policy, &policies);
        is_used.then(|| (policy, Block::CircuitBreaker, CIRCUIT_FIELD.to_owned(), backend))
    });
    let references = failover.chain(of_circuit).map(|(policy, block, field, backend)| {
        let from = Referrer { kind: Kind::BackendPolicy, namespace: &policy.meta.key.namespace };
        let resolved = resolve(cx, from, upstream, backend, &field);
        Reference { block, field, resolved }
    });
    references.collect()
}

const CIRCUIT_FIELD: &str = "spec.circuitBreaker.fallback.backendRef";

fn circuit_reference(spec: &BackendPolicySpec) -> Option<&BackendObjectReference> {
    spec.circuit_breaker.as_ref()?.fallback.as_ref()?.backend_ref.as_ref()
}

/// The upstream of a reference. Datagrams need a UDP port, and calls a backend with HTTP/2, as that of the route is.
fn resolve(
    cx: CompileContext<'_>,
    from: Referrer<'_>,
    upstream: &UpstreamKey,
    backend: &BackendObjectReference,
    field: &str,
) -> Result<UpstreamKey, Diagnostic> {
    if upstream.transport == TransportProtocol::Udp {
        let stream = StreamBackend { transport: TransportProtocol::Udp, is_encrypted: false };
        let settings = service_annotations::for_gateway_api;
        let datagrams = reference::stream_upstream(cx, from, backend, settings, stream, field);
        return datagrams.map_err(|(_, problem)| problem);
    }
    let is_for_calls = upstream.protocol == UpstreamProtocol::Http2 && !names_http2(cx.store, upstream);
    let settings = match is_for_calls {
        true => service_annotations::for_grpc,
        false => service_annotations::for_gateway_api,
    };
    reference::alternative_upstream(cx, from, backend, settings, is_for_calls, field).map_err(|(_, problem)| problem)
}

/// Whether the backend itself names HTTP/2, so that it does not show which kind of route uses it.
fn names_http2(store: &Store, upstream: &UpstreamKey) -> bool {
    let key = backend_key(upstream);
    match upstream.source {
        UpstreamSource::Service => store.services.get(&key).is_some_and(|service| {
            let mut ports = service.spec.ports.iter().filter(|port| port.port == i32::from(upstream.port));
            ports.any(|port| port.app_protocol.as_deref() == Some("kubernetes.io/h2c"))
        }),
        UpstreamSource::XBackend => store
            .x_backends
            .get(&key)
            .is_some_and(|backend| matches!(backend.spec.protocol.as_deref(), Some("HTTP2" | "H2C" | "GRPC"))),
    }
}

/// Whether the alternatives of `start`, and their alternatives, include `upstream`.
fn leads_to(cx: CompileContext<'_>, start: &UpstreamKey, upstream: &UpstreamKey) -> bool {
    type Backend<'k> = (UpstreamSource, &'k str, &'k str, u16);
    fn backend(key: &UpstreamKey) -> Backend<'_> {
        (key.source, &key.namespace, &key.service, key.port)
    }
    let mut seen: Vec<UpstreamKey> = Vec::new();
    let mut pending = vec![start.clone()];
    while let Some(key) = pending.pop() {
        if backend(&key) == backend(upstream) {
            return true;
        }
        if seen.iter().any(|known| backend(known) == backend(&key)) {
            continue;
        }
        pending.extend(references(cx, &key).into_iter().filter_map(|reference| reference.resolved.ok()));
        seen.push(key);
    }
    false
}

/// The problems with the references of a policy where it is in effect for an upstream, each with its block.
pub(super) fn reference_problems(cx: CompileContext<'_>, upstream: &UpstreamKey) -> Vec<(Block, Diagnostic)> {
    let problems = references(cx, upstream).into_iter().filter_map(|reference| {
        let Reference { block, field, resolved } = reference;
        let problem = match resolved {
            Err(problem) => problem,
            Ok(key) if leads_to(cx, &key, upstream) => {
                let message = "the backend leads back to the target of the policy, so it gets no requests";
                Diagnostic::error(field, message, "refer to a backend whose own policy does not name the target")
            }
            Ok(_) => return None,
        };
        Some((block, problem))
    });
    problems.collect()
}
