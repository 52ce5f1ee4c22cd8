//! Which Ingresses flags about the classes and namespaces of ingress-nginx add and leave out, next to others that stay,
//! and other prefixes of annotations.

use super::nginx_guards::{CLASS, echo, ingress, rule, secret, start};
use crate::harness::client::try_get;
use crate::harness::eventually;
use crate::harness::site::Site;

fn status(address: &str, host: &str) -> u16 {
    try_get(address, host, "/").unwrap().status
}

fn namespace(name: &str, labels: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n---\n")
}

/// An Ingress with this host, without a class or with another one.
fn classed(name: &str, class: &str) -> String {
    let written = ingress("default", name, "01", "", &rule(&format!("{name}.example"), "/"));
    let field = if class.is_empty() { String::new() } else { format!("  ingressClassName: {class}\n") };
    written.replace("  ingressClassName: nginx\n", &field)
}

/// Of another controller, with the usual name.
const OTHER_CLASS: &str = "apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx}
spec: {controller: other.example/controller}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: web}
spec: {controller: k8s.io/ingress-nginx}
---
";

#[test]
fn flags_add_ingresses_without_a_class_and_classes_by_name() {
    for (flags, expected) in [
        (&[][..], [200, 404, 404, 404]),
        (&["--nginx-without-class"], [200, 404, 200, 404]),
        (&["--nginx-class-by-name"], [200, 200, 404, 404]),
        (&["--nginx-class-by-name", "--nginx-without-class"], [200, 200, 200, 404]),
    ] {
        let site = Site::new();
        let objects = OTHER_CLASS.to_owned()
            + &echo("default")
            + &classed("web", "web")
            + &classed("named", "nginx")
            + &classed("bare", "")
            + &classed("absent", "absent");
        site.save("manifests/all.yaml", &objects);
        let (program, address) = start(&site, flags);
        let hosts = ["web.example", "named.example", "bare.example", "absent.example"];
        assert_eq!(hosts.map(|host| status(&address, host)), expected, "{flags:?}");
        program.stop().expect_success();
    }
}

#[test]
fn flags_leave_out_namespaces_and_catch_alls() {
    let site = Site::new();
    let catch_all = ingress("web", "default", "01", "", &rule("default.example", "/"))
        .replace("spec:\n", "spec:\n  defaultBackend: {service: {name: echo, port: {number: 80}}}\n");
    let objects = CLASS.to_owned()
        + &namespace("web", "team: web")
        + &echo("web")
        + &echo("other")
        + &ingress("web", "shop", "01", "", &rule("shop.example", "/"))
        + &ingress("other", "wiki", "01", "", &rule("wiki.example", "/"))
        + &catch_all;
    site.save("manifests/all.yaml", &objects);
    site.save("manifests/other.yaml", &namespace("other", "team: ops"));
    let flags = ["--nginx-namespace-selector", "team=web,!closed", "--nginx-disable-catch-all"];
    let (program, address) = start(&site, &flags);
    let found = || ["shop.example", "wiki.example", "default.example"].map(|host| status(&address, host));
    assert_eq!(found(), [200, 404, 404]);
    site.save("manifests/other.yaml", &namespace("other", "team: web"));
    eventually("the Ingress of the other namespace is served", || (found() == [200, 200, 404]).then_some(()));
    site.save("manifests/other.yaml", &namespace("other", "team: web, closed: \"\""));
    eventually("the Ingress of the other namespace is left out", || (found() == [200, 404, 404]).then_some(()));
    program.stop().expect_success();
}

#[test]
fn annotations_have_the_prefixes_of_the_flag() {
    let site = Site::new();
    let redirect = |prefix: &str, target: &str| format!("{prefix}/permanent-redirect: \"https://{target}.example/\"");
    let both = format!("{}, {}", redirect("app.example", "second"), redirect("web.example", "first"));
    let usual_guard = "nginx.ingress.kubernetes.io/denylist-source-range: 192.0.2.0/24";
    let (key, _) = usual_guard.split_once(':').unwrap();
    let ignored = format!("{usual_guard}, portico.dev/ignore-foreign-guards: {key}");
    let login = "app.example/auth-type: basic, app.example/auth-secret: users";
    let web = [
        ("both", &*both),
        ("second", &redirect("app.example", "second")),
        ("usual", &redirect("nginx.ingress.kubernetes.io", "usual")),
        ("guard", usual_guard),
        ("ignored", &ignored),
        ("denied", "web.example/denylist-source-range: 0.0.0.0/0"),
        ("wrong", "web.example/denylist-source-range: 10.0.0.0/33"),
        ("login", login),
        ("named", "app.example/server-alias: further.example"),
        ("plain", ""),
    ]
    .map(|(name, annotations)| ingress("default", name, "01", annotations, &rule(&format!("{name}.example"), "/")));
    let other = ingress("other", "login", "02", login, &rule("other.example", "/"));
    let objects = CLASS.to_owned() + &echo("default") + &echo("other") + &web.concat() + &other;
    site.save("manifests/all.yaml", &objects);
    let prefixes = ["--nginx-annotation-prefix", "web.example", "--nginx-annotation-prefix", "app.example"];
    let (program, address) = start(&site, &prefixes);
    let location = |host: &str| {
        let response = try_get(&address, host, "/").unwrap();
        (response.status, response.field("location").map(str::to_owned))
    };
    assert_eq!(location("both.example"), (301, Some("https://first.example/".to_owned())));
    assert_eq!(location("second.example"), (301, Some("https://second.example/".to_owned())));
    for (host, expected) in [
        ("usual", 200),
        ("guard", 503),
        ("ignored", 200),
        ("denied", 403),
        ("wrong", 503),
        ("login", 503),
        ("other", 503),
        ("named", 200),
        ("further", 200),
        ("plain", 200),
    ] {
        assert_eq!(status(&address, &format!("{host}.example")), expected, "{host}");
    }
    // A Secret that an annotation names is read when it appears.
    site.save("manifests/users.yaml", &secret("default", "auth", "anna:{PLAIN}one"));
    eventually("the login is known", || (status(&address, "login.example") == 401).then_some(()));
    assert_eq!(status(&address, "other.example"), 503);
    assert_eq!(status(&address, "plain.example"), 200);
    program.stop().expect_success();
}
