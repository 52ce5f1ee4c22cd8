//! `portico convert`: what becomes of the configuration of another gateway.

mod ingress_nginx;
mod kong;

use crate::args::{ConvertOptions, ExitStatus};

/// Converts, or reports.
pub fn convert(options: ConvertOptions) -> anyhow::Result<ExitStatus> {
    match options {
        ConvertOptions::Kong(options) => kong::convert(options),
        ConvertOptions::IngressNginx(options) => ingress_nginx::convert(options),
    }
}
