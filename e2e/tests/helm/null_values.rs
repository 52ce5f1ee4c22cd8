//! Tests each value with null, which removes its default: the chart renders without the value, or names it in an error.

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
    let mut rejected_by_schema = 0;
    for path in &paths {
        let Err(error) = render(helm, &["--set", EVERYTHING, "--set", &format!("{path}=null")]) else { continue };
        let message = format!("{error:#}");
        let (_, name) = path.rsplit_once('.').unwrap_or(("", path));
        let by_schema = message.contains(&format!("missing property '{name}'"));
        // Templates report that the autoscaler has no target, or that its target needs a resource request.
        let by_template = message.contains(": autoscaling.");
        ensure!(by_schema || by_template, "{path}=null: {message}");
        rejected_by_schema += usize::from(by_schema);
    }
    ensure!(rejected_by_schema >= 50, "the schema rejected only {rejected_by_schema} values");

    // A dropped value is absent, not null.
    for path in ["resources", "podSecurityContext", "topologySpreadConstraints", "service.annotations"] {
        let chart = Helm::chart()?;
        let rendered = helm.run_without_cluster(&["template", "portico", &chart, "--set", &format!("{path}=null")])?;
        for object in objects(&rendered)? {
            if let Some(pointer) = null_in(&object) {
                bail!("{path}=null: {pointer} is null in {object:#}");
            }
        }
    }
    Ok(())
}

/// Adds the paths of all values except flags.
fn collect(value: &Value, path: &str, paths: &mut Vec<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        // Flags are null by default.
        if !path.starts_with("config.") {
            paths.push(path.clone());
            collect(value, &path, paths);
        }
    }
}

/// The path of the first null.
fn null_in(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Object(fields) => {
            fields.iter().find_map(|(key, value)| null_in(value).map(|rest| format!("/{key}{rest}")))
        }
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(index, value)| null_in(value).map(|rest| format!("/{index}{rest}")))
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}
