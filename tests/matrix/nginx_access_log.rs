//! Which requests of Ingresses of ingress-nginx the access log has.

use portico::api::ingress_nginx::PREFIX;

use super::nginx_guards::{CLASS, WITH_CONFIG_MAP, config_map, echo, ingress, rule, rule_for, service};
use crate::harness::client::{Connection, try_get};
use crate::harness::eventually;
use crate::harness::program::{Program, run};
use crate::harness::site::Site;

#[test]
fn access_log_has_no_requests_of_paths_that_switch_it_off() {
    let site = Site::new();
    let mut objects = CLASS.to_owned() + &echo("default") + &config_map("");
    for (name, annotation) in [
        ("annotation", format!("{PREFIX}enable-access-log: \"false\"")),
        ("snippet", format!("{PREFIX}configuration-snippet: \"access_log off;\"")),
        ("denied", format!("{PREFIX}enable-access-log: \"false\", {PREFIX}denylist-source-range: 0.0.0.0/0")),
        ("logged", format!("{PREFIX}enable-access-log: \"true\"")),
    ] {
        objects += &ingress("default", name, "01", &annotation, &rule(&format!("{name}.example"), "/"));
    }
    site.save("manifests/all.yaml", &objects);
    let address = site.address_of("other");
    let own = ["--nginx-controller-class", "k8s.io/ingress-nginx", "--ingress-http-listen", &address];
    let logs = ["--ingress-https-listen", "off", "--access-log", "access.log", "--log-format", "json"];
    let program = run(&site, &[&own[..], &logs, &WITH_CONFIG_MAP].concat());
    program.wait_started();
    for (name, status) in [("annotation", 200), ("snippet", 200), ("denied", 403), ("logged", 200)] {
        let host = format!("{name}.example");
        assert_eq!(try_get(&address, &host, &format!("/of-{name}")).unwrap().status, status, "{name}");
    }
    let lines = || std::fs::read_to_string(site.path("access.log")).unwrap_or_default();
    let log = eventually("the line is written", || Some(lines()).filter(|log| log.contains("/of-logged")));
    for name in ["annotation", "snippet", "denied"] {
        assert!(!log.contains(&format!("/of-{name}")), "{log}");
    }
}

/// Starts the program with a file for the access log.
fn start_with_log(site: &Site, more: &[&str]) -> (Program, String) {
    let address = site.address_of("other");
    let own = ["--nginx-controller-class", "k8s.io/ingress-nginx", "--ingress-http-listen", &address];
    let logs = ["--ingress-https-listen", "off", "--access-log", "access.log", "--log-format", "json"];
    let program = run(site, &[&own[..], &logs, &WITH_CONFIG_MAP, more].concat());
    program.wait_started();
    (program, address)
}

/// The lines of the access log, after the one that ends the requests of a test.
fn lines_until(site: &Site, last: &str) -> Vec<String> {
    let text = || std::fs::read_to_string(site.path("access.log")).unwrap_or_default();
    let log = eventually("the line is written", || Some(text()).filter(|log| log.contains(last)));
    log.lines().map(str::to_owned).collect()
}

#[test]
fn lines_have_the_names_and_the_format_of_ingress_nginx() {
    let format = "$status $request_uri [$proxy_upstream_name] [$proxy_alternative_upstream_name] \
                  $namespace/$ingress_name $service_name:$service_port";
    for logs_default_backend in [false, true] {
        let site = Site::new();
        let canary = format!("{PREFIX}canary: \"true\", {PREFIX}canary-by-header: x-canary");
        let mut objects = [CLASS, &echo("default"), &service("default", "next", "@echo@")].concat();
        objects += &config_map(&format!(
            ", log-format-upstream: \"{format}\", skip-access-log-urls: \"/healthz, /quiet?a=1\", \
             enable-access-log-for-default-backend: \"{logs_default_backend}\""
        ));
        objects += &ingress("default", "web", "01", "", &rule("web.example", "/"));
        objects += &ingress("default", "next", "02", &canary, &rule_for("web.example", "/", "next"));
        site.save("manifests/all.yaml", &objects);
        let (program, address) = start_with_log(&site, &["--nginx-default-backend", "default/echo"]);
        for (host, path, fields) in [
            ("web", "/main", ""),
            ("web", "/next", "x-canary: always\r\n"),
            ("web", "/healthz", ""),
            ("web", "/quiet?a=1", ""),
            ("web", "/quiet", ""),
            ("unknown", "/unknown", ""),
            ("web", "/last", ""),
        ] {
            let response = Connection::open(&address).unwrap().get_with(&format!("{host}.example"), path, fields);
            assert_eq!(response.unwrap().status, 200, "{host} {path}");
        }
        let of_web = |path: &str, canary: &str| format!("200 {path} [default-echo-80] [{canary}] default/web echo:80");
        let mut expected = vec![of_web("/main", ""), of_web("/next", "default-next-80"), of_web("/quiet", "")];
        if logs_default_backend {
            // The Service that has responded: no Ingress names another one.
            expected.push("200 /unknown [upstream-default-backend] [] -/- -:-".to_owned());
        }
        expected.push(of_web("/last", ""));
        assert_eq!(lines_until(&site, "/last"), expected);
        program.stop().expect_success();
    }
}

#[test]
fn config_map_switches_off_lines_of_its_dialect_only() {
    let site = Site::new();
    let objects = [CLASS, &echo("default"), &config_map(", disable-http-access-log: \"true\"")].concat();
    let annotation = format!("{PREFIX}enable-access-log: \"true\"");
    let objects = objects + &ingress("default", "web", "01", &annotation, &rule("web.example", "/"));
    site.save("manifests/all.yaml", &objects);
    let (_program, address) = start_with_log(&site, &[]);
    assert_eq!(try_get(&address, "web.example", "/of-web").unwrap().status, 200);
    // No Ingress has this host.
    assert_eq!(try_get(&address, "unknown.example", "/of-none").unwrap().status, 404);
    let lines = lines_until(&site, "/of-none");
    assert!(lines.len() == 1 && lines[0].starts_with('{'), "{lines:?}");
}
