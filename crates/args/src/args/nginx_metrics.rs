//! The flag for metrics with the names of ingress-nginx.

use clap::{Args, ValueEnum};
use thiserror::Error;

#[derive(Debug, Args)]
#[command(next_help_heading = "Logs and metrics")]
pub(super) struct NginxMetricsArgs {
    /// Also export the metrics of ingress-nginx, for requests of its dialect: basic, the default without a value;
    /// per-host adds the label host, and per-undefined-host requests for hosts that no Ingress names to it;
    /// status-classes counts 2xx in place of 200
    #[arg(long, value_enum, value_name = "LABELS", value_delimiter = ',', env = "PORTICO_NGINX_METRICS")]
    #[arg(num_args = 0..=1, default_missing_value = "basic")]
    nginx_metrics: Vec<NginxMetricsArg>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NginxMetricsArg {
    Basic,
    PerHost,
    PerUndefinedHost,
    StatusClasses,
}

/// Which labels the metrics of ingress-nginx have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NginxMetricsOptions {
    pub per_host: bool,
    /// Whether requests for hosts that no Ingress names are counted.
    pub per_undefined_host: bool,
    pub status_classes: bool,
}

/// Values of the flag that contradict each other.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum NginxMetricsUsageError {
    #[error(
        "--nginx-metrics has per-undefined-host without per-host, so no label tells these hosts apart; write \
         --nginx-metrics per-host,per-undefined-host"
    )]
    UndefinedHostsWithoutLabel,
}

impl NginxMetricsArgs {
    /// `None` without the flag.
    pub(super) fn resolve(self) -> Result<Option<NginxMetricsOptions>, NginxMetricsUsageError> {
        let has = |wanted| self.nginx_metrics.contains(&wanted);
        let options = NginxMetricsOptions {
            per_host: has(NginxMetricsArg::PerHost),
            per_undefined_host: has(NginxMetricsArg::PerUndefinedHost),
            status_classes: has(NginxMetricsArg::StatusClasses),
        };
        if options.per_undefined_host && !options.per_host {
            return Err(NginxMetricsUsageError::UndefinedHostsWithoutLabel);
        }
        Ok((!self.nginx_metrics.is_empty()).then_some(options))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        metrics: NginxMetricsArgs,
        #[arg(long)]
        other: bool,
    }

    #[test]
    fn values_are_labels() {
        let options = |per_host, per_undefined_host, status_classes| {
            Ok(Some(NginxMetricsOptions { per_host, per_undefined_host, status_classes }))
        };
        for (flags, expected) in [
            ("", Ok(None)),
            ("--nginx-metrics --other", options(false, false, false)),
            ("--nginx-metrics basic", options(false, false, false)),
            ("--nginx-metrics=per-host,status-classes", options(true, false, true)),
            ("--nginx-metrics per-host --nginx-metrics per-undefined-host", options(true, true, false)),
            ("--nginx-metrics per-undefined-host", Err(NginxMetricsUsageError::UndefinedHostsWithoutLabel)),
        ] {
            let program = Program::try_parse_from(std::iter::once("portico").chain(flags.split_whitespace()));
            assert_eq!(program.expect(flags).metrics.resolve(), expected, "{flags}");
        }
        assert!(Program::try_parse_from(["portico", "--nginx-metrics", "hosts"]).is_err());
    }
}
