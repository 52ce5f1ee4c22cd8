//! What becomes of a part of a configuration, and how many parts have each verdict.

use serde::Serialize;

/// What becomes of a part of a configuration. A worse one comes later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum MigrationVerdict {
    /// Requests get the same responses.
    #[default]
    Same,
    /// There is a request with another response.
    Differs,
    /// It has no effect, or requests get an error in place of it.
    LeftOut,
    /// It is wrong for the other gateway, too.
    Invalid,
}

impl MigrationVerdict {
    pub fn name(self) -> &'static str {
        match self {
            MigrationVerdict::Same => "Same",
            MigrationVerdict::Differs => "Differs",
            MigrationVerdict::LeftOut => "LeftOut",
            MigrationVerdict::Invalid => "Invalid",
        }
    }
}

/// A number for each verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerdictCounts {
    pub same: usize,
    pub differs: usize,
    pub left_out: usize,
    pub invalid: usize,
}

impl VerdictCounts {
    pub(super) fn add(&mut self, verdict: MigrationVerdict) {
        *match verdict {
            MigrationVerdict::Same => &mut self.same,
            MigrationVerdict::Differs => &mut self.differs,
            MigrationVerdict::LeftOut => &mut self.left_out,
            MigrationVerdict::Invalid => &mut self.invalid,
        } += 1;
    }
}
