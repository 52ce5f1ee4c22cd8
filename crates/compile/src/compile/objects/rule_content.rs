//! What tells a rule from one that has had its name: what is stored for one of them must not reach clients of the
//! other.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::api::Meta;

/// A hash of what a rule does with requests, apart from its plugins: equal in every process. `target`: its filters and
/// backends. The annotations of its object count but for what `kubectl apply` keeps in one of them: the whole object,
/// with the shares of the backends, which change often while one is replaced.
pub(in crate::compile) fn rule_content(meta: &Meta, target: &impl Hash) -> u64 {
    // `DefaultHasher` has no random seed.
    let mut hasher = DefaultHasher::new();
    target.hash(&mut hasher);
    let annotations = meta.annotations.iter().filter(|(name, _)| ***name != *LAST_APPLIED);
    annotations.for_each(|annotation| annotation.hash(&mut hasher));
    hasher.finish()
}

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
