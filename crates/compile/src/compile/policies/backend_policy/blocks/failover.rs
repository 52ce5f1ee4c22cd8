//! `spec.failover` without the references to other backends.

use super::block_reader::BlockReader;
use crate::api::portico::FailoverSpec;
use crate::diagnostic::Diagnostic;

/// The percentage and the statuses of `spec.failover`.
pub(in crate::compile) fn failover_settings(spec: &FailoverSpec, problems: &mut Vec<Diagnostic>) -> (u8, Box<[u16]>) {
    let mut block = BlockReader::new("spec.failover", problems);
    let percent = block.percent("minAvailablePercent", spec.min_available_percent, 1).unwrap_or(1);
    (percent, block.statuses("onStatuses", &spec.on_statuses, 400..=599))
}
