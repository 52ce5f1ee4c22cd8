//! The ports in redirects of Ingresses of the dialect nginx: to HTTPS, to a slash at the end, and to a path.

use portico::api::ingress_nginx::PREFIX;

use super::nginx_guards::{CLASS, echo, get, ingress, rule, start_with_tls};
use crate::harness::site::Site;

#[test]
fn redirects_have_the_port_of_their_scheme() {
    let site = Site::new();
    let prefix = PREFIX;
    let mut objects = CLASS.to_owned() + &echo("default");
    for (name, path, annotations) in [
        ("tls", "/", "force-ssl-redirect: \"true\""),
        ("slash", "/docs/", "ssl-redirect: \"false\""),
        ("path", "/", "permanent-redirect: /new"),
    ] {
        let with_port = format!("{prefix}{annotations}, {prefix}use-port-in-redirects: \"true\"");
        for (start, annotations) in [("", with_port), ("no-", format!("{prefix}{annotations}"))] {
            let host = format!("{start}{name}.example");
            objects += &ingress("default", &format!("{start}{name}"), "01", &annotations, &rule(&host, path));
        }
    }
    site.save("manifests/all.yaml", &objects);
    let (program, http, https) = start_with_tls(&site);
    let [http_port, https_port] = [&http, &https].map(|address| address.rsplit_once(':').unwrap().1);
    for (name, path, location) in [
        ("tls", "/a", format!("https://tls.example:{https_port}/a")),
        ("no-tls", "/a", "https://no-tls.example/a".to_owned()),
        ("slash", "/docs", format!("http://slash.example:{http_port}/docs/")),
        ("no-slash", "/docs", "http://no-slash.example/docs/".to_owned()),
        ("path", "/a", format!("http://path.example:{http_port}/new")),
        ("no-path", "/a", "http://no-path.example/new".to_owned()),
    ] {
        let response = get(&http, &format!("{name}.example"), path, "");
        assert_eq!(response.field("location"), Some(&location[..]), "{name}: {}", response.head);
    }
    program.stop().expect_success();
}
