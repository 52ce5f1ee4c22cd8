//! Which requests are recorded.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::random_ids::RandomIds;

/// What the decision of a client means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SamplingStrategy {
    /// A trace that the client does not record is not recorded. All others are recorded by the rate, so that clients
    /// cannot cause more records.
    #[default]
    #[serde(rename = "parent_drop_probability_fallback")]
    ParentDrop,
    /// The decision of the client counts. Requests without one are recorded by the rate.
    #[serde(rename = "parent_probability_fallback")]
    Parent,
}

/// The rule by which requests are selected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// From 0 to 1.
    pub rate: f64,
    pub strategy: SamplingStrategy,
}

impl Sampling {
    /// Whether a request is recorded. The number of the draw is random, and not derived from the trace, which clients
    /// choose.
    pub fn decide(self, parent: Option<bool>) -> bool {
        self.decide_by(parent, || RandomIds::with(RandomIds::f64))
    }

    /// The same with a draw from 0 to 1, which is only made if it matters.
    pub fn decide_by(self, parent: Option<bool>, draw: impl FnOnce() -> f64) -> bool {
        match (parent, self.strategy) {
            (Some(false), _) => false,
            (Some(true), SamplingStrategy::Parent) => true,
            (Some(true), SamplingStrategy::ParentDrop) | (None, _) => draw() < self.rate,
        }
    }
}
