//! The result of a pick, and how often workers have which.

use std::net::SocketAddr;

use crate::upstream::single_writer_counter::SingleWriterCounter;

/// The endpoint for an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picked {
    pub address: SocketAddr,
    pub because: PickedBecause,
    /// The request is the only trial of this half-open endpoint until this time of the upstream's clock.
    pub(in crate::upstream) claimed_until: Option<u64>,
}

/// Why an endpoint was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickedBecause {
    /// It is what the algorithm selects.
    Preferred,
    /// The nearer endpoints share their requests with it, because too few of them are available.
    Spilled,
    /// It is the endpoint of the session.
    Pinned,
    /// What the algorithm selects is ejected, or was tried already.
    Walked,
    /// What the algorithm or the session selects has as many requests as it may have.
    OverLimit,
    /// Too few endpoints are available, so ejected ones are used as well.
    Panic,
}

/// Why there is no endpoint for an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEndpoint {
    /// There are none, or none that were not tried.
    None,
    /// All are ejected, and the request may not or cannot try one of them.
    Unavailable,
    /// Each has as many requests as it may have.
    OverLimit,
}

impl PickedBecause {
    pub const ALL: [PickedBecause; 6] = [
        PickedBecause::Preferred,
        PickedBecause::Spilled,
        PickedBecause::Pinned,
        PickedBecause::Walked,
        PickedBecause::OverLimit,
        PickedBecause::Panic,
    ];

    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            PickedBecause::Preferred => "preferred",
            PickedBecause::Spilled => "spill",
            PickedBecause::Pinned => "pinned",
            PickedBecause::Walked => "walked",
            PickedBecause::OverLimit => "over_limit",
            PickedBecause::Panic => "panic",
        }
    }
}

/// The picks of one worker for one upstream.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(in crate::upstream) struct PickCounts([SingleWriterCounter; PickedBecause::ALL.len()]);

impl PickCounts {
    pub(in crate::upstream) fn add(&self, because: PickedBecause) {
        self.0[because as usize].add(1);
    }

    pub(in crate::upstream) fn value(&self, because: PickedBecause) -> u64 {
        self.0[because as usize].value()
    }
}
