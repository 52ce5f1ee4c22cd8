//! Runs `portico verify` against a running gateway: what it prints, its exit codes, and which requests reach a backend.

use std::process::Output;

use serde_json::Value;

use crate::harness::objects::{GATEWAY, route, save_good_objects};
use crate::harness::program::{output, portico, run};
use crate::harness::site::Site;

/// Runs `portico verify` for the admin listener of the site, and returns its exit code with stdout and stderr.
fn verify(site: &Site, arguments: &[&str]) -> (i32, String, String) {
    let mut command = portico(site);
    command.args(["verify", "--admin", &site.address_of("admin")]).args(arguments);
    let Output { status, stdout, stderr } = output(command);
    let text = |bytes| String::from_utf8(bytes).expect("the output is UTF-8");
    (status.code().expect("the program was not killed"), text(stdout), text(stderr))
}

fn verify_json(site: &Site, arguments: &[&str]) -> (i32, Vec<Value>) {
    let (code, stdout, stderr) = verify(site, &[&["-o", "json"], arguments].concat());
    let requests = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}\n{stderr}"));
    (code, requests)
}

const SHOP: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: shop
spec:
  parentRefs:
    - name: good
  hostnames: [shop.example, '*.shops.example']
  rules:
    - name: cart
      matches:
        - path: {type: Exact, value: /cart}
          method: PUT
          headers: [{name: x-canary, value: 'yes'}]
          queryParams: [{name: page, type: RegularExpression, value: '[0-9]+'}]
        - path: {type: RegularExpression, value: '/users/[a-z]+/(orders|carts)'}
      backendRefs: [{name: echo, port: 80}]
    - matches:
        - path: {value: /old}
      filters:
        - type: RequestRedirect
          requestRedirect: {statusCode: 301}
";

const GREETER: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata:
  name: greeter
spec:
  parentRefs:
    - name: good
  hostnames: [grpc.example]
  rules:
    - matches:
        - method: {service: helloworld.Greeter, method: SayHello}
      backendRefs: [{name: echo, port: 80}]
";

#[test]
fn routes_are_served_as_written() {
    let site = Site::new();
    save_good_objects(&site);
    site.save("manifests/shop.yaml", SHOP);
    site.save("manifests/greeter.yaml", GREETER);
    let program = run(&site, &[]);
    program.wait_started();
    let (code, stdout, stderr) = verify(&site, &["manifests"]);
    assert_eq!((code, &*stderr), (0, ""), "{stdout}");
    let rows: Vec<Vec<&str>> = stdout
        .lines()
        .take_while(|line| !line.is_empty())
        .map(|line| line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let echo = format!("default/echo:80 ({})", site.address_of("echo"));
    let expected: &[&[&str]] = &[
        &["ROUTE", "RULE", "REQUEST", "SERVED BY", "STATUS", "RESULT"],
        &["HTTPRoute default/good", "0", "GET http://portico-verify.invalid/good", &echo, "200", "ok"],
        &[
            "HTTPRoute default/shop",
            "cart",
            "PUT http://shop.example/cart?page=0 x-canary: yes",
            "default/echo:80",
            "dry run",
            "ok",
        ],
        &[
            "HTTPRoute default/shop",
            "cart",
            "PUT http://portico-verify.shops.example/cart?page=0 x-canary: yes",
            "default/echo:80",
            "dry run",
            "ok",
        ],
        &["HTTPRoute default/shop", "cart", "GET http://shop.example/users/a/orders", &echo, "200", "ok"],
        &[
            "HTTPRoute default/shop",
            "cart",
            "GET http://portico-verify.shops.example/users/a/orders",
            &echo,
            "200",
            "ok",
        ],
        &["HTTPRoute default/shop", "1", "GET http://shop.example/old", "Portico", "301", "ok"],
        &["HTTPRoute default/shop", "1", "GET http://portico-verify.shops.example/old", "Portico", "301", "ok"],
        &[
            "GRPCRoute default/greeter",
            "0",
            "POST http://grpc.example/helloworld.Greeter/SayHello",
            "default/echo:80",
            "dry run",
            "ok",
        ],
    ];
    assert_eq!(rows, expected, "{stdout}");
    assert!(stdout.ends_with("8 requests: 8 as written, 0 different, 0 not derived\n"), "{stdout}");

    let (code, requests) = verify_json(&site, &["manifests/shop.yaml", "--send-unsafe"]);
    assert_eq!(code, 0);
    assert!(requests.iter().all(|request| request["dryRun"] == false), "{requests:?}");
    assert_eq!(requests[0]["servedBy"]["status"], 200, "the PUT reached the echo server");
    let (code, requests) = verify_json(&site, &["manifests/shop.yaml", "--dry-run"]);
    assert_eq!(code, 0);
    assert!(requests.iter().all(|request| request["servedBy"]["endpoint"].is_null()), "{requests:?}");
    program.stop().expect_success();
}

#[test]
fn differences_are_explained_and_exit_with_1() {
    let site = Site::new();
    save_good_objects(&site);
    let program = run(&site, &["--access-log", "off"]);
    program.wait_started();
    // The gateway does not have these files.
    let api = route("good", "good", "echo").replace("name: good\nspec", "name: api\nspec");
    site.save("more/api.yaml", &api);
    site.save("more/other-backend.yaml", &route("good", "good", "shop"));
    site.save("more/unknown-gateway.yaml", &route("nowhere", "good", "echo"));

    let (code, stdout, _) = verify(&site, &["more/api.yaml"]);
    assert_eq!(code, 1, "{stdout}");
    let line = "  HTTPRoute default/api spec.rules[0].matches[0]:\n    the gateway serves no rule of the route: it does \
                not have HTTPRoute default/api";
    assert!(stdout.contains("\nDifferences:\n") && stdout.contains(line), "{stdout}");

    let (code, stdout, _) = verify(&site, &["more/other-backend.yaml"]);
    assert_eq!(code, 1, "{stdout}");
    let line = "backend default/echo:80 was selected, which is not one of the rule: default/shop:80";
    assert!(stdout.contains(line), "{stdout}");

    let (code, stdout, _) = verify(&site, &["more/unknown-gateway.yaml"]);
    assert_eq!(code, 1, "{stdout}");
    assert!(stdout.contains("the route is not attached to Gateway default/nowhere"), "{stdout}");
    program.stop().expect_success();
}

#[test]
fn shadowed_rules_name_the_rule_that_takes_precedence() {
    let site = Site::new();
    save_good_objects(&site);
    // Both have the same conditions; the name of `good` sorts before `shop`.
    let shop = route("good", "good", "echo").replace("name: good\nspec", "name: shop\nspec");
    site.save("manifests/shop.yaml", &shop);
    // Requests below the prefix reach this rule, but not those for the prefix itself.
    let exact = route("good", "exact", "echo").replace("value: /exact", "value: /part").replacen(
        "name: exact",
        "name: part",
        1,
    );
    site.save("manifests/part.yaml", &exact);
    let own = exact.replace("value: /part", "type: Exact\n            value: /part").replace("name: part", "name: own");
    site.save("manifests/own.yaml", &own);
    let program = run(&site, &["--access-log", "off"]);
    program.wait_started();
    let (code, stdout, _) = verify(&site, &["manifests"]);
    assert_eq!(code, 1, "{stdout}");
    let difference = "rule 0 of HTTPRoute default/shop is shadowed by rule 0 of HTTPRoute default/good: both have the \
                      same precedence, and its route is older, or its name sorts first";
    assert!(stdout.contains(difference), "{stdout}");
    let remark = "GET http://portico-verify.invalid/part/portico-verify on default/good/http:\n    not for GET \
                  http://portico-verify.invalid/part: rule 0 of HTTPRoute default/part is shadowed by rule 0 of \
                  HTTPRoute default/own: its path /part is exact";
    assert!(stdout.contains("\nRemarks:\n") && stdout.contains(remark), "{stdout}");
    assert!(stdout.ends_with("4 requests: 3 as written, 1 different, 0 not derived\n"), "{stdout}");
    program.stop().expect_success();
}

const INGRESS: &str = "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  annotations:
    konghq.com/methods: PUT,GET
spec:
  ingressClassName: CLASS
  rules:
    - host: shop.example
      http:
        paths:
          - path: /~/users/[0-9]+
            pathType: ImplementationSpecific
            backend: {service: {name: echo, port: {number: 80}}}
          - path: /cart
            pathType: Prefix
            backend: {service: {name: echo, port: {number: 80}}}
";

const CLASS: &str = "apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: CLASS
ANNOTATIONSspec:
  controller: portico.dev/ingress-controller
";

#[test]
fn ingresses_of_both_dialects_are_verified() {
    for (class, annotations, user) in [
        ("kong", "", "GET http://shop.example/users/0"),
        ("plain", "  annotations: {portico.dev/dialect: kubernetes}\n", "GET http://shop.example/~/users/[0-9]+"),
    ] {
        let site = Site::new();
        site.save("manifests/gateway.yaml", GATEWAY);
        site.save("manifests/class.yaml", &CLASS.replace("CLASS", class).replace("ANNOTATIONS", annotations));
        let ingress = INGRESS.replace("CLASS", class);
        let ingress = if class == "kong" { ingress } else { ingress.replace("    konghq.com/methods: PUT,GET\n", "") };
        site.save("manifests/ingress.yaml", &ingress.replace("  annotations:\nspec", "spec"));
        let address = site.address_of("other");
        let flags = ["--ingress-class", class, "--ingress-http-listen", &address, "--ingress-https-listen", "off"];
        let program = run(&site, &[&["--access-log", "off"][..], &flags].concat());
        program.wait_started();
        let (code, requests) = verify_json(&site, &["manifests"]);
        let results: Vec<_> = requests.iter().map(|request| (&request["request"], &request["result"])).collect();
        assert_eq!(code, 0, "{class}: {requests:?}");
        assert_eq!(requests.len(), 2, "{class}: {results:?}");
        assert_eq!(requests[0]["request"], user, "{class}");
        assert_eq!(requests[1]["request"], "GET http://shop.example/cart", "{class}");
        program.stop().expect_success();
    }
}

#[test]
fn unreachable_admin_listener_and_invalid_files_have_exit_codes() {
    let site = Site::new();
    save_good_objects(&site);
    let (code, stdout, stderr) = verify(&site, &["manifests"]);
    assert_eq!((code, &*stdout), (2, ""));
    let expected = format!("error: cannot reach the admin listener at {}", site.address_of("admin"));
    assert!(stderr.contains(&expected) && stderr.contains("portico run"), "{stderr}");
    let (code, _, stderr) = verify(&site, &["nowhere"]);
    assert_eq!(code, 2, "{stderr}");
    let program = run(&site, &["--access-log", "off"]);
    program.wait_started();
    site.save("more/invalid.yaml", &route("good", "good", "echo").replace("backendRefs", "backendRef"));
    let (code, _, stderr) = verify(&site, &["more"]);
    assert!(code == 1 && stderr.contains("did you mean `backendRefs`?"), "{stderr}");
    // Another listener of the program is no admin listener.
    let mut command = portico(&site);
    command.args(["verify", "--admin", &site.address_of("status"), "manifests"]);
    let output = output(command);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(2) && stderr.contains("responds to /debug/snapshot with status 404"),
        "{stderr}"
    );
    program.stop().expect_success();
}
