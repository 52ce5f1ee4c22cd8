//! Rules of `portico slo`, which the real promtool checks and runs: each alert fires for the burn rate that it is made
//! for, and ends after its cause.

use std::fs;
use std::path::Path;
use std::process::Command;

use portico::slo::{SloObject, SloOptions};
use serde_json::Value;

fn options(object: Option<SloObject>) -> SloOptions {
    SloOptions {
        routes: vec!["HTTPRoute/shop/cart".parse().unwrap()],
        availability: Some("99.9".parse().unwrap()),
        latency: Some("500ms=99".parse().unwrap()),
        object,
    }
}

fn promtool(folder: &Path, arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| panic!("promtool: {error}; scripts/setup.sh test installs it"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {}\n{out}{err}", arguments.join(" "));
}

#[test]
fn alerts_fire_by_burn_rate_and_end_after_their_cause() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rules.yaml"), options(None).to_yaml()).unwrap();
    promtool(folder.path(), &["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"]);
    fs::write(folder.path().join("test.yaml"), RULE_TEST).unwrap();
    promtool(folder.path(), &["test", "rules", "test.yaml"]);
}

/// The object has the same groups.
#[test]
fn object_of_the_operator_has_the_rules() {
    let object = SloObject { name: "cart".to_owned(), namespace: Some("shop".to_owned()) };
    let rules: Value = serde_saphyr::from_str(&options(None).to_yaml()).unwrap();
    let object: Value = serde_saphyr::from_str(&options(Some(object)).to_yaml()).unwrap();
    assert_eq!(object["spec"], rules);
    assert_eq!(object["kind"], "PrometheusRule");
    assert_eq!((&object["metadata"]["name"], &object["metadata"]["namespace"]), (&"cart".into(), &"shop".into()));
    assert_eq!(rules["groups"].as_array().unwrap().len(), 2);
}

/// 1000 requests a minute. First all are good; from the minute 60 on for an hour, 2% get 5xx, which is a burn rate of
/// 20; then all are good again. The latency of 4% of the requests is above the bound all the time, a burn rate of 4.
const RULE_TEST: &str = r#"
rule_files: [rules.yaml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'portico_requests_total{namespace="p",job="portico",instance="a",route="HTTPRoute/shop/cart",code_class="2xx"}'
        values: 0+1000x60 60000+980x60 118800+1000x300
      - series: 'portico_requests_total{namespace="p",job="portico",instance="a",route="HTTPRoute/shop/cart",code_class="5xx"}'
        values: 0x60 0+20x60 1200x300
      - series: 'portico_requests_total{namespace="p",job="portico",instance="a",route="HTTPRoute/shop/other",code_class="5xx"}'
        values: 0+1000x420
      - series: 'portico_request_duration_seconds_bucket{namespace="p",job="portico",instance="a",route="HTTPRoute/shop/cart",le="0.5"}'
        values: 0+960x420
      - series: 'portico_request_duration_seconds_bucket{namespace="p",job="portico",instance="a",route="HTTPRoute/shop/cart",le="+Inf"}'
        values: 0+1000x420
      - series: 'portico_request_duration_seconds_count{namespace="p",job="portico",instance="a",route="HTTPRoute/shop/cart"}'
        values: 0+1000x420
    promql_expr_test:
      - expr: route:portico_slo_errors:ratio_rate5m{slo="availability"} * 1000
        eval_time: 110m
        exp_samples: [{labels: '{namespace="p", job="portico", route="HTTPRoute/shop/cart", slo="availability"}', value: 20}]
    alert_rule_test:
      - {alertname: PorticoSloBurnsFast, eval_time: 59m, exp_alerts: []}
      - alertname: PorticoSloBurnsFast
        eval_time: 118m
        exp_alerts:
          - exp_labels: {severity: critical, namespace: p, job: portico, route: HTTPRoute/shop/cart, slo: availability}
            exp_annotations:
              summary: A route uses up its error budget within days
              description: "1.932% of the requests of HTTPRoute/shop/cart are bad; the objective is 99.9% of the requests without a 5xx response."
              runbook_url: https://portico.dev/docs/tasks/slo.html#when-an-alert-fires
      - {alertname: PorticoSloBurnsFast, eval_time: 160m, exp_alerts: []}
      - alertname: PorticoSloBurnsSlowly
        eval_time: 59m
        exp_alerts:
          - exp_labels: {severity: warning, namespace: p, job: portico, route: HTTPRoute/shop/cart, slo: latency}
            exp_annotations:
              summary: A route will use up its error budget
              description: "4% of the requests of HTTPRoute/shop/cart are bad; the objective is 99% of the requests within 500 ms."
              runbook_url: https://portico.dev/docs/tasks/slo.html#when-an-alert-fires
"#;
