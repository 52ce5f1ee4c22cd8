//! Flags of `portico slo` and the options they resolve to.

use std::collections::HashSet;

use clap::Args;
use thiserror::Error;

use super::object_name::{parse_object_name, parse_short_name};
use crate::slo::{LatencyTarget, SloObject, SloOptions, SloRoute, SloTarget};

/// Print rules of Prometheus for objectives of routes, with alerts on the rates at which their error budgets burn
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SloArgs {
    /// Routes, each as in the label `route` of metrics: HTTPRoute/NAMESPACE/NAME, GRPCRoute/… or Ingress/…
    #[arg(required = true, value_name = "ROUTE")]
    routes: Vec<SloRoute>,

    /// Percentage of requests that get no 5xx response
    #[arg(long, value_name = "PERCENT", env = "PORTICO_AVAILABILITY")]
    availability: Option<SloTarget>,

    /// Longest duration, and the percentage of requests that must not take longer
    #[arg(long, value_name = "DURATION=PERCENT", env = "PORTICO_LATENCY")]
    latency: Option<LatencyTarget>,

    /// Name of a PrometheusRule to print, instead of a file of rules
    #[arg(long, value_name = "NAME", env = "PORTICO_OBJECT_NAME", value_parser = parse_object_name)]
    object_name: Option<String>,

    /// Namespace of the PrometheusRule
    #[arg(long, value_name = "NAMESPACE", env = "PORTICO_OBJECT_NAMESPACE", requires = "object_name")]
    #[arg(value_parser = parse_short_name)]
    object_namespace: Option<String>,
}

/// Flags of `portico slo` that give no rules.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum SloUsageError {
    #[error("no objective is given; give --availability, --latency or both")]
    NoObjective,
    #[error("{0} is given twice; name each route once")]
    RepeatedRoute(SloRoute),
}

impl SloArgs {
    pub(super) fn resolve(self) -> Result<SloOptions, SloUsageError> {
        let SloArgs { routes, availability, latency, object_name, object_namespace } = self;
        if availability.is_none() && latency.is_none() {
            return Err(SloUsageError::NoObjective);
        }
        let mut seen = HashSet::new();
        if let Some(repeated) = routes.iter().find(|route| !seen.insert(*route)) {
            return Err(SloUsageError::RepeatedRoute(repeated.clone()));
        }
        let object = object_name.map(|name| SloObject { name, namespace: object_namespace });
        Ok(SloOptions { routes, availability, latency, object })
    }
}

const EXAMPLES: &str = "\
Examples:
  # 99.9% of the requests without a 5xx response, 99% of them within 500 ms
  portico slo HTTPRoute/shop/cart --availability 99.9 --latency 500ms=99 > slo-rules.yaml

  # As an object of the Prometheus operator
  portico slo HTTPRoute/shop/cart --availability 99.9 --object-name cart-slo --object-namespace shop |
    kubectl apply -f -";
