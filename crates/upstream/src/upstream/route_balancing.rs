//! The load balancing that an object about routes sets for its own requests, in place of that of the Service.

use std::fmt;
use std::num::NonZeroU32;

/// The load balancing of the requests of some routes. Requests of others are balanced apart from them, because two
/// namespaces may use one Service in different ways. There are only a few, so that routes cannot multiply the state of
/// a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteBalancing {
    RoundRobin,
    /// By latency.
    PeakEwma,
    /// By the hash of what each rule says.
    Hash {
        /// How many endpoints a hash selects; `None` for one.
        subset_size: Option<NonZeroU32>,
    },
}

/// `in turn`, `by latency`, `by hash` or `by hash to 3`.
impl fmt::Display for RouteBalancing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteBalancing::RoundRobin => formatter.write_str("in turn"),
            RouteBalancing::PeakEwma => formatter.write_str("by latency"),
            RouteBalancing::Hash { subset_size: None } => formatter.write_str("by hash"),
            RouteBalancing::Hash { subset_size: Some(size) } => write!(formatter, "by hash to {size}"),
        }
    }
}
