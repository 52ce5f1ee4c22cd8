//! `portico convert ingress-nginx`: the verdicts on Ingresses in the shapes of usual charts, and the exit status.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::harness::golden::{Golden, expect_none};
use crate::harness::program::portico;
use crate::harness::site::Site;

const INPUT: &str = include_str!("migration.in.yaml");

/// The verdict on each Ingress, and whether it leaves out a guard.
const VERDICTS: &[(&str, &str, bool)] = &[
    ("argocd/argocd-server", "Same", false),
    ("argocd/argocd-server-grpc", "Same", false),
    ("blog/blog", "Differs", false),
    ("cattle-system/rancher", "Same", false),
    ("docs/wiki", "Same", false),
    ("files/nextcloud", "LeftOut", true),
    ("gitlab/gitlab", "Invalid", false),
    ("harbor/harbor-ingress", "Same", false),
    ("login/keycloak", "Same", false),
    ("monitoring/grafana", "Same", false),
    ("monitoring/prometheus", "Same", false),
    ("shop/api", "Same", false),
    ("shop/reviews", "LeftOut", true),
    ("shop/web", "Same", false),
    ("shop/web-next", "Differs", false),
    ("vault/vault", "Same", false),
];

/// The exit status, stdout and stderr of the command with these objects.
fn convert(files: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String, String) {
    let site = Site::new();
    for (name, text) in files {
        site.save(name, text);
    }
    let output = portico(&site).args(["convert", "ingress-nginx"]).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn json(files: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, Value) {
    let (status, stdout, stderr) = convert(files, &[&["--report", "json"][..], arguments].concat());
    (status, serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}")))
}

/// The entry of an Ingress.
fn ingress<'v>(report: &'v Value, object: &str) -> &'v Value {
    let found = report["ingresses"].as_array().unwrap().iter().find(|ingress| ingress["object"] == object);
    found.unwrap_or_else(|| panic!("no {object} in {report:#}"))
}

/// An Ingress of class nginx with one annotation.
fn with_annotation(name: &str, value: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: web\n  annotations:\n    \
         nginx.ingress.kubernetes.io/{name}: {value:?}\nspec:\n  ingressClassName: nginx\n  rules:\n    - host: \
         a.example\n      http:\n        paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: \
         {{number: 80}}}}}}}}]\n"
    )
}

#[test]
fn ingresses_of_usual_charts_have_verdicts() {
    let (status, report) = json(&[("cluster.yaml", INPUT)], &["cluster.yaml"]);
    assert_eq!(status, Some(1), "{report:#}");
    let found: Vec<(&str, &str, bool)> = report["ingresses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ingress| {
            let parts =
                ["annotations", "snippets", "problems"].iter().flat_map(|part| ingress[*part].as_array().unwrap());
            let has_guard = parts.into_iter().any(|part| part["guard"] == true);
            (ingress["object"].as_str().unwrap(), ingress["verdict"].as_str().unwrap(), has_guard)
        })
        .collect();
    assert_eq!(found, VERDICTS, "{report:#}");

    assert_eq!(report["schema"], "portico.dev/migration/v1");
    let summary = &report["summary"];
    for (name, number) in [("total", 16), ("same", 11), ("differs", 2), ("leftOut", 2), ("invalid", 1), ("unknown", 1)]
    {
        assert_eq!(summary[name], number, "{name}: {summary:#}");
    }
    assert_eq!(summary["byAnnotation"]["ssl-redirect"]["same"], 2, "{summary:#}");
    assert_eq!(report["webhooks"][0], "ingress-nginx-admission");
    assert_eq!((&report["withoutClass"][0], &report["ofOtherClasses"]), (&"shop/without-class".into(), &1.into()));

    let line = &ingress(&report, "files/nextcloud")["snippets"][0]["line"];
    assert_eq!(*line, 5, "{report:#}");
    let refused = &ingress(&report, "shop/reviews")["snippets"][0];
    assert_eq!((&refused["directive"], &refused["line"]), (&"access_by_lua_block".into(), &2.into()), "{refused:#}");
    let missing = &ingress(&report, "monitoring/prometheus")["notInInput"];
    assert!(missing.as_array().unwrap().contains(&"Secret monitoring/prometheus-users".into()), "{missing:#}");
    let keys = report["configMap"].as_array().unwrap().iter();
    let keys: Vec<_> = keys.map(|row| (row["key"].as_str().unwrap(), row["verdict"].as_str().unwrap())).collect();
    let expected = [
        ("allow-snippet-annotations", "Same"),
        ("annotations-risk-level", "Same"),
        ("proxy-body-size", "Same"),
        ("use-forwarded-headers", "Differs"),
        ("worker-processes", "Same"),
    ];
    assert_eq!(keys, expected);
}

#[test]
fn reports_are_tables() {
    let mut wrong = Vec::new();
    for (format, name) in [("text", "migration.out.txt"), ("markdown", "migration.markdown.txt")] {
        let (status, stdout, stderr) = convert(&[("cluster.yaml", INPUT)], &["--report", format, "cluster.yaml"]);
        assert_eq!((status, stderr), (Some(1), String::new()));
        wrong.extend(Golden::new(format!("ingress_nginx/{name}")).compare(&stdout).err());
    }
    expect_none(&wrong, "ingress_nginx");
}

/// `kubectl get -o yaml` writes a List.
#[test]
fn a_list_is_read_from_standard_input() {
    let item = with_annotation("ssl-redirect", "false").replace('\n', "\n    ");
    let list = format!("apiVersion: v1\nkind: List\nitems:\n  - {}\n", item.trim_end());
    let site = Site::new();
    let mut command = portico(&site);
    command.args(["convert", "ingress-nginx", "--report", "json", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["summary"]["same"]), (Some(0), &1.into()), "{report:#}");
    let note = report["notes"][0].as_str().unwrap_or_default();
    assert!(note.starts_with("IngressClass nginx is not in the input"), "{report:#}");
}

#[test]
fn exit_status_tells_what_is_left_out() {
    let cases: &[(&str, &str, &[&str], i32)] = &[
        ("ssl-redirect", "false", &[], 0),
        ("mirror-target", "https://mirror.example", &[], 0),
        ("ssl-passthrough", "true", &[], 0),
        ("stream-snippet", "server {}", &[], 1),
        ("stream-snippet", "server {}", &["--allow-partial"], 0),
        ("enable-modsecurity", "true", &[], 0),
        ("enable-modsecurity", "true", &["--fail-on", "differs"], 1),
        ("modsecurity-snippet", "SecRuleEngine On", &[], 0),
        ("configuration-snippet", "deny all; lua_code_cache off;", &["--allow-partial"], 1),
        ("limit-rps", "ten", &[], 1),
        ("limit-rps", "ten", &["--allow-partial"], 0),
        ("affinity", "cookie", &[], 0),
        ("affinity", "cookie", &["--fail-on", "differs"], 1),
        ("ssl-redirect", "false", &["--fail-on", "differs"], 0),
    ];
    for (name, value, arguments, expected) in cases {
        let ingress = with_annotation(name, value);
        let (status, report) = json(&[("a.yaml", ingress.as_str())], &[&["a.yaml"][..], arguments].concat());
        assert_eq!(status, Some(*expected), "{name}: {value} {arguments:?}: {report:#}");
    }
    let (status, ..) = convert(&[], &["missing.yaml"]);
    assert_eq!(status, Some(2));
    let (status, _, stderr) = convert(&[("a.yaml", "")], &["--args", "missing.yaml", "a.yaml"]);
    assert!(status == Some(2) && stderr.contains("--args missing.yaml"), "{stderr}");
}

/// What a missing ConfigMap sets is not known.
#[test]
fn the_config_map_of_the_flag_must_be_in_the_input() {
    let ingress = with_annotation("ssl-redirect", "false");
    let arguments = ["--nginx-configmap", "ns/c", "a.yaml"];
    let (status, stdout, stderr) = convert(&[("a.yaml", ingress.as_str())], &arguments);
    assert_eq!((status, stdout.as_str()), (Some(2), ""));
    assert!(stderr.starts_with("error: --nginx-configmap ns/c: this ConfigMap is not in the input"), "{stderr}");
}

/// A snippet that the ConfigMap does not allow has no effect in ingress-nginx either, and is a guard here if it may
/// restrict requests.
#[test]
fn the_config_map_decides_about_snippets() {
    let config = |allows: bool| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c, namespace: ns}}\ndata: {{allow-snippet-annotations: \
             \"{allows}\", annotations-risk-level: Critical}}\n---\n"
        )
    };
    let harmless = with_annotation("configuration-snippet", "more_set_headers \"X-A: b\";");
    let guard = with_annotation("configuration-snippet", "deny all;");
    for (config, ingress, verdict) in [
        (String::new(), &harmless, "Same"),
        (config(true), &harmless, "Same"),
        (config(false), &harmless, "Same"),
        (config(true), &guard, "Same"),
        (config(false), &guard, "LeftOut"),
    ] {
        let text = format!("{config}{ingress}");
        let arguments: &[&str] = if config.is_empty() { &[] } else { &["--nginx-configmap", "ns/c"] };
        let (_, report) = json(&[("a.yaml", text.as_str())], &[&["a.yaml"][..], arguments].concat());
        assert_eq!(report["ingresses"][0]["verdict"], verdict, "{text}: {report:#}");
    }
}

#[test]
fn flags_of_ingress_nginx_have_rows() {
    let args = "--ingress-class=nginx\n--update-status=false\n--enable-ssl-passthrough\n";
    let ingress = with_annotation("ssl-redirect", "false");
    let files = [("a.yaml", &*ingress), ("args.txt", args)];
    let (status, report) = json(&files, &["--args", "args.txt", "a.yaml"]);
    assert_eq!(status, Some(0), "{report:#}");
    let rows = report["flags"].as_array().unwrap();
    let found: Vec<_> = rows.iter().map(|row| row["replacement"].as_str()).collect();
    let expected = ["--nginx-class nginx", "--ingress-status off", "--nginx-ssl-passthrough"];
    assert_eq!(found, expected.map(Some), "{report:#}");
}

#[test]
fn annotations_with_the_prefix_of_a_flag_have_verdicts() {
    let args = "--annotations-prefix=web.example\n";
    for (written, verdict) in [
        (with_annotation("permanent-redirect", "https://b.example/"), "Same"),
        (with_annotation("auth-url", "http://auth.example/"), "LeftOut"),
        (with_annotation("limit-rps", "ten").replace("nginx.ingress.kubernetes.io", "web.example"), "Invalid"),
    ] {
        let (_, report) = json(&[("a.yaml", &*written), ("args.txt", args)], &["--args", "args.txt", "a.yaml"]);
        assert_eq!(report["ingresses"][0]["verdict"], verdict, "{written}: {report:#}");
        assert_eq!(report["flags"][0]["replacement"], "--nginx-annotation-prefix web.example");
    }
}

#[test]
fn annotations_that_the_config_map_does_not_permit_are_invalid() {
    let ingress = with_annotation("permanent-redirect", "https://b.example/");
    for (key, value, verdict) in [
        ("annotations-risk-level", "Medium", "Same"),
        ("annotations-risk-level", "Low", "Invalid"),
        ("annotation-value-word-blocklist", "c.example", "Same"),
        ("annotation-value-word-blocklist", "b.example", "Invalid"),
    ] {
        let config = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{namespace: ns, name: c}}\ndata: {{{key}: {value}}}\n---\n"
        );
        let text = format!("{config}{ingress}");
        let (_, report) = json(&[("a.yaml", text.as_str())], &["a.yaml", "--nginx-configmap", "ns/c"]);
        assert_eq!(report["ingresses"][0]["verdict"], verdict, "{key} {value}: {report:#}");
    }
}

#[test]
fn a_report_can_be_a_file() {
    let site = Site::new();
    site.save("a.yaml", &with_annotation("ssl-redirect", "false"));
    let mut command = portico(&site);
    command.args(["convert", "ingress-nginx", "--report", "markdown", "--report-file", "report.md", "a.yaml"]);
    let output = command.output().unwrap();
    let line = "1 Ingress: 1 same, 0 differ, 0 left out; 0 unknown annotations\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), line);
    let report = std::fs::read_to_string(site.path("report.md")).unwrap();
    assert!(report.starts_with("# Migration from ingress-nginx\n"), "{report}");
}

/// The settings of ingress-nginx, its ports, and one Ingress.
fn installation() -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{name: nginx}}\nspec: {{controller: \
         k8s.io/ingress-nginx}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ingress-nginx-controller, \
         namespace: edge}}\ndata: {{use-gzip: \"true\"}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: tcp, \
         namespace: edge}}\ndata: {{\"9000\": \"default/web:80\"}}\n---\n{}",
        with_annotation("ssl-redirect", "false")
    )
}

const CONTROLLER_FLAGS: &str = "--configmap=$(POD_NAMESPACE)/ingress-nginx-controller\n\
                                --tcp-services-configmap=$(POD_NAMESPACE)/tcp\n--watch-ingress-without-class=true\n\
                                --http-port=80\n";

#[test]
fn manifests_keep_the_settings_and_the_flags() {
    let site = Site::new();
    site.save("a.yaml", &installation());
    site.save("args.txt", CONTROLLER_FLAGS);
    let mut command = portico(&site);
    command.args([
        "convert",
        "ingress-nginx",
        "--to",
        "manifests",
        "--output",
        "portico",
        "--args",
        "args.txt",
        "a.yaml",
    ]);
    let output = command.output().unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report}{:?}", output.stderr);
    assert!(report.contains("1 Ingress: 1 same"), "{report}");

    let values = std::fs::read_to_string(site.path("portico/values.yaml")).unwrap();
    assert!(values.contains("#   --http-port: --ingress-http-listen 0.0.0.0:80"), "{values}");
    let values: Value = serde_saphyr::from_str(&values).unwrap();
    let expected = serde_json::json!({"config": {
        "ingress-stream-ports": "9000",
        "nginx-class": "nginx",
        "nginx-configmap": "edge/ingress-nginx-controller",
        "nginx-controller-class": "k8s.io/ingress-nginx",
        "nginx-tcp-services": "edge/tcp",
        "nginx-without-class": true,
    }});
    assert_eq!(values, expected);

    let objects = std::fs::read_to_string(site.path("portico/objects.yaml")).unwrap();
    let found: Vec<Value> = objects.split("---\n").map(|object| serde_saphyr::from_str(object).unwrap()).collect();
    let text = |pointer: &str, object: &Value| object.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let names: Vec<_> =
        found.iter().map(|object| text("/kind", object) + " " + &text("/metadata/name", object)).collect();
    assert_eq!(names, ["IngressClass nginx", "ConfigMap ingress-nginx-controller", "ConfigMap tcp"]);
    assert_eq!(found[1]["data"], serde_json::json!({"use-gzip": "true"}));
    assert_eq!(found[2]["data"], serde_json::json!({"9000": "default/web:80"}));

    // What is there is never replaced.
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--output portico: the folder is not empty"), "{stderr}");
}

/// A ConfigMap that is only assumed allows snippets, and would replace the real one.
#[test]
fn manifests_have_no_assumed_settings() {
    let ingress = with_annotation("configuration-snippet", "more_set_headers \"X-A: b\";");
    let (status, stdout, stderr) = convert(&[("a.yaml", &ingress)], &["--to", "manifests", "a.yaml"]);
    assert_eq!(status, Some(0), "{stderr}");
    assert!(stdout.contains("kind: IngressClass") && !stdout.contains("kind: ConfigMap"), "{stdout}");
    assert!(stdout.contains("#   nginx-class: nginx\n") && !stdout.contains("nginx-configmap"), "{stdout}");
    assert!(stderr.contains("1 Ingress: 1 same"), "{stderr}");
}

/// Without the annotations of the other prefix, Ingresses would be open.
#[test]
fn manifests_have_the_prefix_of_annotations() {
    let ingress = with_annotation("ssl-redirect", "false");
    let files = [("a.yaml", &*ingress), ("args.txt", "--annotations-prefix=web.example\n")];
    let (_, stdout, stderr) = convert(&files, &["--to", "manifests", "--args", "args.txt", "a.yaml"]);
    assert!(stdout.contains("#   nginx-annotation-prefix: web.example\n"), "{stdout}{stderr}");
}
