//! The load balancing that an object about routes sets for its own requests, in place of that of the Service.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

/// The load balancing of the requests of some routes. Requests of others are balanced apart from them, because two
/// namespaces may use one Service in different ways.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteBalancing {
    RoundRobin,
    /// By latency.
    PeakEwma,
    /// By the hash of a text.
    Hash {
        /// The text with variables of nginx, such as `$request_uri`.
        text: Arc<str>,
        /// How many endpoints a hash selects; `None` for one.
        subset_size: Option<NonZeroU32>,
    },
}

/// `in turn`, `by latency`, `by $request_uri` or `by $request_uri to 3`.
impl fmt::Display for RouteBalancing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteBalancing::RoundRobin => formatter.write_str("in turn"),
            RouteBalancing::PeakEwma => formatter.write_str("by latency"),
            RouteBalancing::Hash { text, subset_size: None } => write!(formatter, "by {text}"),
            RouteBalancing::Hash { text, subset_size: Some(size) } => write!(formatter, "by {text} to {size}"),
        }
    }
}
