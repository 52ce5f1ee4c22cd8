//! The values `tracing` of the chart: flags of the program, and files from Secrets.

use anyhow::{Context, Result, ensure};
use portico_e2e::helm::Helm;
use serde_json::{Value, json};

use super::rendered::render;

/// The Pod of the workload with these values for `tracing`.
fn pod(helm: &Helm, tracing: &Value) -> Result<Value> {
    let rendered = render(helm, &["--set-json", &format!("tracing={tracing}")])?;
    let workload = rendered.iter().find(|object| object["kind"] == "Deployment").context("no Deployment")?;
    Ok(workload["spec"]["template"]["spec"].clone())
}

pub(crate) fn are_flags_and_files(helm: &Helm) -> Result<()> {
    let default_pod = pod(helm, &json!({}))?;
    ensure!(default_pod.get("volumes").is_none() && !default_pod.to_string().contains("trace-"), "{default_pod:#}");
    let found = pod(
        helm,
        &json!({
            "endpoint": "https://collector:4318", "protocol": "http/json", "sampling": 0.05,
            "rules": ["keep route=HTTPRoute/shop/pay", "drop path=/healthz"], "propagation": ["w3c", "b3"],
            "header": {"name": "X-Debug", "limit": 5}, "errors": true, "slow": "2s",
            "headersSecret": {"name": "otlp"}, "caSecret": {"name": "ca", "key": "tls.crt"},
            "clientCertSecret": {"name": "client"},
        }),
    )?;
    let container = &found["containers"][0];
    let arguments: Vec<&str> = container["args"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    // The kubelet puts the value of a variable in its place.
    let in_pod = arguments.iter().map(|argument| argument.replace("$(POD_NAMESPACE)", "portico-system"));
    portico::args::command().try_get_matches_from(std::iter::once("portico".to_owned()).chain(in_pod))?;
    let of_traces: Vec<&str> =
        arguments.into_iter().filter(|flag| flag.starts_with("--trace-") || flag.starts_with("--otlp-")).collect();
    let expected = [
        "--otlp-ca-file=/etc/portico/otlp-ca/ca.crt",
        "--otlp-client-cert-file=/etc/portico/otlp-client/tls.crt",
        "--otlp-client-key-file=/etc/portico/otlp-client/tls.key",
        "--otlp-headers-file=/etc/portico/otlp-headers/headers",
        "--otlp-protocol=http/json",
        "--trace-errors",
        "--trace-header=X-Debug",
        "--trace-header-limit=5",
        "--trace-otlp-endpoint=https://collector:4318",
        "--trace-propagation=w3c",
        "--trace-propagation=b3",
        "--trace-rules=keep route=HTTPRoute/shop/pay",
        "--trace-rules=drop path=/healthz",
        "--trace-sampling=0.05",
        "--trace-slow=2s",
    ];
    ensure!(of_traces == expected, "{of_traces:#?}");
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
    let mounts = json!([
        mount("otlp-headers", "/etc/portico/otlp-headers"),
        mount("otlp-ca", "/etc/portico/otlp-ca"),
        mount("otlp-client", "/etc/portico/otlp-client"),
    ]);
    ensure!(container["volumeMounts"] == mounts, "{container:#}");
    let volumes = json!([
        volume("otlp-headers", "otlp", &[["headers", "headers"]]),
        volume("otlp-ca", "ca", &[["tls.crt", "ca.crt"]]),
        volume("otlp-client", "client", &[["tls.crt", "tls.crt"], ["tls.key", "tls.key"]]),
    ]);
    ensure!(found["volumes"] == volumes, "{found:#}");
    Ok(())
}

/// A volume with keys of a Secret as files: each with its path.
fn volume(name: &str, secret: &str, files: &[[&str; 2]]) -> Value {
    let items: Vec<Value> = files.iter().map(|[key, path]| json!({"key": key, "path": path})).collect();
    json!({"name": name, "secret": {"secretName": secret, "items": items}})
}
