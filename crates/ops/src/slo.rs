//! `portico slo`: rules of Prometheus for the objectives of routes, with alerts on the rates at which their error
//! budgets burn, over several windows.
//!
//! Windows and rates are those of "The Site Reliability Workbook", chapter 5: an alert for a page when 2% of the budget
//! of 30 days are used in an hour or 5% in six hours, one for a ticket when 10% are used in a day or in three days. A
//! second, shorter window ends the alert soon after its cause.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::Duration;

use crate::duration_bounds::DURATION_BOUNDS;
use crate::quantity::{PartsPerMillion, WaitTime};

/// What the rules are generated from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SloOptions {
    pub routes: Vec<SloRoute>,
    pub availability: Option<SloTarget>,
    pub latency: Option<LatencyTarget>,
    /// The metadata of a PrometheusRule; `None` for a file of rules.
    pub object: Option<SloObject>,
}

/// Name and namespace of a PrometheusRule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SloObject {
    pub name: String,
    pub namespace: Option<String>,
}

/// `Kind/namespace/name`, as in the label `route`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SloRoute(String);

/// The share of good requests, in parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SloTarget(PartsPerMillion);

/// The share of requests that are not slower than a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyTarget {
    microseconds: u64,
    target: SloTarget,
}

impl FromStr for SloRoute {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = |name: &str| {
            let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
            !name.is_empty() && name.len() <= 253 && name.bytes().all(is_part)
        };
        match text.split('/').collect::<Vec<_>>()[..] {
            [kind, namespace, name] if KINDS.contains(&kind) && is_name(namespace) && is_name(name) => {
                Ok(SloRoute(text.to_owned()))
            }
            _ => Err(format!("not a route; write {}/NAMESPACE/NAME, as in the label `route`", KINDS.join(" or "))),
        }
    }
}

impl fmt::Display for SloRoute {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for SloTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(target) if (LOWEST_TARGET..=HIGHEST_TARGET).contains(&target) => Ok(SloTarget(target)),
            _ => Err("not in range; write a percentage from 95 to 99.999, such as 99.9".to_owned()),
        }
    }
}

impl FromStr for LatencyTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (bound, target) = text.split_once('=').ok_or("write a duration and a percentage, such as 500ms=99")?;
        let WaitTime(bound) = bound.parse()?;
        let microseconds = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        if !DURATION_BOUNDS.contains(&microseconds) {
            let whole = DURATION_BOUNDS.iter().filter(|bound| **bound % 1000 == 0);
            let known: Vec<_> = whole.map(|bound| WaitTime(Duration::from_micros(*bound)).to_string()).collect();
            return Err(format!("the histogram of durations has no such bound; use one of {}", known.join(", ")));
        }
        Ok(LatencyTarget { microseconds, target: target.parse()? })
    }
}

impl SloTarget {
    /// The share of bad requests that the objective permits.
    fn budget(self) -> f64 {
        let whole = PartsPerMillion::WHOLE.0;
        f64::from(whole - self.0.0) / f64::from(whole)
    }
}

impl fmt::Display for SloTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}%", f64::from(self.0.0) / 10_000.0)
    }
}

impl SloOptions {
    /// The rules as YAML.
    pub fn to_yaml(&self) -> String {
        let mut groups = String::new();
        for route in &self.routes {
            for objective in self.objectives() {
                objective.write_group(route, &mut groups);
            }
        }
        let Some(SloObject { name, namespace }) = &self.object else { return format!("groups:\n{groups}") };
        let namespace = namespace.as_ref().map(|name| format!("  namespace: {name}\n")).unwrap_or_default();
        let indented: String = groups.lines().map(|line| format!("  {line}\n")).collect();
        format!(
            "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: {name}\n{namespace}spec:\n\
             \x20 groups:\n{indented}"
        )
    }

    fn objectives(&self) -> impl Iterator<Item = Objective> {
        let availability = self.availability.map(Objective::Availability);
        availability.into_iter().chain(self.latency.map(Objective::Latency))
    }
}

#[derive(Clone, Copy)]
enum Objective {
    Availability(SloTarget),
    Latency(LatencyTarget),
}

/// An alert over pairs of windows, with the burn rate from which on it fires.
struct BurnAlert {
    name: &'static str,
    severity: &'static str,
    windows: [(&'static str, &'static str, f64); 2],
    summary: &'static str,
}

impl Objective {
    fn name(self) -> &'static str {
        match self {
            Objective::Availability(_) => "availability",
            Objective::Latency(_) => "latency",
        }
    }

    fn target(self) -> SloTarget {
        match self {
            Objective::Availability(target) | Objective::Latency(LatencyTarget { target, .. }) => target,
        }
    }

    /// What good requests are.
    fn description(self) -> String {
        match self {
            Objective::Availability(target) => format!("{target} of the requests without a 5xx response"),
            Objective::Latency(LatencyTarget { microseconds, target }) => {
                format!("{target} of the requests within {} ms", microseconds as f64 / 1000.0)
            }
        }
    }

    /// The share of bad requests in a window.
    fn error_ratio(self, route: &SloRoute, window: &str) -> String {
        let route = &route.0;
        let sum = |metric: &str, labels: &str| {
            format!("sum by (namespace, job) (rate({metric}{{route=\"{route}\"{labels}}}[{window}]))")
        };
        match self {
            Objective::Availability(_) => {
                let bad = sum("portico_requests_total", ",code_class=\"5xx\"");
                format!("{bad}\n            / {}", sum("portico_requests_total", ""))
            }
            Objective::Latency(LatencyTarget { microseconds, .. }) => {
                // The exposition writes whole numbers with a decimal.
                let bound = format!(",le=\"{:?}\"", microseconds as f64 / 1e6);
                let good = sum("portico_request_duration_seconds_bucket", &bound);
                format!("1 - {good}\n            / {}", sum("portico_request_duration_seconds_count", ""))
            }
        }
    }

    fn write_group(self, route: &SloRoute, yaml: &mut String) {
        let (name, target) = (self.name(), self.target());
        let mut write = |text: fmt::Arguments<'_>| yaml.write_fmt(text).expect("writing to a String cannot fail");
        write(format_args!("  - name: portico-slo:{}:{name}\n    rules:\n", route.0));
        for window in WINDOWS {
            write(format_args!("      - record: {RECORD}{window}\n        expr: |-\n"));
            write(format_args!("          {}\n", self.error_ratio(route, window)));
            write(format_args!("        labels:\n          route: {}\n          slo: {name}\n", route.0));
        }
        let labels = format!("{{route=\"{}\",slo=\"{name}\"}}", route.0);
        for BurnAlert { name: alert, severity, windows, summary } in ALERTS {
            write(format_args!("      - alert: {alert}\n        expr: |-\n"));
            for (index, (long, short, rate)) in windows.iter().enumerate() {
                let limit = round(rate * target.budget());
                let or = if index == 0 { "" } else { "or " };
                write(format_args!(
                    "          {or}({RECORD}{long}{labels} > {limit} and {RECORD}{short}{labels} > {limit})\n"
                ));
            }
            write(format_args!(
                "        labels:\n          severity: {severity}\n          route: {}\n          slo: {name}\n",
                route.0
            ));
            write(format_args!("        annotations:\n          summary: {summary}\n"));
            write(format_args!(
                "          description: \"{{{{ $value | humanizePercentage }}}} of the requests of {} are bad; the \
                 objective is {}.\"\n",
                route.0,
                self.description()
            ));
            write(format_args!("          runbook_url: {RUNBOOK}\n"));
        }
    }
}

/// Without the digits that a product of decimals has too many.
fn round(number: f64) -> f64 {
    (number * 1e9).round() / 1e9
}

const KINDS: [&str; 3] = ["HTTPRoute", "GRPCRoute", "Ingress"];
const WINDOWS: [&str; 7] = ["5m", "30m", "1h", "2h", "6h", "1d", "3d"];
const RECORD: &str = "route:portico_slo_errors:ratio_rate";
const RUNBOOK: &str = "https://portico.dev/docs/tasks/slo.html#when-an-alert-fires";
const ALERTS: [BurnAlert; 2] = [
    BurnAlert {
        name: "PorticoSloBurnsFast",
        severity: "critical",
        windows: [("1h", "5m", 14.4), ("6h", "30m", 6.0)],
        summary: "A route uses up its error budget within days",
    },
    BurnAlert {
        name: "PorticoSloBurnsSlowly",
        severity: "warning",
        windows: [("1d", "2h", 3.0), ("3d", "6h", 1.0)],
        summary: "A route will use up its error budget",
    },
];
/// With a lower target, the highest burn rate is more than all requests.
const LOWEST_TARGET: PartsPerMillion = PartsPerMillion(950_000);
const HIGHEST_TARGET: PartsPerMillion = PartsPerMillion(999_990);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_parsed_or_rejected_with_a_remedy() {
        for (text, expected) in [("99.9", Some(0.001)), ("95%", Some(0.05)), ("99.999", Some(0.000_01))] {
            assert_eq!(text.parse::<SloTarget>().ok().map(SloTarget::budget), expected, "{text}");
        }
        for text in ["94.9", "100", "99.9999", "", "a", "99.", ".5", "-99"] {
            let error = text.parse::<SloTarget>().unwrap_err();
            assert!(error.contains("from 95 to 99.999"), "{text}: {error}");
        }
        let target = LatencyTarget { microseconds: 500_000, target: SloTarget(PartsPerMillion(990_000)) };
        assert_eq!("500ms=99".parse(), Ok(target));
        for (text, expected) in [
            ("500ms", "write a duration and a percentage"),
            ("300ms=99", "use one of 1ms, 5ms, 10ms, 25ms"),
            ("500ms=5", "from 95 to 99.999"),
        ] {
            let error = text.parse::<LatencyTarget>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!("HTTPRoute/shop/cart".parse::<SloRoute>().is_ok());
        for text in ["cart", "HTTPRoute/shop", "TCPRoute/shop/cart", "HTTPRoute/shop/a\"b", "HTTPRoute//a"] {
            assert!(text.parse::<SloRoute>().is_err(), "{text}");
        }
    }

    #[test]
    fn limits_are_burn_rates_of_the_budget() {
        let options = SloOptions {
            routes: vec!["HTTPRoute/shop/cart".parse().unwrap()],
            availability: Some(SloTarget(PartsPerMillion(999_000))),
            latency: None,
            object: None,
        };
        let yaml = options.to_yaml();
        for limit in ["0.0144", "0.006", "0.003", "0.001"] {
            assert_eq!(yaml.matches(&format!(" > {limit} and ")).count(), 1, "{limit}: {yaml}");
        }
    }
}
