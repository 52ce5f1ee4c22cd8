//! Manifests that several tests use, with placeholders that `Site::filled` replaces.

use super::site::Site;

/// A GatewayClass, a Gateway `good` on `@port@`, and a Service `echo` for the echo server.
pub(crate) const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata:
  name: portico
spec:
  controllerName: portico.dev/gateway-controller
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: good
spec:
  gatewayClassName: portico
  listeners:
    - name: http
      protocol: HTTP
      port: @port@
---
apiVersion: v1
kind: Service
metadata:
  name: echo
  annotations:
    portico.dev/address: @address@
spec:
  ports:
    - port: 80
      targetPort: @echo@
";

/// A Gateway with one listener.
pub(crate) fn gateway(name: &str, port: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: {name}
spec:
  gatewayClassName: portico
  listeners:
    - name: http
      protocol: HTTP
      port: {port}
"
    )
}

/// An HTTPRoute that forwards requests with the path prefix `/NAME` to port 80 of a Service.
pub(crate) fn route(gateway: &str, name: &str, service: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: {name}
spec:
  parentRefs:
    - name: {gateway}
  rules:
    - matches:
        - path:
            value: /{name}
      backendRefs:
        - name: {service}
          port: 80
"
    )
}

/// Writes `GATEWAY` and a route `good` to its Service `echo` into the folder `manifests` of the site.
pub(crate) fn save_good_objects(site: &Site) {
    site.save("manifests/gateway.yaml", GATEWAY);
    site.save("manifests/good.yaml", &route("good", "good", "echo"));
}
