//! A declarative file of Kong, served as it is and converted: the same responses to the same requests, and edits.

use std::fs;

use crate::harness::client::{ClientResponse, Connection};
use crate::harness::eventually;
use crate::harness::program::{Program, portico};
use crate::harness::site::Site;

/// Routes that differ in one condition each, credentials, groups, plugins of every scope, and an upstream.
const FILE: &str = "_format_version: \"3.0\"
services:
  - name: echo
    url: http://ECHO/base
    routes:
      - {name: stripped, paths: [/strip]}
      - {name: kept, paths: [/keep], strip_path: false, preserve_host: true}
      - {name: expression, paths: [\"~/numbers/\\\\d+$\"], strip_path: false}
      # Both have two conditions, so the one with the path comes first.
      - {name: by-method, hosts: [shop.example], methods: [GET]}
      - {name: by-path, hosts: [shop.example], paths: [/cart], strip_path: false}
      - {name: by-header, paths: [/keep], headers: {X-Beta: [\"1\"]}}
      - name: guarded
        paths: [/guarded]
        plugins:
          - {name: key-auth}
          - {name: acl, config: {allow: [staff]}}
  - name: balanced
    host: pool
    routes:
      - {name: balanced, paths: [/balanced]}
    plugins:
      - {name: response-transformer, config: {add: {headers: [\"x-scope:service\"]}}}
routes:
  - name: closed
    paths: [/closed]
    plugins:
      - {name: request-termination, config: {status_code: 418, message: closed}}
upstreams:
  - name: pool
    targets:
      - {target: ECHO}
consumers:
  - username: Ann
    keyauth_credentials: [{key: of-ann}]
    acls: [{group: staff}]
    plugins:
      - {name: response-transformer, config: {add: {headers: [\"x-scope:ann\"]}}}
  - username: bob
    keyauth_credentials: [{key: of-bob}]
plugins:
  - {name: correlation-id, config: {header_name: x-request, echo_downstream: true}}
";

/// Calls that leave the same entities as the file.
const SCRIPT: &str = r#"#!/bin/sh
ADMIN=${KONG_ADMIN_URL:-http://127.0.0.1:8001}
curl -s -X POST $ADMIN/services -d name=echo --data-urlencode url=http://ECHO/base | jq .
curl -X POST $ADMIN/services/echo/routes -d name=stripped -d 'paths[]=/strip'
curl -X POST $ADMIN/services/echo/routes \
  -d name=kept -d paths=/keep -d strip_path=false -d preserve_host=true
curl $ADMIN/services/echo/routes --json '{"name": "expression", "paths": ["~/numbers/\\d+$"], "strip_path": false}'
curl -X PUT $ADMIN/routes/by-method -d service.name=echo -d hosts=shop.example -d methods=GET
curl -X POST $ADMIN/services/echo/routes -d name=by-path -d hosts=shop.example -d paths=/other
curl -X PATCH $ADMIN/routes/by-path -d paths=/cart -d strip_path=false
curl -X POST $ADMIN/services/echo/routes -d name=by-header -d paths=/keep -d 'headers.X-Beta[]=1'
curl -X POST $ADMIN/services/echo/routes -d name=guarded -d paths=/guarded
curl -X POST $ADMIN/routes/guarded/plugins -d name=key-auth
curl -X POST $ADMIN/plugins -d name=acl -d route.name=guarded -d config.allow=staff
curl -X POST $ADMIN/upstreams -d name=pool
curl -X POST $ADMIN/upstreams/pool/targets -d target=ECHO
curl -X POST $ADMIN/services -d name=balanced -d host=pool
curl -X POST $ADMIN/services/balanced/routes -d name=balanced -d paths=/balanced
curl -X POST $ADMIN/services/balanced/plugins -d name=response-transformer -d config.add.headers=x-scope:service
curl -X POST $ADMIN/routes -d name=closed -d paths=/closed
curl -X POST $ADMIN/routes/closed/plugins \
  -d name=request-termination -d config.status_code=418 -d config.message=closed
curl -X POST $ADMIN/consumers -d username=Ann; curl -X POST $ADMIN/consumers/Ann/key-auth -d key=of-ann
curl -X POST $ADMIN/consumers/Ann/acls -d group=staff
curl -X POST $ADMIN/consumers/Ann/plugins -d name=response-transformer -d 'config.add.headers[]=x-scope:ann'
curl -X PUT $ADMIN/consumers/bob && curl -X POST $ADMIN/consumers/bob/key-auth -d key=of-bob
curl -X POST $ADMIN/plugins -d name=correlation-id -d config.header_name=x-request -d config.echo_downstream=true
"#;

fn site_with_file() -> Site {
    let site = Site::new();
    site.save("kong.yml", &FILE.replace("ECHO", &site.address_of("echo")));
    site
}

fn start(site: &Site, source: &[&str]) -> Program {
    let mut command = portico(site);
    command.arg("run").args(source).args(["--workers", "1", "--access-log", "off", "--ingress-https-listen", "off"]);
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

fn send(site: &Site, host: &str, path: &str, fields: &str) -> Option<ClientResponse> {
    Connection::open(&site.address_of("port")).ok()?.get_with(host, path, fields).ok()
}

/// What requests of every kind get: status, the path and host that the endpoint got, and fields of plugins.
fn described_responses(site: &Site) -> Vec<String> {
    let requests = [
        ("a.example", "/strip/x", ""),
        ("a.example", "/keep/x", ""),
        ("a.example", "/keep/x", "x-beta: 1\r\n"),
        ("a.example", "/numbers/12", ""),
        ("a.example", "/numbers/x", ""),
        ("shop.example", "/cart/1", ""),
        ("shop.example", "/other", ""),
        ("a.example", "/guarded", ""),
        ("a.example", "/guarded", "apikey: of-ann\r\n"),
        ("a.example", "/guarded", "apikey: of-bob\r\n"),
        ("a.example", "/balanced", ""),
        ("a.example", "/closed", ""),
        ("a.example", "/none", ""),
    ];
    let described = requests.iter().map(|(host, path, fields)| {
        let response = send(site, host, path, fields).expect("the listener is open");
        let body = serde_json::from_str::<serde_json::Value>(&response.body).unwrap_or_default();
        let endpoint = match body.get("path") {
            Some(path) => format!(" {} {}", path, body["host"]),
            None => String::new(),
        };
        let scope = response.field("x-scope").unwrap_or("-");
        format!(
            "{host}{path} {fields:?}: {}{endpoint} {scope} {}",
            response.status,
            response.field("x-request").is_some()
        )
    });
    described.collect()
}

fn wait_until_served(site: &Site) {
    eventually("the route is served", || {
        send(site, "a.example", "/strip/x", "").filter(|response| response.status == 200).map(drop)
    });
}

#[test]
fn a_file_gets_the_same_responses_as_its_conversion() {
    let site = site_with_file();
    let program = start(&site, &["--kong-config", "kong.yml"]);
    wait_until_served(&site);
    let as_it_is = described_responses(&site);
    program.stop().expect_success();

    let status_of = |start: &str| {
        let line = as_it_is.iter().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{as_it_is:#?}"));
        line.split(": ").last().unwrap().split(' ').next().unwrap().parse::<u16>().unwrap()
    };
    for (request, status) in [
        ("a.example/numbers/12", 200),
        ("a.example/numbers/x", 404),
        ("a.example/guarded \"\"", 401),
        ("a.example/guarded \"apikey: of-ann", 200),
        ("a.example/guarded \"apikey: of-bob", 403),
        ("a.example/closed", 418),
        ("a.example/none", 404),
    ] {
        assert_eq!(status_of(request), status, "{request}: {as_it_is:#?}");
    }

    site.save("setup.sh", &SCRIPT.replace("ECHO", &site.address_of("echo")));
    for source in [&["kong.yml"][..], &["--admin-calls", "setup.sh"]] {
        let converted = portico(&site).args(["convert", "kong"]).args(source).output().unwrap();
        assert!(converted.status.success(), "{}", String::from_utf8_lossy(&converted.stderr));
        site.save_bytes("manifests.yaml", &converted.stdout);
        let program = start(&site, &["--manifests", "manifests.yaml"]);
        wait_until_served(&site);
        assert_eq!(described_responses(&site), as_it_is, "{source:?}");
        program.stop().expect_success();
    }
}

#[test]
fn reports_are_a_table_or_json() {
    let site = Site::new();
    site.save(
        "setup.sh",
        "curl localhost:8001/services -d name=a -d host=a.example\n\nhttp POST localhost:8001/routes\n",
    );
    let convert = |options: &[&str]| {
        let output =
            portico(&site).args(["convert", "kong", "--admin-calls", "setup.sh"]).args(options).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, report) = convert(&[]);
    assert_eq!(status, Some(1), "{report}");
    assert!(report.starts_with("LINE  RESULT") && report.contains("\n3     left out"), "{report}");
    let summary = "Converted into 1 object (1 Service); 1 part left out, 0 errors, 0 differences.\n";
    assert!(report.ends_with(summary), "{report}");
    let (status, report) = convert(&["--report", "json", "--allow-partial"]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!((status, &report[0]["line"], report.as_array().unwrap().len()), (Some(0), &3.into(), 1), "{report}");
}

/// The endpoint gets its own host here, as `preserve_host` is not set.
// docs/kong-compatibility.md, 4.22
// docs/kong-compatibility.md, 4.28
// docs/kong-compatibility.md, 4.29
#[test]
fn plugins_read_the_host_of_the_client() {
    let site = Site::new();
    let file = r#"_format_version: "3.0"
services:
  - name: echo
    url: http://ECHO
    routes:
      - name: template
        paths: [/template]
        plugins:
          - {name: request-transformer, config: {add: {headers: ["x-host:$(headers.host)"]}}}
          - {name: pre-function, config: {access: ["kong.service.request.set_header('x-lua', kong.request.get_header('Host'))"]}}
      - name: terminated
        paths: [/terminated]
        plugins:
          - {name: request-termination, config: {echo: true}}
"#;
    site.save("kong.yml", &file.replace("ECHO", &site.address_of("echo")));
    let program = start(&site, &["--kong-config", "kong.yml"]);
    let response = eventually("the route is served", || {
        send(&site, "a.example", "/template", "").filter(|response| response.status == 200)
    });
    let request = response.json();
    assert_eq!(request["host"], site.address_of("echo"), "{request}");
    for name in ["x-host", "x-lua"] {
        assert_eq!(request["headers"][name], serde_json::json!(["a.example"]), "{request}");
    }
    let response = send(&site, "a.example", "/terminated", "").unwrap();
    assert_eq!((response.status, &response.json()["request"]["headers"]["host"]), (503, &"a.example".into()));
    program.stop().expect_success();
}

// docs/kong-compatibility.md, 3.5
// docs/kong-compatibility.md, 3.9
// docs/kong-compatibility.md, 4.17
#[test]
fn missing_services_missing_paths_and_ids_mean_the_same_as_in_kong() {
    let site = Site::new();
    let file = r#"_format_version: "3.0"
services:
  - name: echo
    url: http://ECHO/service
    routes:
      - {name: no-path, hosts: [no-path.example]}
      - name: anonymous
        paths: [/anonymous]
        plugins:
          - {name: key-auth, config: {anonymous: 6b4a1e0c-1f6f-4f6f-9d5b-7d1b0f1c8a01}}
routes:
  - {name: serviceless, paths: [/serviceless]}
  - name: terminated
    paths: [/terminated]
    plugins:
      - {name: request-termination, config: {status_code: 418}}
consumers:
  - {id: 6b4a1e0c-1f6f-4f6f-9d5b-7d1b0f1c8a01, username: guest}
  - id: 0d3a8d6e-52b7-4a3e-8a53-0e8f4a2f7c02
    username: ann
    keyauth_credentials:
      - {id: 5f0c7f3b-7a04-4c1d-9a6c-2c1de0c1ad03, key: of-ann, ttl: 86400}
      - {id: 5f0c7f3b-7a04-4c1d-9a6c-2c1de0c1ad04, key: expired, ttl: 86400, created_at: 1700000000}
"#;
    site.save("kong.yml", &file.replace("ECHO", &site.address_of("echo")));
    let program = start(&site, &["--kong-config", "kong.yml"]);
    let response = eventually("the route is served", || {
        send(&site, "no-path.example", "/", "").filter(|response| response.status == 200)
    });
    assert_eq!(response.json()["path"], "/service");
    let request = send(&site, "a.example", "/anonymous", "").unwrap().json();
    assert_eq!(request["headers"]["x-consumer-username"], serde_json::json!(["guest"]), "{request}");
    for (key, consumer, credential) in [
        ("of-ann", "0d3a8d6e-52b7-4a3e-8a53-0e8f4a2f7c02", serde_json::json!(["5f0c7f3b-7a04-4c1d-9a6c-2c1de0c1ad03"])),
        ("expired", "6b4a1e0c-1f6f-4f6f-9d5b-7d1b0f1c8a01", serde_json::Value::Null),
    ] {
        let request = send(&site, "a.example", "/anonymous", &format!("apikey: {key}\r\n")).unwrap().json();
        assert_eq!(request["headers"]["x-consumer-id"], serde_json::json!([consumer]), "{request}");
        assert_eq!(request["headers"]["x-credential-identifier"], credential, "{request}");
    }
    let response = send(&site, "a.example", "/serviceless", "").unwrap();
    let message = response.json()["message"].clone();
    assert_eq!((response.status, message), (503, "no Service found with those values".into()));
    assert_eq!(send(&site, "a.example", "/terminated", "").unwrap().status, 418);
    program.stop().expect_success();
}

#[test]
fn edits_apply_and_broken_files_change_nothing() {
    let site = site_with_file();
    let program = start(&site, &["--kong-config", "kong.yml"]);
    wait_until_served(&site);
    let text = fs::read_to_string(site.path("kong.yml")).unwrap();

    site.save_bytes("kong.yml", text.replace("paths: [/strip]", "path: [/strip]").as_bytes());
    let messages = program.wait_messages(|messages| messages.contains("kong.yml:6:")).unwrap();
    assert!(messages.contains("did you mean `paths`?"), "{messages}");
    assert!(!messages.contains("of-ann"), "{messages}");
    assert_eq!(send(&site, "a.example", "/strip/x", "").unwrap().status, 200, "the last valid file stays in use");

    site.save_bytes("kong.yml", text.replace("paths: [/strip]", "paths: [/edited]").as_bytes());
    eventually("the edit is served", || {
        send(&site, "a.example", "/edited/x", "").filter(|response| response.status == 200).map(drop)
    });
    assert_eq!(send(&site, "a.example", "/strip/x", "").unwrap().status, 404);
    program.stop().expect_success();
}

// docs/kong-compatibility.md, 6.1
#[test]
fn metrics_have_the_names_of_the_file() {
    let site = Site::new();
    let file = r#"_format_version: "3.0"
services:
  - {name: Shop.v1, url: "http://ECHO", routes: [{name: cart, paths: [/cart]}]}
routes:
  - name: closed
    paths: [/closed]
    plugins:
      - {name: request-termination, config: {status_code: 418}}
plugins:
  - {name: prometheus, config: {status_code_metrics: true}}
"#;
    site.save("kong.yml", &file.replace("ECHO", &site.address_of("echo")));
    let program = start(&site, &["--kong-config", "kong.yml"]);
    eventually("the route is served", || {
        send(&site, "a.example", "/cart", "").filter(|response| response.status == 200).map(drop)
    });
    assert_eq!(send(&site, "a.example", "/closed", "").unwrap().status, 418);
    eventually("the series of both routes", || {
        let metrics = Connection::open(&site.address_of("status")).ok()?.get_with("localhost", "/metrics", "").ok()?;
        let has = |labels: &str| metrics.body.contains(&format!("kong_http_requests_total{{{labels},"));
        let both = has(r#"service="Shop.v1",route="cart",code="200",source="service""#)
            && has(r#"service="",route="closed",code="418",source="kong""#);
        both.then_some(())
    });
    assert!(!program.stderr().contains("no ready endpoint"), "{}", program.stderr());
    program.stop().expect_success();
}
