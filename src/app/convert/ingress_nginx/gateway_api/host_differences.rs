//! The requests with another response by the manifests than by the Ingresses, each with one example for all hosts.

use super::host_plan::{HostPlan, PathPlan};
use crate::report::migration::Difference;

/// Those that the hosts show.
pub(super) fn of(plans: &[HostPlan]) -> Vec<Difference> {
    let rows = ROWS.iter().filter_map(|row| {
        let request = plans.iter().find_map(row.request)?;
        Some(Difference { name: row.name, request, before: row.before.to_owned(), after: row.after.to_owned() })
    });
    rows.collect()
}

/// A row of the table.
struct DifferenceRow {
    /// The setting of ingress-nginx that it is about.
    name: &'static str,
    /// An example; `None` if a host has no such request.
    request: fn(&HostPlan) -> Option<String>,
    before: &'static str,
    after: &'static str,
}

const ROWS: &[DifferenceRow] = &[
    DifferenceRow {
        name: "path",
        request: |plan| Some(format!("GET {}", url(plan, "/a/../b"))),
        before: "the backend gets the path as the client sent it",
        after: "the backend gets /b",
    },
    DifferenceRow {
        name: "path",
        request: |plan| {
            let path = plan.paths.iter().find(|path| path.path != "/")?;
            Some(format!("GET {}", url(plan, &format!("/{}", path.path))))
        },
        before: "slashes are merged, and %2F is one, so the path without the first slash gets it",
        after: "it is another path: that of /, or 404",
    },
    DifferenceRow {
        name: "path",
        request: |plan| (!plan.has_root()).then(|| format!("POST {} with a body above the limit", url(plan, "/none"))),
        before: "413; over TLS, with Strict-Transport-Security",
        after: "404 without it, as for all requests that no path has",
    },
    DifferenceRow {
        name: "path",
        request: |plan| {
            let root = plan.paths.iter().find(|path| path.path == "/" && path.is_exact)?;
            (!plan.has_root()).then(|| format!("GET {}", url(plan, &format!("/{}", root.path))))
        },
        before: "slashes are merged, so the path / gets it",
        after: "404",
    },
    DifferenceRow {
        name: "X-Forwarded-For",
        request: |plan| Some(format!("GET {} with X-Forwarded-For from --trusted-ips", url(plan, "/"))),
        before: "the backend gets the address of the client only, and all of them in X-Original-Forwarded-For",
        after: "the backend gets all addresses in X-Forwarded-For",
    },
    DifferenceRow {
        name: "X-Real-IP",
        request: |plan| Some(format!("GET {} with or without X-Real-IP", url(plan, "/"))),
        before: "the backend gets X-Real-IP, X-Scheme and X-Forwarded-Scheme with the values of the connection",
        after: "the backend gets neither of the last two, and X-Real-IP only where bodies are limited",
    },
    DifferenceRow {
        name: "proxy-body-size",
        request: |plan| limited(plan).map(|path| format!("GET {}", url(plan, &path.path))),
        before: "no further fields",
        after: "the plugin of the limit adds X-Kong-Request-Id and X-Forwarded-Path; responses have Via and latencies",
    },
    DifferenceRow {
        name: "proxy-body-size",
        request: |plan| {
            let path = limited(plan)?;
            Some(format!("POST {} with Expect: 100-continue and a body above the limit", url(plan, &path.path)))
        },
        before: "413",
        after: "417; without Expect, 413",
    },
    DifferenceRow {
        name: "proxy-next-upstream",
        request: |plan| Some(format!("GET {} while endpoints close new connections", url(plan, "/"))),
        before: "up to 3 attempts, at different endpoints",
        after: "one more attempt; without a connection, all endpoints",
    },
    DifferenceRow {
        name: "proxy-read-timeout",
        request: |plan| Some(format!("GET {} whose response stands still for 61 s", url(plan, "/"))),
        before: "the response is aborted; before its first byte, 504",
        after: "it is aborted after --response-idle-timeout, 300 s; before its first byte, 504 after 60 s",
    },
    DifferenceRow {
        name: "errors",
        request: |plan| Some(format!("a call of gRPC to {} while no endpoint is ready", url(plan, "/"))),
        before: "status 503",
        after: "status 200 with grpc-status UNAVAILABLE; other requests get 503, with another text",
    },
    DifferenceRow {
        name: "auth-tls-pass-certificate-to-upstream",
        request: |plan| Some(format!("GET {} with Ssl-Client-Other, or Ssl-Client_Verify", url(plan, "/"))),
        before: "the backend gets no field whose name begins with Ssl-Client-",
        after: "it gets those of other names and mixed spellings than Ssl-Client-Verify, -Cert, -Subject-Dn and \
                -Issuer-Dn",
    },
    DifferenceRow {
        name: "ssl-redirect",
        request: |plan| plan.redirects.then(|| format!("GET http://{}/a/", plan.host)),
        before: "308 to the path without the slash at its end",
        after: "308 to the same path",
    },
    DifferenceRow {
        name: "ssl-redirect",
        request: |plan| {
            let host = &plan.host;
            plan.redirects.then(|| format!("GET http://{host}/ with X-Forwarded-Proto: https from --trusted-ips"))
        },
        before: "the backend gets it",
        after: "308, also behind a load balancer that ends TLS: do not redirect there",
    },
    DifferenceRow {
        name: "tls",
        request: |plan| plan.secret.is_none().then(|| format!("GET https://{}/", plan.host)),
        before: "the backend gets it, over TLS with the default certificate",
        after: "the connection is refused: no listener has the host over TLS",
    },
    DifferenceRow {
        name: "tls",
        request: |plan| {
            plan.secret.as_ref().map(|_| format!("GET https://{}/ on a connection for another host", plan.host))
        },
        before: "the backend gets it",
        after: "421",
    },
];

/// The first path with a limit of bodies.
fn limited(plan: &HostPlan) -> Option<&PathPlan> {
    plan.paths.iter().find(|path| path.max_body_bytes.is_some())
}

fn url(plan: &HostPlan, path: &str) -> String {
    let scheme = if plan.secret.is_some() { "https" } else { "http" };
    format!("{scheme}://{}{path}", plan.host)
}
