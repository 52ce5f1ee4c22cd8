//! The order of matches that are equal otherwise.

use std::sync::Arc;

/// Decides between equal matches: by creation time, then by name, then by order in the route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TieBreaker {
    /// Seconds since 1970. `None` sorts as the oldest.
    pub created: Option<i64>,
    /// `namespace/name` of the route.
    pub route: Arc<str>,
    /// The position of the rule in the route.
    pub rule: u16,
    /// The position of the match in the rule.
    pub index: u16,
}
