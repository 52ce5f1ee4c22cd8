//! One declarative file, read by `check`, `convert` and `run`: what one of them finds, all find, at the same line.

use std::process::Command;

use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use crate::harness::client::Connection;
use crate::harness::eventually;
use crate::harness::program::{Program, normalize_environment, output, portico};
use crate::harness::site::Site;

/// Every line with a comment has one mistake; `at` is its number.
const BROKEN: &str = r#"_format_version: "3.0"
_workspace: team # differs
services:
  - name: s
    url: http://s.example
    port: 81 # differs
    routes:
      - name: r # invalid
        paths: [/r]
        plugins:
          - name: key-auth
            config:
              key_namez: [k] # invalid
          - name: no-such-plugin # invalid
sessions:
  - id: x # left out
"#;

fn lines_with(comment: &str) -> Vec<u64> {
    let lines = BROKEN.lines().zip(1..).filter(|(line, _)| line.ends_with(comment));
    lines.map(|(_, number)| number).collect()
}

/// The lines of the problems of a severity.
fn lines_of(problems: &serde_json::Value, severity: &str) -> Vec<u64> {
    let problems = problems.as_array().unwrap().iter().filter(|problem| problem["severity"] == severity);
    let mut lines: Vec<u64> = problems.map(|problem| problem["line"].as_u64().unwrap_or_default()).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

#[test]
fn check_and_convert_find_the_same_at_the_same_line() {
    let site = Site::new();
    site.save("kong.yml", BROKEN);
    let run = |arguments: &[&str]| {
        let mut command = portico(&site);
        command.args(arguments);
        let output = output(command);
        let json = if arguments[0] == "check" { output.stdout } else { output.stderr };
        (output.status.code(), serde_json::from_slice::<serde_json::Value>(&json).unwrap())
    };
    let (status, checked) = run(&["check", "-o", "json", "kong.yml"]);
    assert_eq!(status, Some(1), "{checked:#}");
    let mut errors = [lines_with("# invalid"), lines_with("# left out")].concat();
    errors.sort_unstable();
    assert_eq!(lines_of(&checked, "error"), errors, "{checked:#}");
    let differences = lines_with("# differs");
    let warnings = lines_of(&checked, "warning");
    assert!(differences.iter().all(|line| warnings.contains(line)), "{checked:#}");

    let (status, converted) = run(&["convert", "kong", "--report", "json", "kong.yml"]);
    assert_eq!(status, Some(1), "{converted:#}");
    assert_eq!(lines_of(&converted, "error"), errors, "{converted:#}");
    let (status, _) = run(&["convert", "kong", "--report", "json", "--allow-partial", "kong.yml"]);
    assert_eq!(status, Some(0));
}

#[test]
fn convert_counts_what_would_not_work() {
    let site = Site::new();
    site.save("kong.yml", BROKEN);
    let output = portico(&site).args(["convert", "kong", "kong.yml"]).output().unwrap();
    let report = String::from_utf8(output.stderr).unwrap();
    let last = report.lines().last().unwrap();
    assert!(last.contains("; 1 part left out, "), "{report}");
    assert!(last.contains(" errors, ") && !last.contains(" 0 errors"), "{report}");
    assert!(report.contains("\n13    invalid") && report.contains("config.key_namez"), "{report}");
}

/// The mistakes show only in what the file becomes: a Service, a KongVault and a Secret.
#[test]
fn convert_fails_for_objects_that_would_be_rejected() {
    let site = Site::new();
    let [own_key, other_key] = [(); 2].map(|()| KeyPair::generate().unwrap());
    let certificate = CertificateParams::new(vec!["shop.example".to_owned()]).unwrap().self_signed(&own_key).unwrap();
    let (cert, key) = (certificate.pem(), other_key.serialize_pem());
    for (collection, entity, expected) in [
        ("services", json!({"name": "auth", "host": "auth-$environment.example"}), "is not a DNS name"),
        (
            "vaults",
            json!({"name": "env", "prefix": "own", "config": {"prefix": "A_", "wrong": 1}}),
            "unknown field `wrong`",
        ),
        (
            "certificates",
            json!({"cert": cert, "key": key, "snis": [{"name": "shop.example"}]}),
            "a tls.key that does not belong to the first certificate",
        ),
    ] {
        let file = json!({"_format_version": "3.0", collection: [entity]});
        site.save_bytes("kong.json", file.to_string().as_bytes());
        let output = portico(&site).args(["convert", "kong", "--report", "json", "kong.json"]).output().unwrap();
        let report = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && report.contains(expected), "{collection}: {report}");
    }
}

#[test]
fn declarative_files_are_found_among_manifests() {
    let site = Site::new();
    let file = "_format_version: \"3.0\"\nservices: [{name: s, url: \"http://s.example\", routes: [{paths: [/]}]}]\n";
    site.save("files/kong.yml", file);
    site.save("files/kong.json", "{\"_format_version\": \"3.0\", \"services\": [{\"name\": \"t\", \"host\": \"t\"}]}");
    site.save("files/other.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {a: b}\n");
    let output = portico(&site).args(["check", "files"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("nothing wrong; "), "{text}");
    assert!(text.contains("read from 3 files"), "{text}");
}

#[test]
fn files_without_objects_are_no_success() {
    let site = Site::new();
    site.save("empty.yaml", "");
    for (arguments, status) in
        [(&["check", "empty.yaml"][..], 0), (&["check", "--warnings-as-errors", "empty.yaml"], 1)]
    {
        let output = portico(&site).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(status), "{text}");
        assert!(text.contains("nothing was checked: there is no object") && !text.contains("nothing wrong"), "{text}");
    }
}

/// The status, and both outputs.
fn ended(mut command: Command) -> (Option<i32>, String) {
    let output = command.env("COLUMNS", "300").output().unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (output.status.code(), text)
}

/// `convert` read without a limit, and named neither the place of a mistake nor a remedy.
#[test]
fn files_that_cannot_be_read_have_the_same_messages() {
    let site = Site::new();
    site.save_bytes("utf16.yml", b"\xff\xfe_\0f\0");
    site.save("folder/kong.yml", "_format_version: \"3.0\"\n");
    for (file, status, expected) in [
        ("utf16.yml", 1, &["the file is UTF-16", "utf16.yml:1:1", "save it as UTF-8"][..]),
        ("/dev/zero", 1, &["the file is larger than 64 MiB", "/dev/zero", "split it into several files"]),
        ("nowhere.yml", 2, &["no such file or folder", "nowhere.yml", "correct the path, or create it"]),
    ] {
        for arguments in [&["check"][..], &["convert", "kong"], &["convert", "kong", "--admin-calls"]] {
            let mut command = portico(&site);
            command.args(arguments).arg(file);
            let (found, text) = ended(command);
            assert_eq!(found, Some(status), "{arguments:?} {file}: {text}");
            assert!(expected.iter().all(|part| text.contains(part)), "{arguments:?} {file}: {text}");
        }
    }
    let mut command = portico(&site);
    command.args(["convert", "kong", "folder"]);
    let (status, text) = ended(command);
    assert!(status == Some(2) && text.contains("folder: it is a folder; give one file"), "{text}");
}

/// `check` found nothing, `convert` the number of documents, and `run` the missing version of the format.
#[test]
fn files_without_content_are_an_error_of_all_commands() {
    let site = Site::new();
    let is_found = |text: &str| text.contains("error[EmptyFile]: the file is empty") && text.contains("kong.yml:1:1");
    for content in ["", "# nothing yet\n", "---\n---\n", "null\n"] {
        site.save("kong.yml", content);
        for arguments in [&["check", "kong.yml"][..], &["convert", "kong", "kong.yml"]] {
            let mut command = portico(&site);
            command.args(arguments);
            let (status, text) = ended(command);
            assert!(status == Some(1) && is_found(&text), "{content:?} {arguments:?}: {text}");
        }
    }
    for content in ["", "null\n"] {
        site.save("kong.yml", content);
        let program = serve(&site);
        let report = program.wait_started();
        assert!(is_found(&report), "{content:?}: {report}");
        program.stop().expect_success();
    }
}

const ONE_ROUTE: &str =
    "_format_version: \"3.0\"\nservices: [{name: s, url: \"http://s.example\", routes: [{paths: [/]}]}]\n";

#[test]
fn markers_at_the_end_begin_no_document() {
    let site = Site::new();
    for (more, expected) in [("---\n", Some(0)), ("---\n# end\n...\n", Some(0)), ("---\na: 1\n", Some(1))] {
        site.save("kong.yml", &format!("---\n{ONE_ROUTE}{more}"));
        for arguments in [&["check", "kong.yml"][..], &["convert", "kong", "kong.yml"]] {
            let mut command = portico(&site);
            command.args(arguments);
            let (status, text) = ended(command);
            assert_eq!(status, expected, "{more:?} {arguments:?}: {text}");
            assert_eq!(text.contains("the file has 2 documents"), expected == Some(1), "{text}");
        }
    }
}

/// Nothing showed what the command waits for.
#[test]
fn commands_say_that_they_wait_for_a_pipe() {
    let site = Site::new();
    let pipe = site.path("kong.pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for arguments in [&["check", "kong.pipe"][..], &["convert", "kong", "kong.pipe"]] {
        let mut command = portico(&site);
        command.args(arguments);
        let program = Program::start(command);
        let note = "Waiting for a program that writes to the pipe kong.pipe and closes it";
        program.wait_stderr(|text| text.contains(note).then_some(()));
        std::fs::write(&pipe, ONE_ROUTE).unwrap();
        program.wait().expect_success();
    }
    // The output of a command is a pipe, too.
    site.save("kong.yml", ONE_ROUTE);
    for arguments in ["check", "convert kong"] {
        let mut shell = Command::new("bash");
        normalize_environment(&mut shell);
        let line = format!("\"$0\" {arguments} <(cat kong.yml)");
        shell.current_dir(site.path(".")).args(["-c", &line, env!("CARGO_BIN_EXE_portico")]);
        let (status, text) = ended(shell);
        assert_eq!(status, Some(0), "{arguments}: {text}");
    }
}

#[test]
fn templates_of_deck_are_checked_with_the_right_remedy() {
    let site = Site::new();
    let file = r#"_format_version: "3.0"
services:
  - name: s
    host: s.example
    port: ${{ env "DECK_PORT" }}
    routes: [{name: r, paths: [/r]}]
consumers:
  - username: a
    keyauth_credentials:
      - key: "${{ env "DECK_KEY" }}"
"#;
    site.save("kong.yml", file);
    let check = |key: Option<&str>| {
        let mut command = portico(&site);
        command.args(["check", "kong.yml"]).env("DECK_PORT", "8080");
        if let Some(key) = key {
            command.env("DECK_KEY", key);
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (status, text) = check(Some("secret"));
    assert_eq!(status, Some(0), "{text}");
    let (status, text) = check(None);
    assert_eq!(status, Some(1));
    assert!(text.contains("kong.yml:10:") && text.contains("environment variable DECK_KEY is not set"), "{text}");
}

#[test]
fn paths_that_do_not_exist_end_run() {
    let site = Site::new();
    site.save("folder/kong.yml", "_format_version: \"3.0\"\n");
    for (arguments, message) in [
        (&["--kong-config", "nowhere.yml"][..], "--kong-config nowhere.yml: no such file or folder"),
        (&["--manifests", "nowhere"], "--manifests nowhere: no such file or folder"),
        (&["--kong-config", "folder"], "--kong-config folder: it is a folder"),
    ] {
        let output = portico(&site).arg("run").args(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(message), "{text}");
    }
}

/// Manifests of a cluster lack what its controllers write.
#[test]
fn what_controllers_write_is_no_mistake_for_a_cluster() {
    let site = Site::new();
    let manifests = r#"apiVersion: v1
kind: Service
metadata: { name: shop }
spec:
  selector: { app: shop }
  ports: [{ port: 80 }]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  annotations: { cert-manager.io/cluster-issuer: letsencrypt }
spec:
  ingressClassName: portico
  tls: [{ hosts: [shop.example], secretName: shop-tls }]
  rules:
    - host: shop.example
      http:
        paths:
          - path: /
            pathType: Prefix
            backend: { service: { name: shop, port: { number: 80 } } }
"#;
    site.save("manifests/shop.yaml", manifests);
    let check = |more: &[&str]| {
        let output = portico(&site).args(["check", "--warnings-as-errors", "manifests"]).args(more).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (status, text) = check(&[]);
    assert_eq!(status, Some(1));
    assert!(text.contains("no ready endpoint") && text.contains("Secret default/shop-tls does not exist"), "{text}");
    assert_eq!(check(&["--for", "cluster"]), (Some(0), "nothing wrong; 2 objects read from 1 file\n".to_owned()));
    site.save("manifests/shop.yaml", &manifests.replace("cert-manager.io/cluster-issuer", "example.com/issuer"));
    let (status, text) = check(&["--for", "cluster"]);
    assert!(status == Some(1) && text.contains("Secret default/shop-tls does not exist"), "{text}");
}

/// Files with every field of every plugin that a release of Kong writes, with its default.
const DUMPS: [(&str, &str); 2] = [
    ("3.4", include_str!("checked_files/defaults-3.4.yml")),
    ("3.13", include_str!("checked_files/defaults-3.13.yml")),
];

/// Dumps have all fields of all plugins.
#[test]
fn defaults_of_all_plugins_are_accepted() {
    let site = Site::new();
    for (release, dump) in DUMPS {
        site.save("kong.yml", dump);
        let output = portico(&site).args(["check", "-o", "json", "kong.yml"]).output().unwrap();
        let problems: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        let errors: Vec<_> = problems.iter().filter(|problem| problem["severity"] == "error").collect();
        assert!(errors.is_empty(), "{release}: {errors:#?}");
        let output = portico(&site).args(["convert", "kong", "kong.yml"]).output().unwrap();
        assert!(output.status.success(), "{release}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Starts `portico run` with `kong.yml`.
fn serve(site: &Site) -> Program {
    let mut command = portico(site);
    command.args(["run", "--kong-config", "kong.yml", "--workers", "1", "--access-log", "off"]);
    command.args(["--ingress-https-listen", "off"]);
    for (flag, port) in [
        ("--echo", "echo"),
        ("--status-listen", "status"),
        ("--admin-listen", "admin"),
        ("--ingress-http-listen", "port"),
    ] {
        command.args([flag, &*site.address_of(port)]);
    }
    Program::start(command)
}

/// A guard with one value that is not a default rejects requests, and converters and checks say so.
#[test]
fn broken_guards_of_dumps_are_closed() {
    let site = Site::new();
    for (release, dump) in DUMPS {
        let dump = dump.replace("http://echo.example", &format!("http://{}", site.address_of("echo")));
        // Older releases do not have the first field.
        let broken = dump.replacen("include_consumer_groups: false", "include_consumer_groups: true", 1);
        let broken =
            if broken == dump { dump.replacen("hide_groups_header: false", "hide_groups: true", 1) } else { broken };
        assert_ne!(broken, dump, "{release}");
        site.save("kong.yml", &broken);
        for command in [&["check", "kong.yml"][..], &["convert", "kong", "kong.yml"]] {
            let output = portico(&site).args(command).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{release}: {}", String::from_utf8_lossy(&output.stdout));
        }
        let program = serve(&site);
        let status = |path: &str| {
            Some(Connection::open(&site.address_of("port")).ok()?.get_with("a.example", path, "").ok()?.status)
        };
        eventually("the routes are served", || (status("/cors") == Some(200)).then_some(()));
        assert_eq!(status("/acl"), Some(503), "{release}");
        program.stop().expect_success();
    }
}

const GOOD: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: { name: portico }
spec: { controllerName: portico.dev/gateway-controller }
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: good }
spec:
  gatewayClassName: portico
  listeners: [{ name: http, protocol: HTTP, port: 8080 }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: good }
spec:
  parentRefs: [{ name: good }]
  rules:
    - backendRefs: [{ name: echo, port: 80 }]
---
apiVersion: v1
kind: Service
metadata:
  name: echo
  annotations: { portico.dev/address: 192.0.2.1 }
spec:
  ports: [{ port: 80 }]
";

/// What other programs read, and what they should have replaced.
#[test]
fn mistakes_from_elsewhere_have_their_remedy() {
    let site = Site::new();
    site.save("manifests/good.yaml", GOOD);
    let check = |file: &str, more: &[&str]| {
        site.save("manifests/bad.yaml", file);
        let output = portico(&site).args(["check", "manifests"]).args(more).env("COLUMNS", "300").output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    for (file, expected) in [
        (
            include_str!("checked_files/foreign-policy.yaml"),
            &[
                "error[ForeignPolicy]: HTTPRoute default/good: SecurityPolicy default/tokens of gateway.envoyproxy.io",
                "warning[ForeignPolicy]: HTTPRoute default/good: BackendTrafficPolicy default/balanced",
            ][..],
        ),
        (
            include_str!("checked_files/unrendered.yaml"),
            &["\"app.${CLUSTER_DOMAIN}\" has the placeholder ${CLUSTER_DOMAIN}, which was not replaced"],
        ),
        (
            include_str!("checked_files/operator-kinds.yaml"),
            &[
                "KongService configures a control plane of Kong Operator",
                "name the KongPlugin in annotation konghq.com/plugins of the object",
                "the group portico.dev has no kind `BackendPolicyy`",
                "did you mean `BackendPolicy`?",
            ],
        ),
        (
            include_str!("checked_files/nginx-annotations.yaml"),
            &[
                "set konghq.com/rewrite",
                "ingress-nginx has no such annotation, so it never had an effect",
                "looks like a regular expression",
            ],
        ),
    ] {
        let (status, text) = check(file, &[]);
        assert_eq!(status, Some(1), "{text}");
        for expected in expected {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
    let (status, text) = check(include_str!("checked_files/foreign-policy.yaml"), &["--ignore-foreign-guards"]);
    assert!(status == Some(0) && text.matches("warning[ForeignPolicy]").count() == 2, "{text}");
}
