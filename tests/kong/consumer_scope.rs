//! Whose routes a consumer may use: those of its namespace, those that a ReferenceGrant permits, or all.

use crate::harness::client::try_get;
use crate::harness::eventually;
use crate::harness::program::{Program, run};
use crate::harness::site::Site;

const CLASS: &str = "apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: kong}
spec: {controller: ingress-controllers.konghq.com/kong}
";

/// A namespace with an Ingress for the host `NAMESPACE.example`, which requires a key and lets no address through, and
/// a consumer `NAMESPACE-user`, whose plugin lets all addresses through.
const TENANT: &str = "---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: @tenant@, annotations: {portico.dev/address: \"@address@\"}}
spec: {ports: [{name: http, port: 80, targetPort: @echo@}]}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: keys, namespace: @tenant@}
plugin: key-auth
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: closed, namespace: @tenant@}
plugin: ip-restriction
config: {allow: [192.0.2.1]}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: session, namespace: @tenant@}
plugin: session
config: {secret: \"0123456789abcdef0123456789abcdef\", cookie_secure: false}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: open, namespace: @tenant@}
plugin: ip-restriction
config: {allow: [0.0.0.0/0]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: @tenant@, annotations: {konghq.com/plugins: \"keys, closed, session\"}}
spec:
  ingressClassName: kong
  rules:
  - host: @tenant@.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
---
apiVersion: configuration.konghq.com/v1
kind: KongConsumer
metadata:
  name: user
  namespace: @tenant@
  annotations: {kubernetes.io/ingress.class: kong, konghq.com/plugins: open}
username: @tenant@-user
credentials: [key]
---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: @tenant@, labels: {konghq.com/credential: key-auth}}
stringData: {key: @tenant@-key}
";

fn grant(kind: &str, name: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
         metadata: {{name: partners, namespace: shop}}\nspec:\n\
         \x20 from: [{{group: configuration.konghq.com, kind: KongConsumer, namespace: partners}}]\n\
         \x20 to: [{{group: networking.k8s.io, kind: {kind}{name}}}]\n"
    )
}

/// Starts the program with two tenants, `shop` and `partners`.
fn start(site: &Site, flags: &[&str]) -> (String, Program) {
    let tenants = ["shop", "partners"].map(|tenant| TENANT.replace("@tenant@", tenant));
    site.save("manifests/tenants.yaml", &[CLASS, &tenants.concat()].concat());
    let address = site.address_of("other");
    let listen = ["--ingress-class", "kong", "--ingress-http-listen", &address, "--ingress-https-listen", "off"];
    let program = run(site, &[&["--access-log", "off"][..], &listen, flags].concat());
    program.wait_started();
    (address, program)
}

#[test]
fn consumers_of_another_namespace_need_a_grant() {
    let site = Site::new();
    let (address, program) = start(&site, &[]);
    let get =
        |host: &str, key: &str| try_get(&address, &format!("{host}.example"), &format!("/?apikey={key}-key")).unwrap();
    let status = |host: &str, key: &str| get(host, key).status;
    assert_eq!((status("shop", "shop"), status("partners", "partners")), (200, 200));
    let refused = get("shop", "partners");
    assert_eq!(refused.status, 403, "{}", refused.head);
    assert!(refused.body.contains("may not use routes of this namespace"), "{}", refused.body);
    assert_eq!(refused.field("set-cookie"), None, "it would be a session of a client that may not use the route");
    assert!(get("shop", "shop").field("set-cookie").is_some());
    assert_eq!((status("partners", "shop"), status("shop", "unknown")), (403, 401));
    for (granted, expected) in [
        (grant("Ingress", ""), 200),
        (grant("Ingress", ", name: other"), 403),
        (grant("Ingress", ", name: web"), 200),
        (grant("IngressClass", ""), 403),
    ] {
        site.save("manifests/grant.yaml", &granted);
        eventually(&granted, || (status("shop", "partners") == expected).then_some(()));
        assert_eq!((status("shop", "shop"), status("partners", "shop")), (200, 403), "{granted}");
    }
    site.save("manifests/grant.yaml", &grant("Ingress", ""));
    eventually("the grant counts again", || (status("shop", "partners") == 200).then_some(()));
    std::fs::remove_file(site.path("manifests/grant.yaml")).unwrap();
    eventually("the grant is gone", || (status("shop", "partners") == 403).then_some(()));
    program.stop().expect_success();
}

/// A Service of `shop` whose plugins admit members of `vip`, and an HTTPRoute of `partners` to it, whose owner has a
/// consumer with a Secret that says so.
const GUARDED_SERVICE: &str = "---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: members, namespace: shop}
plugin: acl
config: {allow: [vip]}
---
apiVersion: v1
kind: Service
metadata:
  name: guarded
  namespace: shop
  annotations: {portico.dev/address: \"@address@\", konghq.com/plugins: \"keys, members\"}
spec: {ports: [{name: http, port: 80, targetPort: @echo@}]}
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: routes, namespace: shop}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: partners}]
  to: [{group: \"\", kind: Service}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: portico}
spec: {controllerName: portico.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: good, namespace: partners}
spec: {gatewayClassName: portico, listeners: [{name: http, protocol: HTTP, port: @port@}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: guarded, namespace: partners}
spec:
  parentRefs: [{name: good}]
  rules: [{backendRefs: [{name: guarded, namespace: shop, port: 80}]}]
---
apiVersion: configuration.konghq.com/v1
kind: KongConsumer
metadata: {name: made, namespace: partners, annotations: {kubernetes.io/ingress.class: kong}}
username: made
credentials: [made-key, made-vip]
---
apiVersion: v1
kind: Secret
metadata: {name: made-key, namespace: partners, labels: {konghq.com/credential: key-auth}}
stringData: {key: made-key}
---
apiVersion: v1
kind: Secret
metadata: {name: made-vip, namespace: partners, labels: {konghq.com/credential: acl}}
stringData: {group: vip}
";

#[test]
fn owners_of_routes_cannot_pass_the_guard_of_a_service_with_consumers_of_their_own() {
    let site = Site::new();
    site.save("manifests/guarded.yaml", GUARDED_SERVICE);
    let (_, program) = start(&site, &[]);
    let gateway = site.address_of("port");
    let status = || try_get(&gateway, "a.example", "/?apikey=made-key").unwrap().status;
    assert_eq!(status(), 403);
    let of_consumers = grant("Service", "").replace("networking.k8s.io, kind: Service", "\"\", kind: Service");
    site.save("manifests/grant.yaml", &of_consumers);
    eventually("the namespace of the Service admits them", || (status() == 200).then_some(()));
    program.stop().expect_success();
}

/// An Ingress and a Service of one namespace, where the plugin is on the Service.
const KEYED_SERVICE: &str = "---
apiVersion: v1
kind: Service
metadata:
  name: keyed
  namespace: shop
  annotations: {portico.dev/address: \"@address@\", konghq.com/plugins: keys}
spec: {ports: [{name: http, port: 80, targetPort: @echo@}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: keyed, namespace: shop}
spec:
  ingressClassName: kong
  rules:
  - host: keyed.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: keyed, port: {number: 80}}}}]}
";

#[test]
fn plugins_of_a_service_admit_whom_the_route_of_its_namespace_admits() {
    let site = Site::new();
    site.save("manifests/keyed.yaml", KEYED_SERVICE);
    let (address, program) = start(&site, &[]);
    let status = || try_get(&address, "keyed.example", "/?apikey=partners-key").unwrap().status;
    assert_eq!(status(), 403);
    site.save("manifests/grant.yaml", &grant("Ingress", ""));
    eventually("the grant for the Ingress suffices", || (status() == 200).then_some(()));
    program.stop().expect_success();
}

#[test]
fn consumers_may_use_all_routes_with_the_scope_of_the_cluster() {
    let site = Site::new();
    let (address, program) = start(&site, &["--consumer-scope", "cluster"]);
    for (host, key) in [("shop", "partners"), ("partners", "shop"), ("shop", "shop")] {
        let response = try_get(&address, &format!("{host}.example"), &format!("/?apikey={key}-key")).unwrap();
        assert_eq!(response.status, 200, "{host} {key}: {}", response.head);
    }
    program.stop().expect_success();
}
