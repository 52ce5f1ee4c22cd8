//! Runs `portico run` and tests its edits under load, addresses, probes, metrics, logs, secrets, startup errors and
//! shutdown.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::Duration;

use crate::harness::client::{self, Connection, ContinuousClient, get};
use crate::harness::eventually;
use crate::harness::objects::{GATEWAY, gateway, route, save_good_objects};
use crate::harness::program::{Program, output, portico, run, run_arguments};
use crate::harness::site::Site;
use serde_json::Value;
use tokio::time::Instant;

#[test]
fn editing_under_load_loses_no_request() {
    let site = Site::new();
    save_good_objects(&site);
    let program = run(&site, &["--access-log", "off"]);
    program.wait_started();
    let clients = [true, false].map(|keep| ContinuousClient::start(site.address_of("port"), "/good", keep));
    for edit in 0..50 {
        let good = route("good", "good", "echo");
        // Every edit affects an object that the clients use.
        match edit % 5 {
            0 => site.save(
                "manifests/good.yaml",
                &good.replace("          port: 80\n", "          port: 80\n          weight: 9\n"),
            ),
            1 => site.overwrite("manifests/good.yaml", &good),
            2 => site.save("manifests/more.yaml", &route("good", &format!("more-{edit}"), "echo")),
            3 => {
                let listener = "    - name: more\n      protocol: HTTP\n      port: @other@\n";
                site.save(
                    "manifests/gateway.yaml",
                    &GATEWAY.replace("---\napiVersion: v1", &format!("{listener}---\napiVersion: v1")),
                );
            }
            _ => site.save("manifests/gateway.yaml", GATEWAY),
        }
        wait_for_edits(&program, edit + 1);
        clients.iter().for_each(|continuous_client| continuous_client.wait_for_completed(1));
    }
    for continuous_client in clients {
        continuous_client.stop();
    }
    program.stop().expect_success();
}

const INGRESS: &str = "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  annotations:
    kubernetes.io/ingress.class: kong
    konghq.com/strip-path: \"true\"
spec:
  rules:
    - http:
        paths:
          - path: /shop
            pathType: Prefix
            backend:
              service:
                name: echo
                port:
                  number: 80
";

// docs/kong-compatibility.md, 3.1
#[test]
fn ingresses_have_their_own_port_next_to_gateways() {
    let site = Site::new();
    save_good_objects(&site);
    let ingress_address = site.address_of("other");
    let flags = ["--ingress-class", "kong", "--ingress-http-listen", &ingress_address, "--ingress-https-listen", "off"];
    let program = run(&site, &[&["--access-log", "off"][..], &flags].concat());
    program.wait_started();
    let unknown = get(&ingress_address, "/shop/7");
    assert_eq!((unknown.status, unknown.json()["message"].as_str()), (404, Some("no Route matched with those values")));
    site.save("manifests/ingress.yaml", INGRESS);
    wait_for_edits(&program, 1);
    let response = get(&ingress_address, "/shop/7");
    assert_eq!((response.status, response.json()["path"].as_str()), (200, Some("/7")));
    assert!(
        response.field("via").is_some() && response.field("x-kong-upstream-latency").is_some(),
        "{}",
        response.head
    );
    assert_eq!(get(&site.address_of("port"), "/good").status, 200);
    site.remove("manifests/ingress.yaml");
    wait_for_edits(&program, 2);
    assert_eq!(get(&ingress_address, "/shop/7").status, 404, "the port stays open, since a flag requests it");
    program.stop().expect_success();
}

/// Waits until this number of edits was reported.
fn wait_for_edits(program: &Program, number: usize) {
    program
        .wait_messages(|messages| messages.matches("Changed, live after").count() >= number)
        .unwrap_or_else(|messages| panic!("edit {number} was not reported\n{messages}"));
}

#[test]
fn moving_a_gateway_to_all_addresses_loses_no_request() {
    let site = Site::new();
    save_good_objects(&site);
    let program = run(&site, &["--access-log", "off", "--gateway-address-pool", "0.0.0.0"]);
    program.wait_started();
    let class = "  gatewayClassName: portico\n";
    let on_all_addresses = GATEWAY.replace(class, &format!("{class}  addresses:\n    - value: 0.0.0.0\n"));
    assert_ne!(on_all_addresses, GATEWAY);
    let clients = [true, false].map(|keep| ContinuousClient::start(site.address_of("port"), "/good", keep));
    for edit in 0..10 {
        site.save("manifests/gateway.yaml", if edit % 2 == 0 { &on_all_addresses } else { GATEWAY });
        wait_for_edits(&program, edit + 1);
        clients.iter().for_each(|continuous_client| continuous_client.wait_for_completed(1));
    }
    for continuous_client in clients {
        continuous_client.stop();
    }
    program.stop().expect_success();
}

#[test]
fn slowly_written_files_are_read_when_complete() {
    let was_quick_enough = (0..10).any(|_| write_slowly());
    assert!(was_quick_enough, "the file was open for too long in every attempt");
}

/// Writes a file in parts while requests are sent. Returns false if it was open for longer than Portico waits for a
/// file to be closed, because the machine paused: then it may be read early.
fn write_slowly() -> bool {
    let open_file_timeout = Duration::from_secs(2);
    let site = Site::new();
    save_good_objects(&site);
    let program = run(&site, &["--access-log", "off"]);
    program.wait_started();
    let continuous_client = ContinuousClient::start(site.address_of("port"), "/good", true);
    // The file is empty first and incomplete later. In both states it is valid YAML with fewer routes.
    let opened_at = Instant::now();
    let mut file = fs::File::create(site.path("manifests/good.yaml")).unwrap();
    get(&site.address_of("port"), "/good?delay=150ms");
    let text = format!("{}---\n{}", route("good", "other", "echo"), route("good", "good", "echo"));
    let (start, end) = text.split_at(text.find("---").unwrap());
    file.write_all(start.as_bytes()).unwrap();
    // Events of other files do not trigger reading this one.
    site.save("manifests/unrelated.yaml", &route("good", "unrelated", "echo"));
    get(&site.address_of("port"), "/good?delay=150ms");
    file.write_all(end.as_bytes()).unwrap();
    drop(file);
    let was_quick_enough = opened_at.elapsed() < open_file_timeout;
    program.wait_messages(|messages| messages.contains("+ HTTPRoute default/other")).expect("the file is complete");
    let (_, failures) = continuous_client.end();
    let ended = program.stop().expect_success();
    if was_quick_enough {
        assert!(failures.is_empty(), "{failures:#?}");
        assert!(!ended.messages().contains("- HTTPRoute"), "{}", ended.messages());
    }
    was_quick_enough
}

#[test]
fn mounted_config_map_updates_are_followed() {
    let site = Site::new();
    save_good_objects(&site);
    // Like the kubelet: files are links into `..data`, which is replaced by another folder.
    site.save("mounted/..1/routes.yaml", &route("good", "first", "echo"));
    symlink("..1", site.path("mounted/..data")).unwrap();
    symlink("..data/routes.yaml", site.path("mounted/routes.yaml")).unwrap();
    let program = run(&site, &["--manifests", "mounted"]);
    program.wait_started();
    assert_eq!(get(&site.address_of("port"), "/first").status, 200);
    let versions = ["second", "third"];
    for (number, version) in versions.iter().enumerate() {
        let folder = format!("..{}", number + 2);
        site.save(&format!("mounted/{folder}/routes.yaml"), &route("good", version, "echo"));
        symlink(&folder, site.path("mounted/..data_tmp")).unwrap();
        fs::rename(site.path("mounted/..data_tmp"), site.path("mounted/..data")).unwrap();
        fs::remove_dir_all(site.path(&format!("mounted/..{}", number + 1))).unwrap();
        program
            .wait_messages(|messages| messages.contains(&format!("+ HTTPRoute default/{version}")))
            .expect("the update is read");
        assert_eq!(get(&site.address_of("port"), &format!("/{version}")).status, 200);
        assert_eq!(get(&site.address_of("port"), "/first").status, 404);
    }
    program.stop().expect_success();
}

#[test]
fn ready_after_the_first_snapshot() {
    let site = Site::new();
    let mut command = portico(&site);
    command.args(run_arguments(&site).into_iter().map(|word| if word == "manifests" { "-".to_owned() } else { word }));
    command.stdin(Stdio::piped());
    let mut program = Program::start(command);
    // Nothing has been written to standard input yet.
    let before = eventually("the status listener responds", || {
        client::try_get(&site.address_of("status"), "localhost", "/readyz").ok()
    });
    assert_eq!(before.status, 503, "{}", before.body);
    assert!(before.body.contains("first snapshot"), "{}", before.body);
    assert_eq!(get(&site.address_of("status"), "/healthz").status, 200);
    assert!(Connection::open(&site.address_of("port")).is_err());

    let mut stdin = program.stdin();
    let text = format!("{GATEWAY}---\n{}", route("good", "good", "echo"));
    stdin.write_all(site.filled(&text).as_bytes()).unwrap();
    drop(stdin);
    eventually("it is ready", || (get(&site.address_of("status"), "/readyz").status == 200).then_some(()));
    assert_eq!(get(&site.address_of("port"), "/good").status, 200);

    program.stop().expect_success();
}

#[test]
fn shutdown_finishes_requests_unless_signaled_twice() {
    let site = Site::new();
    save_good_objects(&site);
    for is_graceful in [true, false] {
        // Readiness can be observed during the drain delay, also if the machine pauses. The request takes longer.
        let program = run(&site, &["--drain-delay", "3s"]);
        program.wait_started();
        let address = site.address_of("port");
        // The request reaches the backend before the signal. A second signal comes while the shutdown waits for the
        // request.
        let path = if is_graceful { "/good?delay=4s" } else { "/good?delay=30s" };
        let request = std::thread::spawn(move || client::try_get(&address, "a.example", path));
        eventually("the request is with the backend", || {
            let metrics = get(&site.address_of("status"), "/metrics").body;
            (sample(&metrics, "portico_upstream_connections") >= Some(1.0)).then_some(())
        });
        program.signal("TERM");
        program.wait_stderr(|log| log.contains("Stopping; a second signal ends at once").then_some(()));
        // A drain delay is for load balancers: requests are still served, but readiness fails.
        if is_graceful {
            eventually("it is not ready any more", || {
                (get(&site.address_of("status"), "/readyz").status == 503).then_some(())
            });
        } else {
            program.signal("TERM");
        }
        let ended = program.wait().expect_success();
        let response = request.join().unwrap();
        if is_graceful {
            assert_eq!(response.expect("it is finished").status, 200);
            assert!(ended.stderr.contains("all requests completed"), "{}", ended.stderr);
        } else {
            // The echo server is stopped too, sometimes first.
            assert!(!response.is_ok_and(|response| response.status == 200), "the request does not take 30 seconds");
            assert!(ended.stderr.contains("Stopped at once"), "{}", ended.stderr);
        }
    }
}

#[test]
fn metrics_are_parseable_and_count_requests() {
    let site = Site::new();
    save_good_objects(&site);
    let program = run(&site, &[]);
    program.wait_started();
    for path in ["/good", "/good?status=503", "/nowhere"] {
        get(&site.address_of("port"), path);
    }
    let expected = [
        "portico_build_info",
        "portico_compile_duration_seconds",
        "portico_connections",
        "portico_propagation_seconds",
        "portico_request_bytes_total",
        "portico_request_duration_seconds",
        "portico_requests_total",
        "portico_response_bytes_total",
        "portico_series_folded_total",
        "portico_snapshot_revision",
        "portico_upstream_connections",
        "portico_upstream_connects_total",
        "process_resident_memory_bytes",
    ];
    // A request is counted when its response is complete, which the client may notice before the counter changes.
    let metrics = eventually("the requests are counted", || {
        let metrics = get(&site.address_of("status"), "/metrics").body;
        (total(&metrics, "portico_requests_total") >= 3.0).then_some(metrics)
    });
    let families = families(&metrics);
    for family in expected {
        assert!(families.contains(family), "{family} is not in\n{metrics}");
    }
    let requests_of_route = |class: &str| {
        let found = metrics.lines().find(|line| {
            line.starts_with("portico_requests_total{")
                && line.contains(r#"route="HTTPRoute/default/good""#)
                && line.contains(&format!(r#"code_class="{class}""#))
                && line.contains(r#"gateway="default/good""#)
                && line.contains(r#"backend="default/echo:80""#)
        });
        found.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    assert_eq!((requests_of_route("2xx"), requests_of_route("5xx")), (Some(1.0), Some(1.0)), "{metrics}");
    assert!(sample(&metrics, "portico_snapshot_revision") >= Some(1.0));
    program.stop().expect_success();
}

#[test]
fn secret_values_are_never_exposed() {
    let site = Site::new();
    save_good_objects(&site);
    let secret = |data: &str| format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: secret\n{data}");
    let https = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata:\n  name: secure\n\
                 spec:\n  gatewayClassName: portico\n  listeners:\n    - name: https\n      protocol: HTTPS\n      \
                 port: @other@\n      tls:\n        certificateRefs:\n          - name: secret\n";
    // Secrets with the value as text or base64, valid ones and ones with different errors.
    let secrets = [
        secret(&format!("data:\n  key: {MARKER_BASE64}\n")) + https,
        secret(&format!("type: kubernetes.io/tls\ndata:\n  tls.crt: {MARKER_BASE64}\n  tls.key: {MARKER_BASE64}\n"))
            + https,
        secret(&format!("stringData:\n  key: {MARKER}\n")),
        secret(&format!("stringData:\n  key: [{MARKER}]\n")),
        secret(&format!("data:\n  key: \"{MARKER}!\"\n")),
        secret(&format!("stringData:\n  key: \"{MARKER}\n")),
        secret(&format!("stringData:\n  {MARKER}\n")),
        secret(&format!("stringdata:\n  key: {MARKER}\n")),
        secret(&format!("stringData:\n  key: a\n  key: {MARKER}\n")),
        secret(&format!("data: {MARKER}\n")),
    ];
    let program = run(&site, &["--log-level", "trace"]);
    program.wait_started();
    let mut shown = String::new();
    for (number, text) in secrets.iter().enumerate() {
        site.save("manifests/secret.yaml", text);
        // A new route name in each round shows when both files have been read.
        let name = format!("round-{number}");
        site.save("manifests/round.yaml", &route("good", &name, "echo"));
        program
            .wait_messages(|messages| messages.contains(&format!("+ HTTPRoute default/{name}:")))
            .expect("the route is reported");
        for path in [
            "/",
            "/debug/",
            "/debug/circuits",
            "/debug/hash",
            "/debug/policies",
            "/debug/snapshot",
            "/debug/store",
            "/debug/upstreams?name=default/echo",
            "/debug/usage",
            "/debug/verdicts",
            "/debug/store?o=yaml",
        ] {
            shown += &get(&site.address_of("admin"), path).body;
        }
        for path in ["/metrics", "/readyz", "/healthz", "/status"] {
            shown += &get(&site.address_of("status"), path).body;
        }
        shown += &get(&site.address_of("port"), "/good").body;
        let mut check = portico(&site);
        let output = check.args(["check", "manifests"]).output().unwrap();
        let json = portico(&site).args(["check", "-o", "json", "manifests"]).output().unwrap();
        for bytes in [output.stdout, output.stderr, json.stdout, json.stderr] {
            shown += &String::from_utf8_lossy(&bytes);
        }
    }
    assert!(shown.contains("Secret"), "the Secret itself is known");
    let ended = program.stop().expect_success();
    for text in [&shown, &ended.stdout, &ended.stderr] {
        for value in [MARKER, MARKER_BASE64] {
            let line = text.lines().find(|line| line.contains(value));
            assert_eq!(line, None, "a value of a Secret is exposed");
        }
    }
}

#[test]
fn access_log_has_every_request_and_reopens_on_sighup() {
    let site = Site::new();
    save_good_objects(&site);
    let program = run(&site, &["--access-log", "access.log", "--log-format", "json"]);
    program.wait_stderr(|log| log.contains(r#""message":"Serving""#).then_some(()));
    get(&site.address_of("port"), "/good?first");
    let lines = |name: &str| fs::read_to_string(site.path(name)).unwrap_or_default();
    let line =
        eventually("the line is written", || lines("access.log").split_once('\n').map(|(line, _)| line.to_owned()));
    let record: Value = serde_json::from_str(&line).expect("it is JSON");
    assert_eq!((&record["method"], &record["status"]), (&"GET".into(), &200.into()), "{line}");
    assert!(record["path"] == "/good" && !line.contains("first") && line.contains("HTTPRoute/default/good"), "{line}");

    fs::rename(site.path("access.log"), site.path("access.log.1")).unwrap();
    program.signal("HUP");
    program.wait_stderr(|log| log.contains("Reopening the access log").then_some(()));
    get(&site.address_of("port"), "/good/second");
    eventually("the new file has the line", || lines("access.log").contains("/good/second").then_some(()));
    assert_eq!(lines("access.log.1").lines().count(), 1);
    let ended = program.stop().expect_success();
    assert_eq!(ended.stdout, "", "the access log goes to a file");

    let program = run(&site, &[]);
    program.wait_started();
    get(&site.address_of("port"), "/good/third");
    get(&site.address_of("port"), "/nowhere");
    let lines = program.wait_lines(2);
    assert!(serde_json::from_str::<Value>(&lines[0]).is_err(), "the format is text: {lines:?}");
    let [third, nowhere] = &lines[..] else { panic!("two requests: {lines:?}") };
    assert!(third.contains(" 200 ") && third.contains("GET") && third.contains("/good/third"), "{third}");
    assert!(nowhere.contains(" 404 ") && nowhere.contains("/nowhere"), "{nowhere}");
    program.stop().expect_success();
}

/// A format as users paste it. Errors are written, and no other line of this path.
#[test]
fn access_log_has_a_pasted_format_and_a_filter() {
    let site = Site::new();
    save_good_objects(&site);
    let format =
        "log_format main '$request_method $uri$is_args$args $status '\n '\"$http_x_a\" $sent_http_x_b $server_port';";
    let filter = "keep status=4xx,drop path=/good/quiet,keep 100%";
    let flags = ["--access-log", "access.log", "--access-log-format", format, "--access-log-filter", filter];
    let program = run(&site, &flags);
    program.wait_started();
    let address = site.address_of("port");
    get(&address, "/good/quiet");
    get(&address, "/good/loud?page=2&key=secret");
    get(&address, "/nowhere");
    let lines = || fs::read_to_string(site.path("access.log")).unwrap_or_default();
    eventually("two lines are written", || (lines().lines().count() == 2).then_some(()));
    // As in nginx, `$args` of a request without a query is `-`.
    let port = address.rsplit_once(':').unwrap().1;
    let expected = format!("GET /good/loud?page=*&key=* 200 \"-\" - {port}\nGET /nowhere- 404 \"-\" - ");
    assert!(lines().starts_with(&expected), "{}", lines());
    program.stop().expect_success();
    assert_eq!(lines().lines().count(), 2);
}

#[test]
fn full_disk_loses_log_lines_but_no_request() {
    let site = Site::new();
    save_good_objects(&site);
    std::os::unix::fs::symlink("/dev/full", site.path("access.log")).unwrap();
    let program = run(&site, &["--access-log", "access.log", "--access-log-fields", "status,path"]);
    program.wait_started();
    let send_request = |path: &str| assert_eq!(get(&site.address_of("port"), path).status, 200);
    let dropped_lines = || {
        let metrics = get(&site.address_of("status"), "/metrics").body;
        let line =
            metrics.lines().find_map(|line| line.strip_prefix("portico_access_log_dropped_total{reason=\"failed\"} "));
        line.unwrap_or_else(|| panic!("not counted in\n{metrics}")).parse::<u32>().unwrap()
    };
    // Several times, to check that the error is logged only once.
    for times in 1..=3 {
        (0..5).for_each(|_| send_request("/good/lost"));
        eventually("the lost lines are counted", || (dropped_lines() == times * 5).then_some(()));
    }
    fs::remove_file(site.path("access.log")).unwrap();
    program.signal("HUP");
    program.wait_stderr(|log| log.contains("Reopening the access log").then_some(()));
    send_request("/good/kept");
    let written = || fs::read_to_string(site.path("access.log")).unwrap_or_default();
    eventually("the log is written again", || written().ends_with('\n').then_some(()));
    assert_eq!(written(), "200 /good/kept\n");
    program.wait_stderr(|log| log.contains("Writing the access log succeeds again lost=15").then_some(()));
    let log = program.stop().expect_success().stderr;
    assert_eq!(log.matches("Cannot write the access log").count(), 1, "{log}");
    assert!(log.contains("to=\"access.log\" error=No space left on device"), "{log}");
}

#[test]
fn problems_and_changes_are_json_events() {
    let site = Site::new();
    save_good_objects(&site);
    site.save("manifests/bad.yaml", &route("good", "bad", "ecko"));
    let program = run(&site, &["--log-format", "json"]);
    let event = |message: &str| {
        program.wait_stderr(|log| {
            let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            events.into_iter().find(|event| event.to_string().contains(message))
        })
    };
    let problem = event("Service default/ecko does not exist");
    assert_eq!((&problem["level"], &problem["reason"]), (&"ERROR".into(), &"BackendNotFound".into()));
    assert_eq!(problem["object"], "HTTPRoute default/bad");
    assert_eq!(problem["field"], "spec.rules[0].backendRefs[0].name");
    assert_eq!(problem["place"], "manifests/bad.yaml:13:17");
    assert_eq!(problem["remedy"], "create it or correct the name");
    assert_eq!(event("1 error;")["message"], "Serving");
    site.save("manifests/bad.yaml", &route("good", "bad", "echo"));
    let changed = event("ResolvedRefs is True");
    assert_eq!((&changed["message"], &changed["revision"]), (&"Changed".into(), &2.into()), "{changed}");
    assert_eq!(changed["objects"], "HTTPRoute default/bad", "the changed object");
    assert!(changed["took_ms"].as_f64().is_some_and(|took| took > 0.0), "{changed}");
    // A change of several objects is one event. So is a change that affects no condition.
    site.save("manifests/both.yaml", &format!("{}---\n{}", route("good", "one", "echo"), route("good", "two", "echo")));
    let changed = event("HTTPRoute default/one, HTTPRoute default/two");
    assert_eq!(changed["revision"], 3, "{changed}");
    site.save("manifests/bad.yaml", &route("good", "bad", "echo").replace("/bad", "/better"));
    assert_eq!(event("\"revision\":4")["objects"], "HTTPRoute default/bad");
    site.save("manifests/bad.yaml", "{");
    assert_eq!(event("NotYaml")["level"], "ERROR");
    let ended = program.stop().expect_success();
    for line in ended.stderr.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "not JSON: {line}");
    }
}

/// Each route that a Gateway got changed its verdict, and so all of its problems were logged again.
#[test]
fn problems_that_an_edit_does_not_concern_are_not_logged_again() {
    let site = Site::new();
    save_good_objects(&site);
    let tls = "    - {name: https, protocol: HTTPS, port: @other@, tls: {certificateRefs: [{name: missing}]}}\n";
    site.save("manifests/second.yaml", &(gateway("second", "@port@") + tls));
    let program = run(&site, &["--log-format", "json"]);
    let problems = |log: &str| log.matches("Secret default/missing does not exist").count();
    let first = program.wait_stderr(|log| log.contains("\"Serving\"").then(|| problems(log)));
    assert!(first > 0);
    for number in 2..4 {
        site.save(&format!("manifests/route-{number}.yaml"), &route("second", &format!("route-{number}"), "echo"));
        program.wait_stderr(|log| log.contains(&format!("\"revision\":{number}")).then_some(()));
    }
    let log = program.stop().expect_success().stderr;
    assert!(log.contains("Gateway default/second"), "the Gateway has changed: {log}");
    assert_eq!(problems(&log), first, "{log}");
}

#[test]
fn gateways_have_separate_addresses() {
    let site = Site::new();
    save_good_objects(&site);
    site.save(
        "manifests/second.yaml",
        &format!("{}---\n{}", gateway("second", "@port@"), route("second", "second", "echo")),
    );
    let program = run(&site, &[]);
    program.wait_started();
    let (first, second) = (site.address_of("port"), format!("{}:{}", site.next_address(), site.port("port")));
    for (address, path, status) in
        [(&first, "/good", 200), (&first, "/second", 404), (&second, "/second", 200), (&second, "/good", 404)]
    {
        assert_eq!(get(address, path).status, status, "{address}{path}");
    }
    let verdicts = get(&site.address_of("admin"), "/debug/verdicts").json();
    let address = |name: &str| {
        let gateways = verdicts.as_array().unwrap().iter().filter(|object| object["kind"] == "Gateway");
        gateways
            .filter(|object| object["name"] == name)
            .map(|object| object["status"]["addresses"][0]["value"].clone())
            .next()
    };
    assert_eq!(address("good"), Some(site.address().to_string().into()));
    assert_eq!(address("second"), Some(site.next_address().to_string().into()));
    program.stop().expect_success();
}

#[test]
fn services_resolve_to_names_and_addresses() {
    let site = Site::new();
    let mut echo = portico(&site);
    echo.args(["echo", "--listen", "127.0.0.1:0", "--log-format", "text"]);
    let echo = Program::start(echo);
    let port = echo.wait_stderr(|log| {
        let line = log.lines().find(|line| line.contains("Echo listens on http://"))?;
        line.rsplit(':').next().map(str::to_owned)
    });
    let service = |name: &str, annotation: &str, spec: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n{annotation}spec:\n{spec}  ports:\n    \
                - port: 80\n      targetPort: {port}\n"
        )
    };
    let address = |value: &str| format!("  annotations:\n    portico.dev/address: {value}\n");
    let mut text = GATEWAY.to_owned();
    for (name, annotation, spec) in [
        ("external", String::new(), "  type: ExternalName\n  externalName: localhost\n"),
        ("address", address("127.0.0.1"), ""),
        ("name", address("localhost"), ""),
        ("list", address("127.0.0.1, localhost"), ""),
        ("pair", address(&format!("127.0.0.1:{port}")), ""),
    ] {
        text += &service(name, &annotation, spec);
        text += &format!("---\n{}", route("good", name, name));
    }
    site.save("manifests/services.yaml", &text);
    let program = run(&site, &[]);
    let messages = program.wait_started();
    assert!(messages.contains("nothing wrong;"), "{messages}");
    for name in ["external", "address", "name", "list", "pair"] {
        // Names are resolved in the background; until then there are no endpoints.
        let response = eventually(name, || {
            Some(get(&site.address_of("port"), &format!("/{name}"))).filter(|response| response.status == 200)
        });
        assert_eq!(response.json()["server"], format!("127.0.0.1:{port}"), "{name}");
    }
    program.stop().expect_success();
    echo.stop().expect_success();
}

#[test]
fn processes_share_a_port_only_with_the_flag() {
    let site = Site::new();
    save_good_objects(&site);
    let start_second = |flags: &[&str]| {
        let mut command = portico(&site);
        command.args(["run", "--manifests", "manifests", "--gateway-address-pool", &site.address().to_string()]);
        command.args(["--status-listen", "off", "--admin-listen", "off", "--access-log", "off"]).args(flags);
        Program::start(command)
    };
    let first = run(&site, &["--access-log", "off"]);
    first.wait_started();
    let without_port = start_second(&[]);
    let messages = without_port.wait_started();
    assert!(messages.contains("PortUnavailable") && messages.contains("is in use by another process"), "{messages}");
    first.stop().expect_success();
    // The second process needs no edit to take over. It has no echo server, so its backend is down.
    without_port
        .wait_messages(|messages| messages.contains("Programmed is True"))
        .expect("it takes over the free port");
    assert_eq!(get(&site.address_of("port"), "/good").status, 503);
    without_port.stop().expect_success();

    let first = run(&site, &["--access-log", "off", "--allow-port-sharing"]);
    first.wait_started();
    let sharing = start_second(&["--allow-port-sharing"]);
    assert!(sharing.wait_started().contains("nothing wrong;"), "{}", sharing.messages());
    // Connections go to either process; both have the same routes. (While one closes, the kernel may refuse a
    // connection.)
    assert!((0..50).all(|_| get(&site.address_of("port"), "/good").status == 200));
    sharing.stop().expect_success();
    assert_eq!(get(&site.address_of("port"), "/good").status, 200);
    first.stop().expect_success();
}

#[test]
fn recovered_backend_is_used_without_an_edit() {
    let site = Site::new();
    save_good_objects(&site);
    site.save("manifests/late.yaml", &(LATE_SERVICE.to_owned() + &route("good", "late", "late")));
    let program = run(&site, &[]);
    program.wait_started();
    let response = get(&site.address_of("port"), "/late");
    assert_eq!(response.status, 503, "{}", response.body);
    assert!(response.json()["message"].is_string() && response.field("x-request-id").is_some(), "{}", response.head);
    assert_eq!(get(&site.address_of("port"), "/good").status, 200);
    let mut echo = portico(&site);
    echo.args(["echo", "--listen", &site.address_of("other")]);
    let echo = Program::start(echo);
    eventually("the backend is used", || (get(&site.address_of("port"), "/late").status == 200).then_some(()));
    echo.stop().expect_success();
    assert_eq!(get(&site.address_of("port"), "/late").status, 503);
    program.stop().expect_success();
}

#[test]
fn gateway_moves_to_another_port_and_back() {
    let site = Site::new();
    save_good_objects(&site);
    let program = run(&site, &[]);
    program.wait_started();
    let mut connection = Connection::open(&site.address_of("port")).unwrap();
    assert_eq!(connection.get("a.example", "/good").unwrap().status, 200);
    site.save("manifests/gateway.yaml", &GATEWAY.replace("@port@", "@other@"));
    program.wait_messages(|messages| messages.contains("~ Gateway default/good")).expect("the edit is reported");
    assert_eq!(get(&site.address_of("other"), "/good").status, 200);
    assert!(Connection::open(&site.address_of("port")).is_err(), "the old port is closed");
    // Moving a file away and back removes and adds everything in it.
    fs::rename(site.path("manifests/gateway.yaml"), site.path("gateway.yaml")).unwrap();
    program.wait_messages(|messages| messages.contains("- Gateway default/good")).expect("the edit is reported");
    eventually("the port is closed", || Connection::open(&site.address_of("other")).is_err().then_some(()));
    site.save("manifests/gateway.yaml", GATEWAY);
    program.wait_messages(|messages| messages.contains("+ Gateway default/good")).expect("the edit is reported");
    assert_eq!(get(&site.address_of("port"), "/good").status, 200);
    program.stop().expect_success();
}

#[test]
fn startup_errors_name_the_flag() {
    let site = Site::new();
    save_good_objects(&site);
    let listener = TcpListener::bind((site.address(), 0)).unwrap();
    let used_address = listener.local_addr().unwrap().to_string();
    for flag in ["--status-listen", "--admin-listen", "--echo", "--access-log"] {
        let value = if flag == "--access-log" { "nowhere/access.log" } else { &used_address };
        let mut command = portico(&site);
        command.args(["run", "--manifests", "manifests", "--status-listen", "off", "--admin-listen", "off"]);
        if ["--status-listen", "--admin-listen"].contains(&flag) {
            command = portico(&site);
            let other_flag = if flag == "--status-listen" { "--admin-listen" } else { "--status-listen" };
            command.args(["run", "--manifests", "manifests", other_flag, "off"]);
        }
        command.args([flag, value]);
        let output = output(command);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.contains(&format!("error: {flag} {value}: cannot be opened; "))
                || stderr.contains(&format!("error: {flag} {value}: cannot listen; ")),
            "{stderr}"
        );
    }
}

/// An access log that cannot be opened is an error at startup, with a reason and a remedy.
#[test]
fn unusable_access_log_fails_startup() {
    let site = Site::new();
    save_good_objects(&site);
    site.save("file", "");
    for (path, reason) in [
        ("nowhere/access.log", "No such file or directory"),
        ("file/access.log", "Not a directory"),
        ("manifests", "Is a directory"),
    ] {
        let mut command = portico(&site);
        command.args(["run", "--manifests", "manifests", "--status-listen", "off", "--admin-listen", "off"]);
        command.args(["--access-log", path]);
        let output = output(command);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        let expected = format!(
            "error: --access-log {path}: cannot be opened; give a file in an existing, writable directory, `-` or \
                `off`: {reason}"
        );
        assert!(stderr.contains(&expected), "{stderr}");
    }
}

/// The value of a sample without labels.
fn sample(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.parse().ok()
}

/// The sum of all samples of a name.
fn total(metrics: &str, name: &str) -> f64 {
    let samples = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    samples.map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")).sum()
}

/// The metric families in the Prometheus text format. Every sample must belong to the family of the `TYPE` line above
/// it and have a number as its value.
fn families(metrics: &str) -> BTreeSet<String> {
    let mut families = BTreeSet::new();
    let mut current_family = String::new();
    for line in metrics.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let (word, rest) = comment.split_once(' ').expect("a comment has a type");
            if word == "TYPE" {
                let (name, kind) = rest.split_once(' ').expect("a TYPE comment has a name");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(families.insert(name.to_owned()), "{name} occurs twice");
                current_family = name.to_owned();
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = name.split('{').next().unwrap_or_default();
        let suffix =
            name.strip_prefix(&current_family).unwrap_or_else(|| panic!("{line} does not belong to {current_family}"));
        assert!(["", "_total", "_bucket", "_sum", "_count"].contains(&suffix), "{line}");
    }
    families
}

/// A Service on `@other@`, where nothing listens at first.
const LATE_SERVICE: &str = "apiVersion: v1
kind: Service
metadata:
  name: late
  annotations:
    portico.dev/address: @address@
spec:
  ports:
    - port: 80
      targetPort: @other@
---
";

/// A value in Secrets that must not appear in any output, plain and in base64.
const MARKER: &str = "hunter2butlongerthananyword";
const MARKER_BASE64: &str = "aHVudGVyMmJ1dGxvbmdlcnRoYW5hbnl3b3Jk";
