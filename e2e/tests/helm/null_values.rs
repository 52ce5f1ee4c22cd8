//! Sets every value to null, which drops a default: the chart renders without it, or rejects it by name.

use anyhow::{Result, bail, ensure};
use portico_e2e::helm::Helm;
use serde_json::Value;

use crate::helm::rendered::{objects, render};

/// Enables all templates.
const EVERYTHING: &str = "autoscaling.enabled=true,networkPolicy.enabled=true,metrics.serviceMonitor.enabled=true,\
                          metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true";

pub(crate) fn are_rendered_or_rejected_by_name(helm: &Helm) -> Result<()> {
    let text = std::fs::read_to_string(format!("{}/values.yaml", Helm::chart()?))?;
    let values: Value = serde_saphyr::from_str(&text)?;
    let mut paths = Vec::new();
    collect(&values, "", &mut paths);
    ensure!(paths.len() > 150, "{paths:?}");
    let mut refused = 0;
    for path in &paths {
        let Err(error) = render(helm, &["--set", EVERYTHING, "--set", &format!("{path}=null")]) else { continue };
        let answer = format!("{error:#}");
        let (_, name) = path.rsplit_once('.').unwrap_or(("", path));
        let by_schema = answer.contains(&format!("missing property '{name}'"));
        // Templates report null targets and requests of the autoscaler.
        let by_template = answer.contains(": autoscaling.");
        ensure!(by_schema || by_template, "{path}=null: {answer}");
        refused += usize::from(by_schema);
    }
    ensure!(refused >= 50, "only {refused} values were rejected");

    // A dropped value is absent, not null.
    for path in ["resources", "podSecurityContext", "topologySpreadConstraints", "service.annotations"] {
        let chart = Helm::chart()?;
        let rendered = helm.run_without_cluster(&["template", "portico", &chart, "--set", &format!("{path}=null")])?;
        for object in objects(&rendered)? {
            if let Some(place) = null_in(&object) {
                bail!("{path}=null: {place} is null in {object:#}");
            }
        }
    }
    Ok(())
}

fn collect(value: &Value, path: &str, into: &mut Vec<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        // Flags are null by default.
        if !path.starts_with("config.") {
            into.push(path.clone());
            collect(value, &path, into);
        }
    }
}

fn null_in(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Object(fields) => {
            fields.iter().find_map(|(key, value)| null_in(value).map(|place| format!("/{key}{place}")))
        }
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(index, value)| null_in(value).map(|place| format!("/{index}{place}")))
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}
