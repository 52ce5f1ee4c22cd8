//! The search for an endpoint for one request or connection, which avoids those that have failed for it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::endpoint_trial::EndpointTrial;
use super::{ConnectionPools, EndpointChoice, NoEndpoint, PickedBecause, Upstream};

/// The endpoints that one request or connection gets, one after the other.
#[derive(Debug)]
pub struct EndpointSearch {
    pinned: Option<SocketAddr>,
    /// The hash of the request, if the upstream hashes.
    hash: Option<u64>,
    /// Why the last endpoint was picked.
    picked_because: Option<PickedBecause>,
    /// Does not allocate unless an attempt fails.
    failed: Vec<SocketAddr>,
    is_repeatable: bool,
    /// The last endpoint was half-open, and this is the only request that it is tried with.
    trial: Option<Box<EndpointTrial>>,
}

/// Why a request got its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointPick {
    because: PickedBecause,
    /// The request has what the upstream hashes.
    is_hashed: bool,
    /// Another endpoint has failed before.
    is_repeated: bool,
}

impl EndpointPick {
    /// The name in logs.
    pub fn name(self) -> &'static str {
        match self.because {
            PickedBecause::Preferred | PickedBecause::Walked | PickedBecause::Spilled if self.is_repeated => "retry",
            PickedBecause::Preferred if self.is_hashed => "hash",
            because => because.as_str(),
        }
    }
}

impl EndpointSearch {
    /// `pinned` is for the first attempt only, and `hash` for all of them.
    pub fn new(pinned: Option<SocketAddr>, hash: Option<u64>) -> Self {
        EndpointSearch { pinned, hash, picked_because: None, failed: Vec::new(), is_repeatable: true, trial: None }
    }

    /// Whether the request can be sent again if it fails, which is so by default.
    pub fn repeatable(self, is_repeatable: bool) -> Self {
        EndpointSearch { is_repeatable, ..self }
    }

    /// The next endpoint. If endpoints may be repeated, that there are no others is no error.
    pub fn next<B>(
        &mut self,
        pools: &ConnectionPools<B>,
        upstream: &Arc<Upstream>,
        may_repeat: bool,
    ) -> Result<SocketAddr, NoEndpoint> {
        let (pinned, hash, is_repeatable) = (self.pinned.take(), self.hash, self.is_repeatable);
        let choice = EndpointChoice { avoid: &self.failed, pinned, hash, may_repeat, is_repeatable };
        let picked = pools.pick(upstream, &choice)?;
        self.picked_because = Some(picked.because);
        let claimed = picked.claimed_until.and_then(|until| upstream.trial(picked.address, until));
        self.trial = claimed.map(Box::new);
        Ok(picked.address)
    }

    /// The trial of the last endpoint, if its result arrives with the rest of the response.
    pub fn take_trial(&mut self) -> Option<Box<EndpointTrial>> {
        self.trial.take()
    }

    /// The hash of the request.
    pub fn hash(&self) -> Option<u64> {
        self.hash
    }

    /// Why the last endpoint was picked.
    pub fn pick(&self) -> Option<EndpointPick> {
        let (is_hashed, is_repeated) = (self.hash.is_some(), !self.failed.is_empty());
        self.picked_because.map(|because| EndpointPick { because, is_hashed, is_repeated })
    }

    /// The attempt at this endpoint has failed.
    pub fn avoid(&mut self, address: SocketAddr) {
        if self.failed.contains(&address) {
            // All were tried, so they are tried again in turn.
            self.failed.clear();
        }
        self.failed.push(address);
    }

    /// Whether the upstream has an endpoint that has not failed yet.
    pub fn has_others(&self, upstream: &Upstream) -> bool {
        upstream.reachable().iter().any(|endpoint| !self.failed.contains(&endpoint.address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_are_named_by_what_has_decided() {
        use PickedBecause::{OverLimit, Panic, Pinned, Preferred, Spilled, Walked};
        for (because, is_hashed, is_repeated, expected) in [
            (Preferred, false, false, "preferred"),
            (Preferred, true, false, "hash"),
            (Preferred, true, true, "retry"),
            (Walked, true, false, "walked"),
            (Walked, false, true, "retry"),
            (Spilled, false, false, "spill"),
            (Spilled, false, true, "retry"),
            (Pinned, true, false, "pinned"),
            (OverLimit, true, true, "over_limit"),
            (Panic, false, true, "panic"),
        ] {
            let pick = EndpointPick { because, is_hashed, is_repeated };
            assert_eq!(pick.name(), expected, "{pick:?}");
        }
    }
}
