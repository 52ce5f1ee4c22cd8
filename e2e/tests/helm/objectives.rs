//! Objectives of routes in the chart: the rules are those of `portico slo`, and mistakes are named.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use portico_e2e::helm::Helm;
use portico_e2e::portico::program;
use serde_json::{Value, json};

use super::rendered::render;

fn with_objectives(objectives: &Value) -> String {
    json!({"prometheusRule": {"enabled": true, "objectives": objectives}}).to_string()
}

pub(crate) fn are_the_rules_of_the_program(helm: &Helm) -> Result<()> {
    let objectives = json!([
        {"routes": ["HTTPRoute/shop/cart", "GRPCRoute/a.b/c"], "availability": 99.9, "latency": "500ms=99"},
        {"routes": ["Ingress/a/b"], "latency": "1s=99.999%"},
        {"routes": ["HTTPRoute/a/b"], "availability": "95"},
    ]);
    let rendered = render(helm, &["--set-json", &format!("metrics={}", with_objectives(&objectives))])?;
    let object = rendered.iter().find(|object| object["kind"] == "PrometheusRule").context("no PrometheusRule")?;
    let groups = object["spec"]["groups"].as_array().context("the object has groups")?;
    let is_objective = |group: &&Value| group["name"].as_str().is_some_and(|name| name.starts_with("portico-slo:"));
    let of_chart: Vec<&Value> = groups.iter().filter(is_objective).collect();
    ensure!(groups.len() > of_chart.len(), "the alerts are still there");
    let mut of_program = Vec::new();
    for arguments in [
        "HTTPRoute/shop/cart GRPCRoute/a.b/c --availability 99.9 --latency 500ms=99",
        "Ingress/a/b --latency 1s=99.999",
        "HTTPRoute/a/b --availability 95",
    ] {
        let output = Command::new(program()?).arg("slo").args(arguments.split(' ')).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rules: Value = serde_saphyr::from_str(&String::from_utf8(output.stdout)?)?;
        of_program.extend(rules["groups"].as_array().context("the file has groups")?.clone());
    }
    ensure!(of_chart == of_program.iter().collect::<Vec<_>>(), "{of_chart:#?}\n{of_program:#?}");
    let twice = json!({"routes": ["HTTPRoute/a/b", "HTTPRoute/a/b"], "latency": "1s=99"});
    for (objective, expected) in [
        (twice, "the latency of HTTPRoute/a/b is there twice"),
        (json!({"routes": ["cart"], "availability": 99}), "cart is not a route"),
        (json!({"routes": ["HTTPRoute/a/b"]}), "lacks routes, or both availability and latency"),
        (json!({"routes": ["HTTPRoute/a/b"], "latency": "300ms=99"}), "no bound 300ms"),
        (json!({"routes": ["HTTPRoute/a/b"], "latency": "500ms"}), "latency: 500ms is not in range"),
        (json!({"routes": ["HTTPRoute/a/b"], "availability": 100}), "availability: 100 is not in range"),
        (json!({"routes": ["HTTPRoute/a/b"], "availabilty": 99}), "there is no field availabilty"),
    ] {
        let settings = format!("metrics={}", with_objectives(&json!([objective])));
        let error = render(helm, &["--set-json", &settings]).err().context("the objective is accepted")?;
        ensure!(format!("{error:#}").contains(expected), "{objective}: {error:#}");
    }
    Ok(())
}
