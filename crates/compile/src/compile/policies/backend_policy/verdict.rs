//! The conditions of BackendPolicies: Accepted and Programmed.

use std::collections::{BTreeMap, BTreeSet};

use super::blocks::{Block, BlockSettings, is_or_are, names, timeout_notes};
use super::displacement::{Displacement, Precedence, displace};
use super::effective::{DryRun, is_dry_run};
use super::field_needs::{TargetTraffic, fields_without_effect};
use super::layers::first_with_block;
use super::policy_target::{PolicyTarget, upstreams_of};
use super::rule_settings::{has_parts_for_all_rules, own_rules};
use crate::api::portico::BackendPolicy;
use crate::api::{Kind, Object, ObjectKey};
use crate::compile::policies::precedence::policies_with_target;
use crate::compile::policies::target::{Target, TargetKind, TargetedPolicy};
use crate::compile::policies::users::{Findings, ServedUsers};
use crate::diagnostic::{Diagnostic, Reason};
use crate::store::Store;
use crate::transport_protocol::TransportProtocol;
use crate::upstream::UpstreamKey;
use crate::verdict::{Code, Condition};

/// What the verdict on a policy says; `None` if the policy does not exist.
/// `reference_problems` returns the problems with the references to other backends that apply to an upstream, each with
/// its block. `served`: the rules that send requests to the targets.
pub(in crate::compile) fn findings(
    store: &Store,
    key: &ObjectKey,
    served: &impl ServedUsers,
    reference_problems: impl Fn(&UpstreamKey) -> Vec<(Block, Diagnostic)>,
) -> Option<Findings> {
    let policy = store.backend_policies.get(key)?;
    let mut review = Review::new(store, policy, served);
    review.check_references(store, reference_problems);
    let conditions = vec![review.accepted(), review.programmed()];
    Some(Findings::Conditions { generation: policy.meta.generation, conditions, diagnostics: review.warnings })
}

/// What is found about a policy.
struct Review<'a> {
    policy: &'a Object<BackendPolicy>,
    /// The blocks that the policy sets.
    blocks: Vec<Block>,
    /// Problems with targets, one for each.
    target_problems: Vec<Diagnostic>,
    /// The problems of each invalid block.
    invalid: BTreeMap<Block, Vec<Diagnostic>>,
    /// Valid blocks that other policies, targets or rules set.
    displaced: Vec<Displacement>,
    /// The blocks that are in effect for at least one target.
    in_effect: BTreeSet<Block>,
    /// Blocks with mode DryRun that have no effect, and the policies with another mode.
    mixed_modes: Option<Diagnostic>,
    /// Fields without effect.
    unserved: Vec<Diagnostic>,
    /// Warnings that do not affect a condition.
    warnings: Vec<Diagnostic>,
}

impl<'a> Review<'a> {
    fn new(store: &'a Store, policy: &'a Object<BackendPolicy>, served: &impl ServedUsers) -> Self {
        let spec = &policy.spec;
        let target = PolicyTarget::new(TargetKind::Service, &policy.meta.key);
        let blocks: Vec<Block> = Block::all_in(spec).collect();
        let mut warnings = Vec::new();
        let mut invalid = BTreeMap::new();
        let mut settings = BlockSettings::default();
        for block in &blocks {
            // Problems do not depend on the target.
            let problems = block.translate(spec, &target, &mut settings);
            if !problems.is_empty() {
                invalid.insert(*block, problems);
            } else if *block == Block::Timeouts {
                warnings.extend(settings.traffic.timeouts.iter().flat_map(|timeouts| timeout_notes(timeouts)));
            }
        }
        let mut review = Review {
            policy,
            blocks,
            target_problems: target_problems(store, policy),
            invalid,
            displaced: Vec::new(),
            in_effect: BTreeSet::new(),
            mixed_modes: None,
            unserved: Vec::new(),
            warnings,
        };
        review.find_precedence(store, served);
        let unserved = fields_without_effect(spec, traffic(store, policy)).into_iter();
        let is_reported = |block: Option<Block>| block.is_none_or(|block| review.in_effect.contains(&block));
        review.unserved = unserved.filter(|(block, _)| is_reported(*block)).map(|(_, field)| field).collect();
        review
    }

    /// Finds which blocks are in effect for which targets.
    fn find_precedence(&mut self, store: &Store, served: &impl ServedUsers) {
        let own_key = &self.policy.meta.key;
        for reference in self.policy.target_references() {
            let Some(target) = reference.target::<BackendPolicy>(&own_key.namespace) else { continue };
            let Some(sections) = target.kind.sections(store, &target.key) else { continue };
            if target.section.is_some_and(|section| !sections.contains(&section)) {
                continue;
            }
            let same_target = policies_with_target::<BackendPolicy>(store, &target);
            let ports: Vec<_> = match target.section {
                None => sections.iter().filter(|name| !name.is_empty()).collect(),
                Some(_) => Vec::new(),
            };
            let of_ports: Vec<_> = ports
                .iter()
                .map(|name| {
                    policies_with_target::<BackendPolicy>(
                        store,
                        &Target { section: Some(name), ..target.whole_object() },
                    )
                })
                .collect();
            let name = described(&target);
            let has_own_sessions = target.kind == TargetKind::XBackend && sets_sessions(store, &target.key);
            let mut in_effect = BTreeSet::new();
            let valid = self.blocks.iter().copied().filter(|block| !self.invalid.contains_key(block));
            for block in valid {
                let first = first_with_block(&same_target, block).map(|first| &first.meta.key);
                if block == Block::SessionPersistence && has_own_sessions {
                    displace(&mut self.displaced, block, &name, Precedence::Target);
                    continue;
                }
                if let Some(first) = first.filter(|first| *first != own_key) {
                    displace(&mut self.displaced, block, &name, Precedence::Older(first.clone()));
                    continue;
                }
                let mut is_overridden = !ports.is_empty() && ports.len() == sections.len();
                for (port, policies) in ports.iter().zip(&of_ports) {
                    match first_with_block(policies, block) {
                        Some(of_port) => {
                            let (policy, port) = (of_port.meta.key.clone(), (**port).to_owned());
                            displace(&mut self.displaced, block, &name, Precedence::OfPort { policy, port });
                        }
                        None => is_overridden = false,
                    }
                }
                if !is_overridden {
                    in_effect.insert(block);
                }
            }
            for (block, rules) in own_rules(store, &target, &in_effect, served) {
                if rules.are_all && !has_parts_for_all_rules(block, &self.policy.spec) {
                    in_effect.remove(&block);
                }
                displace(&mut self.displaced, block, &name, Precedence::Rules(rules));
            }
            self.in_effect.append(&mut in_effect);
            self.check_mode(store, &target, &same_target);
        }
    }

    /// Policies with mode DryRun have no effect where others enforce health checks, limits or a circuit breaker.
    fn check_mode(&mut self, store: &Store, target: &Target<'_>, same_target: &[&Object<BackendPolicy>]) {
        if !is_dry_run(self.policy) || self.mixed_modes.is_some() {
            return;
        }
        let mut policies = same_target.to_vec();
        if target.section.is_some() {
            policies.extend(policies_with_target(store, &target.whole_object()));
        }
        if DryRun::of(&policies) != DryRun::Mixed {
            return;
        }
        let blocks: Vec<Block> =
            self.in_effect.iter().copied().filter(|block| block.has_dry_run() && self.blocks.contains(block)).collect();
        let mut others = Block::ALL.into_iter().filter(|block| block.has_dry_run());
        let enforced = others.find_map(|block| first_with_block(&policies, block).filter(|other| !is_dry_run(other)));
        if let Some(enforced) = enforced.filter(|_| !blocks.is_empty()) {
            let names = names(&blocks, &self.policy.spec);
            let verb = if names.contains(" and ") { "have" } else { "has" };
            let message = format!(
                "{names} {verb} no effect with DryRun, because {} {} enforces settings of {}",
                Kind::BackendPolicy,
                enforced.meta.key.name,
                described(target)
            );
            let remedy = "set the same mode in both policies";
            self.mixed_modes = Some(Diagnostic::warning("spec.mode", message, remedy));
            self.in_effect.retain(|block| !block.has_dry_run());
        }
    }

    /// Finds references to other backends that cannot be used.
    fn check_references(
        &mut self,
        store: &Store,
        reference_problems: impl Fn(&UpstreamKey) -> Vec<(Block, Diagnostic)>,
    ) {
        let namespace = &self.policy.meta.key.namespace;
        let targets = self.policy.target_references();
        let targets = targets.filter_map(|reference| reference.target::<BackendPolicy>(namespace));
        let problems = targets.flat_map(|target| upstreams_of(store, &target));
        let problems = problems.flat_map(|upstream| reference_problems(&upstream));
        let mut unusable = Vec::new();
        for (block, problem) in problems {
            if self.in_effect.contains(&block) && !unusable.contains(&problem) {
                unusable.push(problem);
            }
        }
        self.unserved.extend(unusable);
    }

    fn accepted(&self) -> Condition {
        if self.target_problems.len() == self.policy.target_references().count() {
            return Condition::new(Code::BackendPolicyTargetNotFound, self.target_problems.clone());
        }
        if !self.invalid.is_empty() {
            let problems = self.invalid.values().flatten().chain(&self.target_problems).cloned().collect();
            return Condition::new(Code::BackendPolicyInvalid, problems);
        }
        if !self.blocks.is_empty() && self.is_displaced_by_older() {
            let mut older: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
            for displacement in &self.displaced {
                older.entry(&displacement.target).or_default().extend(displacement.older().map(|by| &*by.name));
            }
            let conflicts = older.into_iter().map(|(target, policies)| {
                let noun = if policies.len() == 1 { "BackendPolicy" } else { "BackendPolicies" };
                let policies = policies.into_iter().collect::<Vec<_>>().join(" and ");
                let message = format!("Every block is already set for {target} by older {noun} {policies}");
                Diagnostic::of_object(message, "")
            });
            return Condition::new(Code::BackendPolicyConflicted, conflicts.collect());
        }
        Condition::new(Code::BackendPolicyAccepted, self.target_problems.clone())
    }

    /// Whether each block of the policy is that of an older policy with the same target, for all targets.
    fn is_displaced_by_older(&self) -> bool {
        self.in_effect.is_empty()
            && self.mixed_modes.is_none()
            && !self.displaced.is_empty()
            && self.displaced.iter().all(|displacement| displacement.older().is_some())
    }

    fn programmed(&self) -> Condition {
        let names_of = |blocks: &[Block]| names(blocks, &self.policy.spec);
        if self.target_problems.len() == self.policy.target_references().count() {
            let problem = Diagnostic::of_object("no target exists", "see the condition Accepted");
            return Condition::new(Code::BackendPolicyReconciling, vec![problem.with_reason(Reason::OtherCondition)]);
        }
        if self.blocks.is_empty() {
            let message = "the policy has no blocks, so it has no effect";
            let remedy = "add one, such as loadBalancing, or remove the policy";
            return Condition::new(Code::BackendPolicyReconciling, vec![Diagnostic::warning("spec", message, remedy)]);
        }
        let in_effect: Vec<Block> = self.in_effect.iter().copied().collect();
        if in_effect.is_empty() && self.displaced.is_empty() && self.mixed_modes.is_none() {
            let problem = Diagnostic::of_object("no block is valid", "see the condition Accepted");
            return Condition::new(Code::BackendPolicyReconciling, vec![problem.with_reason(Reason::OtherCondition)]);
        }
        let remedy = match &*in_effect {
            [] => String::new(),
            blocks => {
                let names = names_of(blocks);
                format!("{names} {} in effect", is_or_are(&names))
            }
        };
        let mut remarks = Vec::new();
        if !self.invalid.is_empty() {
            let invalid: Vec<Block> = self.invalid.keys().copied().collect();
            let names = names_of(&invalid);
            let message = format!("{names} {} not valid", is_or_are(&names));
            remarks.push(Diagnostic::of_object(message, remedy.clone()).with_reason(Reason::OtherCondition));
        }
        for displacement in &self.displaced {
            remarks.push(Diagnostic::of_object(displacement.message(&self.policy.spec), remedy.clone()));
        }
        remarks.extend(self.mixed_modes.clone());
        remarks.extend(self.unserved.iter().cloned());
        if in_effect.is_empty() {
            Condition::new(Code::BackendPolicyOverridden, remarks)
        } else if remarks.is_empty() {
            Condition::without_diagnostics(Code::BackendPolicyProgrammed)
        } else {
            Condition::new(Code::BackendPolicyPartiallyProgrammed, remarks)
        }
    }
}

/// Whether an XBackend has sessions of its own.
fn sets_sessions(store: &Store, key: &ObjectKey) -> bool {
    store.x_backends.get(key).is_some_and(|backend| backend.spec.session_persistence.is_some())
}

/// What the targets get, as far as their ports and the routes that refer to them say.
fn traffic(store: &Store, policy: &Object<BackendPolicy>) -> TargetTraffic {
    let references = policy.target_references();
    let targets = references.filter_map(|reference| reference.target::<BackendPolicy>(&policy.meta.key.namespace));
    let targets: Vec<Target<'_>> = targets.collect();
    let mut upstreams = targets.iter().flat_map(|target| upstreams_of(store, target)).peekable();
    if upstreams.peek().is_some() && upstreams.all(|upstream| upstream.transport == TransportProtocol::Udp) {
        return TargetTraffic::Datagrams;
    }
    let index = store.dependency_index();
    let has_users = |kinds: &[Kind]| {
        let of_kind =
            |target: &Target<'_>, kind: &Kind| index.dependents_of_kind(&target.object_id(), *kind).next().is_some();
        targets.iter().any(|target| kinds.iter().any(|kind| of_kind(target, kind)))
    };
    // A facade is a user of its Service, and Ingresses are its users.
    let of_requests = [Kind::HttpRoute, Kind::GrpcRoute, Kind::Ingress, TargetKind::Facade.kind()];
    let is_for_connections = has_users(&[Kind::TcpRoute, Kind::TlsRoute, Kind::TcpIngress]) && !has_users(&of_requests);
    if is_for_connections { TargetTraffic::Connections } else { TargetTraffic::Requests }
}

/// The targets that do not exist, or that the policy cannot apply to.
fn target_problems(store: &Store, policy: &Object<BackendPolicy>) -> Vec<Diagnostic> {
    let problems = policy.target_references().filter_map(|reference| {
        let Some(target) = reference.target::<BackendPolicy>(&policy.meta.key.namespace) else {
            let message = format!("the policy does not apply to objects of kind {}", reference.kind);
            let remedy = "refer to a Service, with an empty group, an XBackend or a KongServiceFacade";
            return Some(Diagnostic::of_object(message, remedy));
        };
        let Some(sections) = target.kind.sections(store, &target.key) else {
            let object = target.object_id().to_string();
            let remedy = "a policy targets objects of its own namespace";
            let problem = Diagnostic::of_object(format!("{object} does not exist"), remedy);
            return Some(problem.with_reason(Reason::NotFound(object)));
        };
        let section = target.section.filter(|section| !sections.contains(section))?;
        let (kind, name, noun) = (target.kind.kind(), &target.key.name, target.kind.section_noun());
        let names: Vec<&str> = sections.into_iter().filter(|section| !section.is_empty()).collect();
        let remedy = match &*names {
            [] => format!("its {noun}s have no names, so remove sectionName"),
            [only] => format!("its {noun} is {only}"),
            several => format!("its {noun}s are {}", several.join(", ")),
        };
        Some(Diagnostic::of_object(format!("{kind} {name} has no {noun} {section:?}"), remedy))
    });
    problems.collect()
}

/// `Service cart`, or `port http of Service cart`: all targets are in the namespace of the policy.
fn described(target: &Target<'_>) -> String {
    let object = format!("{} {}", target.kind.kind(), target.key.name);
    match target.section {
        Some(section) => format!("{} {section} of {object}", target.kind.section_noun()),
        None => object,
    }
}
