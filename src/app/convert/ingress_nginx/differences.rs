//! The requests to which Portico intends to respond in another way than ingress-nginx, if an Ingress has what they
//! need. What concerns every Ingress is in the guide only, because no verdict would be `Same` otherwise.

use super::subject::{self, IngressPathOf, Subject, paths, value};
use crate::api::ingress_nginx::{self, flag, items};
use crate::report::migration::Difference;

/// Those that an Ingress shows.
pub(super) fn of(subject: Subject<'_>) -> Vec<Difference> {
    let rows = KNOWN.iter().filter_map(|known| {
        let request = (known.request)(subject)?;
        let KnownDifference { name, before, after, .. } = *known;
        Some(Difference { name, request, before: before.to_owned(), after: after.to_owned() })
    });
    rows.collect()
}

/// A row of the table.
struct KnownDifference {
    /// The annotation that it is about.
    name: &'static str,
    /// An example of a request; `None` if the Ingress has no such request.
    request: fn(Subject<'_>) -> Option<String>,
    before: &'static str,
    after: &'static str,
}

const KNOWN: &[KnownDifference] = &[
    KnownDifference {
        name: "backend-protocol",
        request: |subject| {
            let is_fast_cgi = |protocol: &str| protocol.trim().eq_ignore_ascii_case("FCGI");
            let is_main = !subject.is_canary() && subject.value("backend-protocol").is_some_and(is_fast_cgi);
            is_main.then(|| format!("GET {} with Proxy or X-Forwarded-For", subject.first_url()))
        },
        before: "the server gets HTTP_PROXY and HTTP_X_FORWARDED_FOR as the client has sent them",
        after: "the server gets no HTTP_PROXY, and the address of the client as HTTP_X_FORWARDED_FOR",
    },
    KnownDifference {
        name: "session-cookie-change-on-failure",
        request: |subject| {
            let stays = has_session(subject) && !subject.is_set("session-cookie-change-on-failure");
            stays.then(|| format!("GET {} with a cookie, while its endpoint has failed", subject.first_url()))
        },
        before: "all attempts go to the endpoint of the cookie",
        after: "another endpoint serves it, and the client gets a new cookie",
    },
    KnownDifference {
        name: "session-cookie-max-age",
        request: |subject| {
            let names = ["session-cookie-max-age", "session-cookie-expires"];
            let has_age = names.iter().any(|name| subject.value(name).is_some());
            (has_session(subject) && has_age).then(|| format!("GET {} without a cookie", subject.first_url()))
        },
        before: "Set-Cookie has Expires, too",
        after: "Set-Cookie has Max-Age only",
    },
    KnownDifference {
        name: "cors-allow-origin",
        request: |subject| {
            let origin = listed_origins(subject)?.find(|origin| origin.contains("://"))?;
            let host = origin.split_once("://")?.1.trim_start_matches("*.");
            Some(format!("OPTIONS {} with Origin https://other-{host}", subject.first_url()))
        },
        before: "the origin is permitted if it ends like a listed one",
        after: "origins are compared as a whole: no CORS headers, and the backend gets the preflight request",
    },
    KnownDifference {
        name: "cors-allow-origin",
        request: |subject| {
            let origin = listed_origins(subject)?.next()?;
            Some(format!("GET {} with Origin {origin}", subject.first_url()))
        },
        before: "no Vary",
        after: "Vary: Origin",
    },
    KnownDifference {
        name: "proxy-next-upstream-tries",
        request: |subject| {
            let attempts = ingress_nginx::integer(subject.value_or_key("proxy-next-upstream-tries")?)?;
            let request = || format!("GET {} while no endpoint accepts connections", subject.first_url());
            (!subject.is_canary() && (attempts == 0 || attempts > 10)).then(request)
        },
        before: "as many attempts as the value permits; 0 is no limit",
        after: "at most 10 attempts",
    },
    KnownDifference {
        name: "proxy-next-upstream",
        request: |subject| {
            let conditions = subject.value_or_key("proxy-next-upstream").unwrap_or_default();
            let mut conditions = conditions.split_whitespace();
            let is_off = subject.is_canary() || conditions.clone().any(|condition| condition == "off");
            let repeats_processed = |condition: &str| !matches!(condition, "error" | "timeout");
            let is_key_set = subject.config.get("retry-non-idempotent").and_then(|value| flag(value)) == Some(true);
            let request = || format!("PUT or POST {} with a body above 64 KiB, which fails", subject.first_url());
            (!is_off && (is_key_set || conditions.any(repeats_processed))).then(request)
        },
        before: "another endpoint gets it",
        after: "it is not sent again: only bodies up to 64 KiB are kept for that",
    },
    KnownDifference {
        name: "canary",
        request: |subject| {
            let namespace = &subject.ingress.meta.key.namespace;
            let is_near = |path| subject.main_of(path).is_some_and(|(main, _)| main.meta.key.namespace == *namespace);
            let request = || format!("GET {} while the main Service has no endpoint", subject.first_url());
            (subject.is_canary() && subject.paths().any(is_near)).then(request)
        },
        before: "503",
        after: "the canary serves it",
    },
    KnownDifference {
        name: "canary",
        request: |subject| {
            let (other, host) = path_with_same_service(subject)?;
            Some(format!("GET {}, whose Service is that of the main Ingress", subject.url(host, other)))
        },
        before: "the canary may get it",
        after: "the canary does not get it: it belongs to host and path",
    },
    KnownDifference {
        name: "canary",
        request: |subject| {
            let namespace = &subject.ingress.meta.key.namespace;
            let of_others = |path| subject.main_of(path).is_some_and(|(main, _)| main.meta.key.namespace != *namespace);
            let is_elsewhere = subject.is_canary() && subject.paths().any(of_others);
            is_elsewhere.then(|| format!("GET {}, whose main Ingress is in another namespace", subject.first_url()))
        },
        before: "the canary gets its share",
        after: "the canary gets none: move it to the namespace of the main Ingress",
    },
    KnownDifference {
        name: "server-alias",
        request: |subject| {
            let names = items(subject.value("server-alias")?);
            let wildcard =
                names.filter_map(|name| name.strip_prefix("*.").or_else(|| name.strip_prefix('.'))).next()?;
            Some(format!("GET {}", subject.url(Some(&format!("a.b.{wildcard}")), "/")))
        },
        before: "the name has any number of labels in place of the wildcard",
        after: "404: the wildcard is exactly one label",
    },
    KnownDifference {
        name: "app-root",
        request: |subject| {
            subject.value("app-root").filter(|_| has_strict_transport(subject))?;
            Some(format!("GET {}", subject.url(first_host(subject), "/")))
        },
        before: "302 with Strict-Transport-Security",
        after: "302 without it",
    },
    KnownDifference {
        name: "path",
        request: |subject| {
            let is_redirected = |path: &IngressPathOf<'_>| path.path.len() > 1 && path.path.ends_with('/');
            let path = subject.paths().filter(|_| has_strict_transport(subject)).find(is_redirected)?;
            let url = || subject.url(path.host, path.path.trim_end_matches('/'));
            (!has_expressions(subject, path.host)).then(|| format!("GET {}", url()))
        },
        before: "301 to the path with a slash, with Strict-Transport-Security",
        after: "301 without Strict-Transport-Security",
    },
    KnownDifference {
        name: "rewrite-target",
        request: |subject| {
            let target = subject.value("rewrite-target").filter(|_| !subject.is_canary())?;
            let may_be_empty = target.starts_with('$');
            may_be_empty.then(|| format!("GET {}, whose group {target} is empty", subject.first_url()))
        },
        before: "500: the rewritten path is empty",
        after: "the backend gets the path /",
    },
    KnownDifference {
        name: "configuration-snippet",
        request: |subject| {
            let is_used = in_snippets(subject, |text| text.contains("return 444"));
            is_used.then(|| format!("GET {} for which the snippet returns 444", subject.first_url()))
        },
        before: "the connection closes without a response",
        after: "the connection closes after a response with 444",
    },
    KnownDifference {
        name: "configuration-snippet",
        request: |subject| {
            let fields = ["$http_x_forwarded_", "$http_x_real_ip", "$http_x_scheme"];
            let is_used = in_snippets(subject, |text| fields.iter().any(|field| text.contains(field)));
            is_used.then(|| format!("GET {} with these headers, from any client", subject.first_url()))
        },
        before: "the snippet has what the client sent",
        after: "it has the values of the connection, unless the client is in --trusted-ips",
    },
    KnownDifference {
        name: "configuration-snippet",
        request: |subject| {
            let names = ["allowlist-source-range", "whitelist-source-range", "denylist-source-range"];
            let has_list = names.iter().any(|name| subject.value_or_key(name).is_some());
            let is_used = has_list && in_snippets(subject, |text| has_directive(text, "allow"));
            is_used.then(|| format!("GET {} from an address that only the snippet allows", subject.first_url()))
        },
        before: "the backend serves it",
        after: "403: the lists of the annotations apply, too",
    },
    KnownDifference {
        name: "satisfy",
        request: |subject| {
            let is_any = subject.value("satisfy") == Some("any");
            let is_used = is_any && in_snippets(subject, |text| has_directive(text, "deny"));
            is_used
                .then(|| format!("GET {} with a login, from an address that the snippet denies", subject.first_url()))
        },
        before: "the login suffices",
        after: "403",
    },
    KnownDifference {
        name: "enable-modsecurity",
        request: |subject| {
            let is_on = subject.value_or_key("enable-modsecurity").and_then(ingress_nginx::flag) == Some(true);
            (is_on && !subject.is_canary()).then(|| format!("GET {} with an attack", subject.first_url()))
        },
        before: "ModSecurity logs it",
        after: "no log has it: use the plugin injection-protection",
    },
    KnownDifference {
        name: "enable-opentelemetry",
        request: |subject| {
            let is_on = subject.is_set("enable-opentelemetry");
            is_on.then(|| format!("GET {} with a traceparent that is sampled", subject.first_url()))
        },
        before: "it has a span, in the collector of the ConfigMap",
        after: "it has one with --trace-otlp-endpoint, by --trace-sampling unless the client is in --trusted-ips",
    },
];

/// Whether clients get a session cookie.
fn has_session(subject: Subject<'_>) -> bool {
    subject.value("affinity") == Some("cookie") && !subject.is_canary()
}

/// The origins in the list, if CORS is on and only listed ones are permitted.
fn listed_origins(subject: Subject<'_>) -> Option<impl Iterator<Item = &str>> {
    let origins = subject.value("cors-allow-origin")?;
    let is_listed = subject.is_set("enable-cors") && !subject.is_canary() && items(origins).all(|origin| origin != "*");
    is_listed.then(|| items(origins))
}

/// A path without a canary whose Service and port are those of a path that this canary shares, and its host.
fn path_with_same_service<'a>(subject: Subject<'a>) -> Option<(&'a str, Option<&'a str>)> {
    if !subject.is_canary() {
        return None;
    }
    let namespace = &subject.ingress.meta.key.namespace;
    let own: Vec<IngressPathOf<'a>> = subject.paths().collect();
    let shared: Vec<_> = own.iter().filter_map(|path| Some(subject.main_of(*path)?.1.backend)).collect();
    let others = subject.all.in_namespace(namespace).iter().filter(|other| !subject::is_canary(other));
    let others = others.flat_map(|other| paths(other));
    let mut unshared = others.filter(|path| !own.iter().any(|canary| canary.is_same_as(*path)));
    unshared.find(|path| shared.contains(&path.backend)).map(|path| (path.path, path.host))
}

fn has_strict_transport(subject: Subject<'_>) -> bool {
    let is_off = subject.config.get("hsts").and_then(|value| ingress_nginx::flag(value)) == Some(false);
    subject.has_tls() && !is_off && !subject.is_canary()
}

/// Whether the paths of a host are expressions.
fn has_expressions(subject: Subject<'_>, host: Option<&str>) -> bool {
    subject.all.with_host(host).iter().any(|other| {
        let uses_regex = value(other, "use-regex").and_then(ingress_nginx::flag) == Some(true);
        let target = value(other, "rewrite-target");
        let is_rewritten = |path: IngressPathOf<'_>| path.host == host && target.is_some_and(|to| to != path.path);
        uses_regex || paths(other).any(is_rewritten)
    })
}

fn first_host(subject: Subject<'_>) -> Option<&str> {
    subject.ingress.spec.rules.first().and_then(|rule| rule.host.as_deref())
}

fn in_snippets(subject: Subject<'_>, has: impl Fn(&str) -> bool) -> bool {
    let snippets = ["configuration-snippet", "server-snippet"];
    !subject.is_canary() && snippets.iter().filter_map(|name| subject.value(name)).any(has)
}

/// Whether a directive begins one of the lines of a snippet, or a block.
fn has_directive(text: &str, name: &str) -> bool {
    let mut parts = text.split(['\n', ';', '{', '}']);
    parts.any(|part| part.trim_start().strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '\t'])))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde_json::json;

    use super::subject::IngressSet;
    use super::*;
    use crate::api::ingress_nginx::PREFIX;
    use crate::api::networking::Ingress;
    use crate::api::{Kind, Object};
    use crate::store::AnyObject;

    fn ingress(name: &str, path: &str, service: &str, annotations: &[(&str, &str)]) -> Arc<Object<Ingress>> {
        with_tls(name, path, service, annotations, &["shop.example"])
    }

    fn with_tls(
        name: &str,
        path: &str,
        service: &str,
        annotations: &[(&str, &str)],
        hosts: &[&str],
    ) -> Arc<Object<Ingress>> {
        let annotations: BTreeMap<String, &str> =
            annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), *value)).collect();
        let backend = json!({"service": {"name": service, "port": {"number": 80}}});
        let paths = json!([{"path": path, "pathType": "Prefix", "backend": backend}]);
        let rules = json!([{"host": "shop.example", "http": {"paths": paths}}]);
        let tls = if hosts.is_empty() { json!([]) } else { json!([{"hosts": hosts}]) };
        let metadata = json!({"namespace": "shop", "name": name, "annotations": annotations});
        let object = json!({"metadata": metadata, "spec": {"rules": rules, "tls": tls}});
        let AnyObject::Ingress(ingress) = AnyObject::parse(Kind::Ingress, object).unwrap() else {
            panic!("not an Ingress")
        };
        ingress
    }

    fn names(all: &[Arc<Object<Ingress>>]) -> Vec<&'static str> {
        let (set, config) = (IngressSet::new(all), BTreeMap::new());
        of(Subject { ingress: &all[0], all: &set, config: &config }).iter().map(|found| found.name).collect()
    }

    #[test]
    fn differences_are_those_that_the_ingress_shows() {
        type Case = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);
        let cases: &[Case] = &[
            ("/", &[], &[]),
            (
                "/",
                &[
                    ("affinity", "cookie"),
                    ("affinity-mode", "persistent"),
                    ("session-cookie-change-on-failure", "true"),
                ],
                &[],
            ),
            ("/", &[("affinity", "cookie")], &["session-cookie-change-on-failure"]),
            ("/", &[("affinity-mode", "balanced"), ("session-cookie-max-age", "60")], &[]),
            ("/", &[("enable-cors", "true")], &[]),
            ("/", &[("enable-cors", "true"), ("cors-allow-origin", "*")], &[]),
            ("/", &[("cors-allow-origin", "https://a.example")], &[]),
            (
                "/",
                &[("enable-cors", "true"), ("cors-allow-origin", "https://a.example")],
                &["cors-allow-origin", "cors-allow-origin"],
            ),
            ("/", &[("backend-protocol", "HTTPS")], &[]),
            ("/", &[("backend-protocol", "fcgi")], &["backend-protocol"]),
            ("/", &[("proxy-next-upstream-tries", "3")], &[]),
            ("/", &[("proxy-next-upstream-tries", "0")], &["proxy-next-upstream-tries"]),
            ("/", &[("proxy-next-upstream", "error timeout")], &[]),
            ("/", &[("proxy-next-upstream", "error http_503")], &["proxy-next-upstream"]),
            ("/", &[("proxy-next-upstream", "http_503 off")], &[]),
            ("/docs/", &[], &["path"]),
            ("/docs/", &[("use-regex", "true")], &[]),
            ("/", &[("app-root", "/ui")], &["app-root"]),
            ("/", &[("server-alias", "b.example")], &[]),
            ("/", &[("server-alias", "b.example, *.b.example")], &["server-alias"]),
            ("/(.*)", &[("rewrite-target", "/$1")], &[]),
            ("/(.*)", &[("rewrite-target", "$1")], &["rewrite-target"]),
            ("/", &[("configuration-snippet", "allowed 1;\nreturn 444;")], &["configuration-snippet"]),
            ("/", &[("configuration-snippet", "deny all;"), ("satisfy", "any")], &["satisfy"]),
            ("/", &[("enable-access-log", "false")], &[]),
            ("/", &[("enable-opentelemetry", "true")], &["enable-opentelemetry"]),
            ("/", &[("enable-opentelemetry", "false")], &[]),
            ("/", &[("enable-modsecurity", "true")], &["enable-modsecurity"]),
            ("/", &[("enable-modsecurity", "false")], &[]),
        ];
        for (path, annotations, expected) in cases {
            assert_eq!(names(&[ingress("web", path, "web", annotations)]), *expected, "{path} {annotations:?}");
        }
    }

    /// The Ingress of a canary has no section `tls` of its own.
    #[test]
    fn the_host_of_a_canary_has_the_certificate_of_its_main_ingress() {
        let main = ingress("web", "/", "web", &[]);
        let canary = with_tls("next", "/", "next", &[("canary", "true"), ("canary-weight", "10")], &[]);
        let all = [canary, main];
        let (set, config) = (IngressSet::new(&all), BTreeMap::new());
        let found = of(Subject { ingress: &all[0], all: &set, config: &config });
        assert_eq!(found[0].request, "GET https://shop.example/ while the main Service has no endpoint");
    }

    #[test]
    fn canaries_belong_to_host_and_path() {
        let canary = ingress("next", "/", "next", &[("canary", "true"), ("canary-weight", "10")]);
        let main = ingress("web", "/", "web", &[]);
        let other = ingress("other", "/other", "web", &[]);
        let unrelated = ingress("unrelated", "/u", "another", &[]);
        assert_eq!(names(&[Arc::clone(&canary), Arc::clone(&main), unrelated]), ["canary"]);
        assert_eq!(names(&[canary, main, other]), ["canary", "canary"]);
    }
}
