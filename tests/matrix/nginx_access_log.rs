//! Which requests of Ingresses of ingress-nginx the access log has.

use portico::api::ingress_nginx::PREFIX;

use super::nginx_guards::{CLASS, WITH_CONFIG_MAP, config_map, echo, ingress, rule};
use crate::harness::client::try_get;
use crate::harness::eventually;
use crate::harness::program::run;
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
