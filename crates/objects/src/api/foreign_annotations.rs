//! Annotations of other ingress controllers: which of them restrict requests, and which change nothing that protects.
//!
//! An object that moves to Portico keeps its annotations. Portico reads none of those in this table, so one that
//! restricted requests before must not be overlooked.

use super::ingress_nginx;
use super::kong::annotations::{FORCE_SSL_REDIRECT, INGRESS_CLASS, INGRESS_PREFIX, SERVICE_UPSTREAM, list};

/// An annotation of another controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignAnnotation {
    /// The controller that reads it, for messages.
    pub controller: &'static str,
    /// Which clients or requests it keeps from a backend. With any of these, it is a guard.
    pub restriction: Option<Restriction>,
    /// What Portico does in another way, if that is worth more than the usual warning.
    pub difference: Option<&'static str>,
}

/// What a guard keeps from a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restriction {
    /// Some clients or requests.
    Requests,
    /// Requests without TLS, which it refuses or redirects.
    PlainText,
    /// The same, if the object configures TLS.
    PlainTextBesideTls,
}

impl ForeignAnnotation {
    pub fn is_guard(&self) -> bool {
        self.restriction.is_some()
    }
}

/// Whether an annotation is in the table, whatever its value.
pub fn is_foreign(key: &str) -> bool {
    is_of_old_plugin(key) || rows(key).any(|(row, name)| row.reports_all || row.guard(name).is_some())
}

/// The controller of an annotation, and whether it restricts requests. `None` for an annotation of Portico or of a
/// program that is not in the table.
pub fn classify(key: &str, value: &str) -> Option<ForeignAnnotation> {
    if is_of_old_plugin(key) {
        let restriction = (!value.trim().is_empty()).then_some(Restriction::Requests);
        return Some(ForeignAnnotation { controller: BEFORE_VERSION_2, restriction, difference: None });
    }
    rows(key).find_map(|(row, name)| {
        let guard = row.guard(name);
        let restriction = guard.filter(|guard| guard.restricts(value)).map(|guard| guard.restriction);
        let difference = guard.filter(|_| !value.trim().is_empty()).and_then(|guard| guard.difference);
        let annotation = ForeignAnnotation { controller: row.controller, restriction, difference };
        (annotation.is_guard() || row.reports_all).then_some(annotation)
    })
}

/// What has the effect of an annotation of ingress-nginx here. `None` if nothing has, or if the annotation is not in
/// the table.
pub fn replacement(key: &str) -> Option<&'static str> {
    let name = key.strip_prefix(ingress_nginx::PREFIX)?;
    Some(match name {
        "rewrite-target" => "set konghq.com/rewrite, in which $1 is the first group of a path such as /~/api/(.*)",
        "use-regex" => "write the expression after /~ in a path of type ImplementationSpecific",
        "backend-protocol" => "set annotation konghq.com/protocol of the Service",
        "permanent-redirect" | "temporal-redirect" | "app-root" => "attach a KongPlugin of plugin redirect",
        "proxy-body-size" => "attach a KongPlugin of plugin request-size-limiting",
        "enable-cors" | "cors-allow-origin" | "cors-allow-methods" | "cors-allow-headers" | "cors-max-age" => {
            "attach a KongPlugin of plugin cors"
        }
        _ => return None,
    })
}

/// Whether this is `KIND.plugin.konghq.com`, whose value names a plugin of that kind.
fn is_of_old_plugin(key: &str) -> bool {
    key.ends_with(".plugin.konghq.com")
}

/// The rows with the prefix of a key, each with the rest of the key.
fn rows(key: &str) -> impl Iterator<Item = (&'static Row, &str)> {
    let is_read = [FORCE_SSL_REDIRECT, SERVICE_UPSTREAM, INGRESS_CLASS].contains(&key);
    let rows = ROWS.iter().filter(move |_| !is_read);
    rows.filter_map(move |row| Some((row, key.strip_prefix(row.prefix)?)))
}

/// The annotations of a controller that have a common prefix.
struct Row {
    controller: &'static str,
    /// A whole key if the only guard has an empty name.
    prefix: &'static str,
    /// Whether annotations with this prefix are worth a warning even if they restrict nothing. Not for prefixes that
    /// other programs of the cluster use.
    reports_all: bool,
    guards: &'static [Guard],
}

impl Row {
    fn guard(&self, name: &str) -> Option<&'static Guard> {
        self.guards.iter().find(|guard| match guard.name.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == guard.name,
        })
    }
}

/// An annotation that restricts requests.
struct Guard {
    /// The name after the prefix. A `*` at its end stands for any text.
    name: &'static str,
    /// The values with which it restricts nothing, in lower case. An empty value never restricts, and a list of these
    /// values does not either.
    harmless: &'static [&'static str],
    restriction: Restriction,
    /// See [`ForeignAnnotation::difference`].
    difference: Option<&'static str>,
}

impl Guard {
    fn restricts(&self, value: &str) -> bool {
        list(value).any(|item| !self.harmless.iter().any(|harmless| item.eq_ignore_ascii_case(harmless)))
    }

    /// The guard refuses or redirects requests without TLS.
    const fn of_plain_text(self) -> Guard {
        Guard { restriction: Restriction::PlainText, ..self }
    }

    /// The same, only if the object configures TLS.
    const fn beside_tls(self) -> Guard {
        Guard { restriction: Restriction::PlainTextBesideTls, ..self }
    }

    const fn differs(self, difference: &'static str) -> Guard {
        Guard { difference: Some(difference), ..self }
    }
}

/// Restricts with any value: a list of addresses, the name of a Secret, a snippet of configuration.
const fn any(name: &'static str) -> Guard {
    unless(name, &[])
}

/// Restricts unless it is switched off.
const fn switch(name: &'static str) -> Guard {
    unless(name, &["false", "off", "no", "none", "disabled", "0"])
}

/// Restricts with other values than these.
const fn unless(name: &'static str, harmless: &'static [&'static str]) -> Guard {
    Guard { name, harmless, restriction: Restriction::Requests, difference: None }
}

const fn row(controller: &'static str, prefix: &'static str, guards: &'static [Guard]) -> Row {
    Row { controller, prefix, reports_all: true, guards }
}

/// A row of which only guards are reported.
const fn guards_of(controller: &'static str, prefix: &'static str, guards: &'static [Guard]) -> Row {
    Row { controller, prefix, reports_all: false, guards }
}

const BEFORE_VERSION_2: &str = "Kong's ingress controller before version 2";

/// The table, by controller. Snippets count as guards, since they may contain any restriction.
const ROWS: &[Row] = &[
    row("ingress-nginx", ingress_nginx::PREFIX, INGRESS_NGINX),
    row("the ingress controller of NGINX Inc.", "nginx.org/", NGINX_INC),
    row("the ingress controller of NGINX Inc.", "nginx.com/", NGINX_INC),
    row(
        "the ingress controller of NGINX Inc.",
        "appprotect.f5.com/",
        &[switch("app-protect-enable"), any("app-protect-policy")],
    ),
    row("the ingress controller of NGINX Inc.", "appprotectdos.f5.com/", &[any("app-protect-dos-resource")]),
    row("Traefik", "traefik.ingress.kubernetes.io/", TRAEFIK),
    row("the ingress controller of HAProxy Technologies", "haproxy.org/", HAPROXY_TECH),
    row("the ingress controller of HAProxy Technologies", "haproxy.com/", HAPROXY_TECH),
    row("HAProxy Ingress", "haproxy-ingress.github.io/", HAPROXY_INGRESS),
    guards_of("HAProxy Ingress and older controllers", INGRESS_PREFIX, HAPROXY_INGRESS),
    row("Contour", "projectcontour.io/", CONTOUR),
    row("Contour", "contour.heptio.com/", CONTOUR),
    // Its value is configuration of any kind.
    row("Emissary (Ambassador)", "getambassador.io/", &[any("config")]),
    row("the AWS Load Balancer Controller", "alb.ingress.kubernetes.io/", AWS_ALB),
    guards_of(
        "the ingress controllers of GKE and Contour",
        "kubernetes.io/ingress.allow-http",
        &[unless("", &["true"]).of_plain_text()],
    ),
    guards_of("the ingress controller of GKE", "networking.gke.io/v1beta1.FrontendConfig", &[any("")]),
    // A BackendConfig may require an identity or a security policy.
    guards_of("the ingress controller of GKE", "cloud.google.com/backend-config", &[any("")]),
    guards_of("the ingress controller of GKE", "beta.cloud.google.com/backend-config", &[any("")]),
    row("the ingress controller of GKE", "ingress.gcp.kubernetes.io/", &[]),
    row("the Application Gateway ingress controller of Azure", "appgw.ingress.kubernetes.io/", AZURE_AGIC),
    row("the router of OpenShift", "haproxy.router.openshift.io/", OPENSHIFT),
    row("the router of OpenShift", "route.openshift.io/", &[]),
    guards_of("Istio", "networking.istio.io/exportTo", &[unless("", &["*"])]),
    guards_of("Istio", "auth.istio.io/", &[unless("*", &["none"])]),
    row("Cilium", "ingress.cilium.io/", &[switch("force-https").of_plain_text()]),
    row("APISIX", "k8s.apisix.apache.org/", APISIX),
    row("Skipper", "zalando.org/", SKIPPER),
    row("Voyager", "ingress.appscode.com/", VOYAGER),
    row("Higress", "higress.io/", INGRESS_NGINX),
    row("the ingress controller of ngrok", "k8s.ngrok.com/", &[any("modules"), any("traffic-policy")]),
    row("Pomerium", "ingress.pomerium.io/", POMERIUM),
    guards_of(BEFORE_VERSION_2, "plugins.konghq.com", &[any("")]),
    // A KongIngress may restrict methods, protocols and headers.
    guards_of(BEFORE_VERSION_2, "configuration.konghq.com", &[any("")]),
    row(BEFORE_VERSION_2, "configuration.konghq.com/", BEFORE_2),
];

const BEFORE_2: &[Guard] = &[
    any("plugins"),
    any("protocols"),
    any("methods"),
    any("snis"),
    any("headers.*"),
    any("https-redirect-status-code").of_plain_text(),
    // A KongIngress.
    any("override"),
];

const INGRESS_NGINX: &[Guard] = &[
    switch("auth-url"),
    switch("auth-type"),
    any("auth-secret"),
    any("auth-signin"),
    any("auth-snippet"),
    any("auth-tls-secret"),
    switch("auth-tls-verify-client"),
    any("auth-tls-match-cn"),
    any("whitelist-source-range"),
    any("allowlist-source-range"),
    any("denylist-source-range"),
    any("blacklist-source-range"),
    any("domain-whitelist-source-range"),
    switch("limit-rps"),
    switch("limit-rpm"),
    switch("limit-connections"),
    switch("global-rate-limit"),
    switch("route-limit-rps"),
    switch("route-limit-rpm"),
    switch("enable-modsecurity"),
    switch("enable-owasp-core-rules"),
    any("modsecurity-snippet"),
    // Redirects only hosts for which the Ingress has a certificate.
    switch("ssl-redirect").beside_tls(),
    switch("force-ssl-redirect").of_plain_text(),
    any("server-snippet"),
    any("configuration-snippet"),
    // The conditions of a canary are in further annotations; without them it would get all requests.
    switch("canary"),
];

const NGINX_INC: &[Guard] = &[
    any("basic-auth-secret"),
    any("jwt-key"),
    any("policies"),
    any("server-snippets"),
    any("location-snippets"),
    any("limit-req-rate"),
    switch("redirect-to-https").of_plain_text(),
    switch("ssl-redirect").of_plain_text(),
];

const TRAEFIK: &[Guard] = &[
    any("router.middlewares"),
    // Entry points with these names are public, as Portico's ports are. Others may be internal.
    unless("router.entrypoints", &["web", "websecure", "http", "https"]).differs(
        "it selects entry points of Traefik, but Portico serves an Ingress on all of its ports, also without TLS",
    ),
    switch("router.tls").of_plain_text(),
    any("router.tls.options"),
    // Those of version 1.
    switch("auth-type"),
    any("auth-secret"),
    any("auth-url"),
    any("whitelist-source-range"),
    any("rate-limit"),
    any("frontend-entry-points"),
    any("redirect-entry-point"),
    any("pass-client-tls-cert"),
];

const HAPROXY_TECH: &[Guard] = &[
    switch("auth-type"),
    any("auth-secret"),
    any("allow-list"),
    any("deny-list"),
    any("whitelist"),
    any("blacklist"),
    any("client-ca"),
    switch("rate-limit-requests"),
    any("route-acl"),
    switch("ssl-redirect").of_plain_text(),
    any("backend-config-snippet"),
    any("frontend-config-snippet"),
];

const HAPROXY_INGRESS: &[Guard] = &[
    switch("auth-type"),
    any("auth-secret"),
    switch("auth-url"),
    any("auth-tls-secret"),
    switch("auth-tls-verify-client"),
    any("allowlist-source-range"),
    any("whitelist-source-range"),
    any("denylist-source-range"),
    switch("limit-rps"),
    switch("limit-connections"),
    switch("oauth"),
    switch("waf"),
    // Redirects only hosts for which the Ingress has a certificate.
    switch("ssl-redirect").beside_tls(),
    any("config-backend"),
    any("config-backend-early"),
    any("config-backend-late"),
    any("config-frontend"),
    any("config-frontend-early"),
    any("config-frontend-late"),
];

/// Portico accepts no older versions than 1.2.
const CONTOUR: &[Guard] = &[unless("tls-minimum-protocol-version", &["1.0", "1.1", "1.2"])];

const AWS_ALB: &[Guard] = &[
    unless("auth-type", &["none"]),
    any("auth-idp-cognito"),
    any("auth-idp-oidc"),
    any("jwt-validation"),
    any("mutual-authentication"),
    any("inbound-cidrs"),
    any("security-groups"),
    any("security-group-prefix-lists"),
    unless("scheme", &["internet-facing"]),
    any("wafv2-acl-arn"),
    any("wafv2-acl-name"),
    any("waf-acl-id"),
    any("web-acl-id"),
    switch("shield-advanced-protection"),
    switch("ssl-redirect").of_plain_text(),
    any("conditions.*"),
];

const AZURE_AGIC: &[Guard] = &[
    any("waf-policy-for-path"),
    switch("use-private-ip"),
    switch("ssl-redirect").of_plain_text(),
    any("appgw-ssl-profile"),
];

const OPENSHIFT: &[Guard] = &[any("ip_whitelist"), any("ip_allowlist"), switch("rate-limit-connections")];

const APISIX: &[Guard] = &[
    any("plugin-config-name"),
    switch("auth-type"),
    any("auth-uri"),
    any("allowlist-source-range"),
    any("blocklist-source-range"),
    any("http-allow-methods"),
    any("http-block-methods"),
    switch("http-to-https").of_plain_text(),
    switch("enable-csrf"),
];

const SKIPPER: &[Guard] = &[any("skipper-filter"), any("skipper-predicate"), any("skipper-routes"), any("ratelimit")];

const VOYAGER: &[Guard] = &[
    switch("auth-type"),
    any("auth-secret"),
    any("auth-tls-secret"),
    any("whitelist-source-range"),
    switch("limit-rps"),
    switch("limit-rpm"),
    switch("limit-connection"),
    switch("ssl-redirect").of_plain_text(),
    switch("force-ssl-redirect").of_plain_text(),
];

const POMERIUM: &[Guard] = &[
    any("policy"),
    any("allowed_users"),
    any("allowed_groups"),
    any("allowed_domains"),
    any("allowed_idp_claims"),
    switch("allow_any_authenticated_user"),
    any("tls_downstream_client_ca_secret"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_that_restrict_requests_are_guards() {
        for (key, value) in [
            ("nginx.ingress.kubernetes.io/auth-url", "https://auth.example/verify"),
            ("nginx.ingress.kubernetes.io/whitelist-source-range", "10.0.0.0/8"),
            ("nginx.ingress.kubernetes.io/auth-tls-secret", "default/ca"),
            ("nginx.ingress.kubernetes.io/configuration-snippet", "deny all;"),
            ("nginx.ingress.kubernetes.io/limit-rps", "5"),
            ("nginx.ingress.kubernetes.io/force-ssl-redirect", "True"),
            ("nginx.ingress.kubernetes.io/canary", "true"),
            ("nginx.org/basic-auth-secret", "users"),
            ("nginx.com/jwt-key", "key"),
            ("nginx.org/policies", "allow-office"),
            ("appprotect.f5.com/app-protect-enable", "True"),
            ("appprotectdos.f5.com/app-protect-dos-resource", "dos"),
            ("traefik.ingress.kubernetes.io/router.middlewares", "default-auth@kubernetescrd"),
            ("traefik.ingress.kubernetes.io/router.tls", "true"),
            ("traefik.ingress.kubernetes.io/router.tls.options", "default-mtls@kubernetescrd"),
            ("traefik.ingress.kubernetes.io/router.entrypoints", "internal"),
            ("traefik.ingress.kubernetes.io/router.entrypoints", "web, internal"),
            ("haproxy.org/allow-list", "10.0.0.0/8"),
            ("haproxy.org/deny-list", "192.0.2.0/24"),
            ("haproxy.com/auth-type", "basic-auth"),
            ("haproxy-ingress.github.io/auth-url", "http://auth.example"),
            ("haproxy-ingress.github.io/waf", "modsecurity"),
            ("ingress.kubernetes.io/auth-type", "basic"),
            ("ingress.kubernetes.io/whitelist-source-range", "10.0.0.0/8"),
            ("projectcontour.io/tls-minimum-protocol-version", "1.3"),
            ("getambassador.io/config", "kind: RateLimit"),
            ("alb.ingress.kubernetes.io/auth-type", "oidc"),
            ("alb.ingress.kubernetes.io/inbound-cidrs", "10.0.0.0/8"),
            ("alb.ingress.kubernetes.io/scheme", "internal"),
            ("alb.ingress.kubernetes.io/conditions.web", "[]"),
            ("kubernetes.io/ingress.allow-http", "false"),
            ("networking.gke.io/v1beta1.FrontendConfig", "tls-only"),
            ("cloud.google.com/backend-config", r#"{"default": "iap"}"#),
            ("beta.cloud.google.com/backend-config", r#"{"default": "iap"}"#),
            ("appgw.ingress.kubernetes.io/waf-policy-for-path", "/subscriptions/a"),
            ("appgw.ingress.kubernetes.io/ssl-redirect", "true"),
            ("haproxy.router.openshift.io/ip_whitelist", "10.0.0.0/8"),
            ("haproxy.router.openshift.io/ip_allowlist", "10.0.0.0/8"),
            ("networking.istio.io/exportTo", "."),
            ("auth.istio.io/8000", "MUTUAL_TLS"),
            ("ingress.cilium.io/force-https", "enabled"),
            ("k8s.apisix.apache.org/plugin-config-name", "guard"),
            ("k8s.apisix.apache.org/blocklist-source-range", "192.0.2.0/24"),
            ("zalando.org/skipper-filter", "oauthTokeninfoAnyScope(\"uid\")"),
            ("ingress.appscode.com/auth-type", "basic"),
            ("higress.io/whitelist-source-range", "10.0.0.0/8"),
            ("k8s.ngrok.com/traffic-policy", "office"),
            ("ingress.pomerium.io/policy", "[]"),
            ("plugins.konghq.com", "key-auth"),
            ("rate-limiting.plugin.konghq.com", "limit"),
            ("configuration.konghq.com", "methods"),
            ("configuration.konghq.com/protocols", "https"),
            ("configuration.konghq.com/methods", "GET"),
            ("configuration.konghq.com/headers.x-team", "a"),
        ] {
            assert!(is_foreign(key), "{key}");
            assert!(classify(key, value).is_some_and(|annotation| annotation.is_guard()), "{key}: {value}");
            assert!(!classify(key, " ").is_some_and(|annotation| annotation.is_guard()), "{key} without a value");
        }
    }

    /// Every guard of the table restricts with some value, and has the name of its controller.
    #[test]
    fn all_rows_are_found_by_their_keys() {
        for row in ROWS {
            for guard in row.guards {
                let key = format!("{}{}", row.prefix, guard.name.replace('*', "8000"));
                let ForeignAnnotation { controller, restriction, .. } = classify(&key, "restricted").unwrap();
                assert_eq!((controller, restriction), (row.controller, Some(guard.restriction)), "{key}");
            }
        }
    }

    #[test]
    fn annotations_that_protect_nothing_are_no_guards() {
        for (key, value) in [
            ("nginx.ingress.kubernetes.io/rewrite-target", "/$1"),
            ("nginx.ingress.kubernetes.io/ssl-redirect", "false"),
            ("nginx.ingress.kubernetes.io/auth-tls-verify-client", "off"),
            ("traefik.ingress.kubernetes.io/router.priority", "42"),
            ("traefik.ingress.kubernetes.io/router.entrypoints", "websecure"),
            ("traefik.ingress.kubernetes.io/router.entrypoints", "web, websecure"),
            ("traefik.ingress.kubernetes.io/router.tls", "False"),
            ("haproxy.org/load-balance", "leastconn"),
            ("projectcontour.io/response-timeout", "5s"),
            ("getambassador.io/ambassador-id", "default"),
            ("alb.ingress.kubernetes.io/scheme", "internet-facing"),
            ("alb.ingress.kubernetes.io/auth-type", "none"),
            ("appgw.ingress.kubernetes.io/backend-path-prefix", "/"),
            ("haproxy.router.openshift.io/timeout", "5s"),
            ("ingress.cilium.io/loadbalancer-mode", "shared"),
            ("k8s.apisix.apache.org/use-regex", "true"),
            ("configuration.konghq.com/strip-path", "true"),
        ] {
            assert!(is_foreign(key), "{key}");
            assert!(classify(key, value).is_some_and(|annotation| !annotation.is_guard()), "{key}: {value}");
        }
    }

    #[test]
    fn guards_of_plain_text_are_told_from_others() {
        use Restriction::{PlainText, PlainTextBesideTls, Requests};
        for (key, value, expected) in [
            ("nginx.ingress.kubernetes.io/ssl-redirect", "true", Some(PlainTextBesideTls)),
            ("nginx.ingress.kubernetes.io/ssl-redirect", "false", None),
            ("nginx.ingress.kubernetes.io/force-ssl-redirect", "true", Some(PlainText)),
            ("nginx.ingress.kubernetes.io/force-ssl-redirect", "false", None),
            ("nginx.ingress.kubernetes.io/whitelist-source-range", "10.0.0.0/8, 192.0.2.0/24", Some(Requests)),
            ("haproxy.org/ssl-redirect", "true", Some(PlainText)),
            ("alb.ingress.kubernetes.io/ssl-redirect", "443", Some(PlainText)),
            ("kubernetes.io/ingress.allow-http", "false", Some(PlainText)),
            ("traefik.ingress.kubernetes.io/router.tls", "true", Some(PlainText)),
            ("traefik.ingress.kubernetes.io/router.middlewares", "default-auth@kubernetescrd", Some(Requests)),
        ] {
            assert_eq!(classify(key, value).and_then(|annotation| annotation.restriction), expected, "{key}: {value}");
        }
    }

    /// Neither Portico's and Kong's own annotations nor those that other programs of a cluster set on Services.
    #[test]
    fn other_annotations_are_not_in_the_table() {
        for key in [
            "konghq.com/plugins",
            "ingress.kubernetes.io/force-ssl-redirect",
            "ingress.kubernetes.io/service-upstream",
            "kubernetes.io/ingress.class",
            "portico.dev/address",
            "cloud.google.com/neg",
            "cloud.google.com/neg-status",
            "networking.istio.io/traffic-distribution",
            "service.cilium.io/global",
            "service.beta.kubernetes.io/aws-load-balancer-type",
            "kubectl.kubernetes.io/last-applied-configuration",
            "ingress.kubernetes.io/backends",
            "cert-manager.io/cluster-issuer",
            "cert-manager.io/issuer",
            "acme.cert-manager.io/http01-edit-in-place",
            "kubernetes.io/tls-acme",
            "external-dns.alpha.kubernetes.io/hostname",
            "external-dns.alpha.kubernetes.io/target",
        ] {
            assert_eq!(classify(key, "true"), None, "{key}");
        }
    }
}
