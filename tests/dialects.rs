//! Ingresses of two dialects of the running program, on one port.

use crate::harness::client::try_get;
use crate::harness::eventually;
use crate::harness::objects::GATEWAY;
use crate::harness::program::run;
use crate::harness::site::Site;

const CLASSES: &str = "apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: kubernetes
  annotations:
    portico.dev/dialect: kubernetes
spec:
  controller: portico.dev/ingress-controller
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: portico
spec:
  controller: portico.dev/ingress-controller
";

/// An Ingress with one path of type Prefix to the echo server.
fn ingress(name: &str, class: &str, annotation: &str, host: &str, path: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  annotations: {{{annotation}}}
spec:
  ingressClassName: {class}
  rules:
    - host: \"{host}\"
      http:
        paths:
          - path: {path}
            pathType: Prefix
            backend:
              service:
                name: echo
                port:
                  number: 80
"
    )
}

#[test]
fn two_dialects_share_one_port() {
    let site = Site::new();
    site.save("manifests/gateway.yaml", GATEWAY);
    site.save("manifests/classes.yaml", CLASSES);
    let strip = "konghq.com/strip-path: \"true\"";
    site.save("manifests/kong.yaml", &ingress("kong", "portico", strip, "*.kong.example", "/api"));
    site.save("manifests/kubernetes.yaml", &ingress("kubernetes", "kubernetes", "", "*.kubernetes.example", "/api"));
    let plugins = "konghq.com/plugins: keys";
    site.save("manifests/guarded.yaml", &ingress("guarded", "kubernetes", plugins, "guarded.example", "/"));
    // `other` is a port of the site that no other flag uses.
    let address = site.address_of("other");
    let program =
        run(&site, &["--access-log", "off", "--ingress-http-listen", &address, "--ingress-https-listen", "off"]);
    program.wait_started();
    let get = |host: &str, path: &str| try_get(&address, host, path).unwrap();

    // Kong's dialect strips the path, merges slashes, matches several labels, and has headers of its own.
    for (host, path) in [("a.kong.example", "/api/cart"), ("b.a.kong.example", "//api//cart")] {
        let response = get(host, path);
        assert_eq!((response.status, response.json()["path"].as_str()), (200, Some("/cart")), "{host}{path}");
        assert!(response.field("x-kong-request-id").is_some(), "{}", response.head);
    }
    // The dialect `kubernetes` sends the path and Host of the client, and matches one label and whole elements.
    let response = get("a.kubernetes.example", "/api//cart?b=c");
    assert_eq!((response.status, response.json()["path"].as_str()), (200, Some("/api//cart")));
    let headers = response.json()["headers"].to_string();
    assert!(headers.contains("a.kubernetes.example") && !headers.contains("x-forwarded-prefix"), "{headers}");
    assert_eq!(response.field("x-kong-request-id"), None, "{}", response.head);
    for (host, path) in
        [("b.a.kubernetes.example", "/api"), ("a.kubernetes.example", "//api"), ("a.kubernetes.example", "/apis")]
    {
        let response = get(host, path);
        assert_eq!((response.status, response.field("x-kong-request-id")), (404, None), "{host}{path}");
    }
    // A request that matches no rule gets the response of the dialect with the host.
    let unmatched = get("a.kong.example", "/other");
    assert_eq!(unmatched.status, 404);
    assert!(unmatched.field("x-kong-request-id").is_some(), "{}", unmatched.head);

    // Plugins do not run in this dialect, so the Ingress that refers to one is out of service, and reports it.
    assert_eq!(get("guarded.example", "/").status, 503);
    let messages = program.messages();
    assert!(messages.contains("konghq.com/plugins") && messages.contains("status 503"), "{messages}");

    // The class decides: without the annotation, the Ingress gets Kong's dialect, where the plugin is missing.
    site.save("manifests/classes.yaml", &CLASSES.replace("portico.dev/dialect: kubernetes", "a: b"));
    eventually("the class has Kong's dialect", || {
        let response = get("b.a.kubernetes.example", "/api");
        (response.status == 200 && response.field("x-kong-request-id").is_some()).then_some(())
    });
    assert_eq!(get("guarded.example", "/").status, 503);
    program.stop().expect_success();
}
