//! The table of outcomes that the specification names: Ingresses, requests and what follows. Each name has the section.

use super::expectations::{Case, ingress};
use super::model::{TestIngress, Tls};

pub(crate) fn all() -> Vec<Case> {
    [plain_paths(), regex_mode(), rewrites(), redirects(), hosts()].into_iter().flatten().collect()
}

fn with_tls(tls: Tls, ingress: TestIngress) -> TestIngress {
    TestIngress { tls, ..ingress }
}

fn younger(ingress: TestIngress) -> TestIngress {
    TestIngress { created: ingress.created + 1, ..ingress }
}

fn plain_paths() -> Vec<Case> {
    vec![
        Case {
            name: "a prefix ends at a slash, case counts, and other types are Prefix (3.4)",
            ingresses: vec![ingress("a", "@", &[], &["/foo Prefix s0", "/bar - s1", "/x ImplementationSpecific s2"])],
            requests: &[
                ("GET /foo", "200 s0 /foo"),
                ("GET /foo/", "200 s0 /foo/"),
                ("HEAD /foo/x?y=z", "200 s0 /foo/x?y=z"),
                ("GET /foobar", "404"),
                ("GET /FOO", "404"),
                ("GET /bar/a", "200 s1 /bar/a"),
                ("GET /x/y", "200 s2 /x/y"),
                ("GET /xy", "404"),
            ],
        },
        Case {
            name: "Exact first, then the longest prefix (3.4)",
            ingresses: vec![ingress(
                "a",
                "@",
                &[],
                &["/ Prefix s0", "/foo Prefix s1", "/foo Exact s2", "/foo/bar - s3"],
            )],
            requests: &[
                ("GET /foo", "200 s2 /foo"),
                ("GET /foo/", "200 s1 /foo/"),
                ("GET /foo/bar/x", "200 s3 /foo/bar/x"),
                ("GET /foo/barx", "200 s1 /foo/barx"),
                ("GET /food", "200 s0 /food"),
            ],
        },
        Case {
            name: "a path that ends with a slash redirects to it (3.4)",
            ingresses: vec![ingress("a", "@", &[], &["/p/ Prefix s0", "/e/ Exact s1", "/q/ - s2", "/q Exact s3"])],
            requests: &[
                ("GET /p?a=b", "301 http://@/p/?a=b"),
                ("GET /p @:8080", "301 http://@/p/"),
                ("GET /e", "301 http://@/e/"),
                ("GET /e/x", "404"),
                ("GET /q", "200 s3 /q"),
                ("GET /p/x", "200 s0 /p/x"),
            ],
        },
        Case {
            name: "the normalized path is compared, and the raw target forwarded (3.4)",
            ingresses: vec![ingress("a", "@", &[], &["/foo Prefix s0", "/a b Exact s1"])],
            requests: &[
                ("GET /x/..//%66oo/./y%2Fz", "200 s0 /x/..//%66oo/./y%2Fz"),
                ("GET /foo%2Fx", "200 s0 /foo%2Fx"),
                ("GET /a%20b?", "200 s1 /a%20b?"),
                ("GET /foo%3Fx", "404"),
                ("GET /%zz", "400"),
                ("GET /../foo", "404"),
            ],
        },
        Case {
            name: "the oldest has precedence, then the larger name (3.1, 3.4)",
            ingresses: vec![
                younger(ingress("z", "@", &[], &["/old - s0"])),
                ingress("b", "@", &[], &["/old - s1", "/same - s2"]),
                ingress("a", "@", &[], &["/same - s3", "/old Exact s4"]),
            ],
            requests: &[("GET /old/", "200 s1 /old/"), ("GET /same", "200 s2 /same"), ("GET /old", "200 s4 /old")],
        },
    ]
}

fn regex_mode() -> Vec<Case> {
    vec![
        Case {
            name: "one Ingress makes all paths of the host patterns (3.5)",
            ingresses: vec![
                ingress("a", "@", &[("rewrite-target", "/$2")], &["/something(/|$)(.*) ImplementationSpecific s0"]),
                younger(ingress("b", "@", &[], &["/Foo Exact s1", "/a.b Prefix s2", "/p/ Prefix s3"])),
            ],
            requests: &[
                ("GET /foobar", "200 s1 /foobar"),
                ("GET /FOO/x", "200 s1 /FOO/x"),
                ("GET /axb", "200 s2 /axb"),
                ("GET /axbc", "200 s2 /axbc"),
                ("GET /p", "404"),
                ("GET /p/x", "200 s3 /p/x"),
                ("GET /x/foo", "404"),
            ],
        },
        Case {
            name: "the longest pattern is first, ties in reverse order (3.5)",
            ingresses: vec![ingress(
                "a",
                "@",
                &[("use-regex", "true")],
                &["/foo/bar/bar - s0", "/foo/bar/[a-z]{3} - s1", "/v1/[a-z]+ - s3", "/v[0-9]+/x - s2", "/ - s4"],
            )],
            requests: &[
                ("GET /foo/bar/bar", "200 s1 /foo/bar/bar"),
                ("GET /foo/bar/BARS", "200 s1 /foo/bar/BARS"),
                ("GET /foo/bar/b", "200 s4 /foo/bar/b"),
                ("GET /v1/x", "200 s2 /v1/x"),
                ("GET /v2/x", "200 s2 /v2/x"),
            ],
        },
        Case {
            name: "patterns see the decoded and merged path (3.5)",
            ingresses: vec![ingress(
                "a",
                "@",
                &[("use-regex", "true")],
                &["/api/(?!internal) - s0", "/x/[a-z]/y$ - s1"],
            )],
            requests: &[
                ("GET /api/v1", "200 s0 /api/v1"),
                ("GET /api/internal", "404"),
                ("GET /api//%69nternal", "404"),
                ("GET /x%2f%61//y?q", "200 s1 /x%2f%61//y?q"),
            ],
        },
    ]
}

fn rewrites() -> Vec<Case> {
    vec![
        Case {
            name: "captures, the query and the encoding of a rewrite (3.6)",
            ingresses: vec![ingress(
                "a",
                "@",
                &[("rewrite-target", "/$2"), ("x-forwarded-prefix", "/p$1")],
                &["/something(/|$)(.*) - s0"],
            )],
            requests: &[
                ("GET /something", "200 s0 / /p"),
                ("GET /something/", "200 s0 / /p/"),
                ("GET /SOMETHING/x/y?q=%2F", "200 s0 /x/y?q=%2F /p/"),
                ("GET /something/a%20b%2Fc%25", "200 s0 /a%20b/c%25 /p/"),
                ("GET /something//x/../y", "200 s0 /y /p/"),
                ("GET /somethingelse", "404"),
            ],
        },
        Case {
            name: "a target without captures replaces the whole path (3.6)",
            ingresses: vec![ingress("a", "@", &[("rewrite-target", "/")], &["/foo Prefix s0", "/one|/two - s1"])],
            requests: &[
                ("GET /foo/a/b?c", "200 s0 /?c"),
                ("GET /foobar", "200 s0 /"),
                ("GET /x/two/y", "200 s1 /"),
                ("GET /unmatched", "404"),
            ],
        },
        Case {
            name: "a target with a scheme is a redirect, also of the implicit root (3.6)",
            ingresses: vec![with_tls(
                Tls::MissingSecret,
                ingress("a", "@", &[("rewrite-target", "https://t.example/$1")], &["/r/(.*) - s0"]),
            )],
            requests: &[
                ("GET /r/a/b?c=d", "302 https://t.example/a/b?c=d"),
                ("GET /unmatched", "302 https://t.example/"),
            ],
        },
        Case {
            name: "a target that is equal to the path, or not accepted, has no effect (3.6)",
            ingresses: vec![
                ingress("b", "@", &[("rewrite-target", "/")], &["/ Prefix s0"]),
                ingress("a", "@", &[("rewrite-target", "/x?y")], &["/foo Prefix s1"]),
            ],
            requests: &[("GET /foobar", "200 s0 /foobar"), ("GET /foo/a", "200 s1 /foo/a")],
        },
        Case {
            name: "no prefix header without a rewrite (3.6)",
            ingresses: vec![ingress("a", "@", &[("x-forwarded-prefix", "/p")], &["/foo Prefix s0"])],
            requests: &[("GET /foo", "200 s0 /foo")],
        },
    ]
}

fn redirects() -> Vec<Case> {
    vec![
        Case {
            name: "HTTPS redirects strip one slash and the port (3.3)",
            ingresses: vec![with_tls(
                Tls::MissingSecret,
                ingress("a", "@", &[], &["/ Prefix s0", "/.well-known/acme-challenge/x - s1"]),
            )],
            requests: &[
                ("GET /", "308 https://@"),
                ("GET /a/?b=c/", "308 https://@/a/?b=c"),
                ("GET /a// @:81", "308 https://@/a/"),
                ("GET /%41/../b", "308 https://@/%41/../b"),
                ("GET /.well-known/acme-challenge/x", "200 s1 /.well-known/acme-challenge/x"),
                ("GET /.well-known/acme-challenge/y", "308 https://@/.well-known/acme-challenge/y"),
            ],
        },
        Case {
            // nginx makes the redirect to the slash when it chooses the location, before the redirects of the location.
            name: "the redirect to a trailing slash comes before all others of the location (3.3, 3.4)",
            ingresses: vec![with_tls(
                Tls::MissingSecret,
                ingress("a", "@", &[("permanent-redirect", "https://p.example")], &["/p/ Prefix s0"]),
            )],
            requests: &[("GET /p?a", "301 http://@/p/?a"), ("GET /p/", "301 https://p.example")],
        },
        Case {
            name: "redirects to HTTPS keep a trailing dot of the host and its case, the slash redirect does not (3.3)",
            ingresses: vec![with_tls(Tls::MissingSecret, ingress("a", "@", &[], &["/ Prefix s0", "/p/ Prefix s1"]))],
            requests: &[
                ("GET /a H.@.:80", "404"),
                ("GET /a @.:80", "308 https://@./a"),
                ("GET /p @.:80", "301 http://@/p/"),
            ],
        },
        Case {
            name: "TLS of another Ingress of the host counts, also for unlisted hosts; the slash can stay (3.2, 3.3)",
            ingresses: vec![
                ingress("a", "@", &[("preserve-trailing-slash", "true")], &["/a Prefix s0"]),
                with_tls(Tls::OtherHost, ingress("b", "@", &[("ssl-redirect", "false")], &["/b Prefix s1"])),
            ],
            requests: &[("GET /a/", "308 https://@/a/"), ("GET /b/", "200 s1 /b/")],
        },
        Case {
            name: "without TLS only force-ssl-redirect redirects (3.3)",
            ingresses: vec![
                ingress("a", "@", &[("force-ssl-redirect", "true")], &["/a Prefix s0"]),
                ingress("b", "@", &[("ssl-redirect", "true")], &["/b Prefix s1"]),
            ],
            requests: &[("GET /a/x", "308 https://@/a/x"), ("GET /b/", "200 s1 /b/")],
        },
        Case {
            name: "app-root is of the host, and comes before the redirect to HTTPS (3.3, 4.1)",
            ingresses: vec![
                with_tls(Tls::NoSecret, ingress("b", "@", &[], &["/ Prefix s0"])),
                ingress("a", "@", &[("app-root", "/app/")], &["/app Prefix s1"]),
            ],
            requests: &[
                ("GET /?a=b", "302 http://@/app/"),
                ("GET // @:81", "302 http://@:81/app/"),
                ("GET /app/", "308 https://@/app"),
            ],
        },
        Case {
            name: "redirects of Ingresses come before that to HTTPS, and apply to the implicit root (3.1, 3.3)",
            ingresses: vec![
                with_tls(
                    Tls::MissingSecret,
                    ingress("b", "@", &[("permanent-redirect", "https://p.example/x?y=z")], &["/p Prefix s0"]),
                ),
                ingress(
                    "a",
                    "@",
                    &[("temporal-redirect", "http://t.example"), ("permanent-redirect", "http://p.example")],
                    &["/t Prefix s1"],
                ),
            ],
            requests: &[
                ("GET /p/a?b", "301 https://p.example/x?y=z"),
                ("GET /t", "302 http://t.example"),
                ("GET /unmatched", "301 https://p.example/x?y=z"),
            ],
        },
        Case {
            name: "codes of redirects, and relative targets (4.1)",
            ingresses: vec![
                ingress(
                    "a",
                    "@",
                    &[("permanent-redirect", "/login"), ("permanent-redirect-code", "308")],
                    &["/p Prefix s0"],
                ),
                ingress(
                    "b",
                    "@",
                    &[("temporal-redirect", "http://t.example"), ("temporal-redirect-code", "308")],
                    &["/t Prefix s1"],
                ),
            ],
            requests: &[("GET /p", "308 http://@/login"), ("GET /t", "302 http://t.example")],
        },
    ]
}

fn hosts() -> Vec<Case> {
    vec![
        Case {
            name: "a wildcard is one label, and exact hosts are first (3.1)",
            ingresses: vec![ingress("a", "*.@", &[], &["/ Prefix s0"]), ingress("b", "x.@", &[], &["/x Prefix s1"])],
            requests: &[
                ("GET /a y.@", "200 s0 /a"),
                ("GET /x X.@:80", "200 s1 /x"),
                ("GET /a x.@.", "404"),
                ("GET /a y.z.@", "404"),
                ("GET /a @", "404"),
            ],
        },
        Case {
            name: "TLS of the wildcard counts for an exact host (3.3)",
            ingresses: vec![
                with_tls(Tls::MissingSecret, ingress("a", "*.@", &[], &["/ Prefix s0"])),
                ingress("b", "x.@", &[], &["/ Prefix s1"]),
            ],
            requests: &[("GET /a y.@", "308 https://y.@/a"), ("GET /a x.@", "308 https://x.@/a")],
        },
        Case {
            name: "unknown hosts have no rules but the health check (3.1)",
            ingresses: vec![TestIngress {
                default_backend: Some("s1".to_owned()),
                ..ingress("a", "@", &[], &["/a Prefix s0"])
            }],
            requests: &[
                ("GET /a unknown.example", "404"),
                ("GET /healthz unknown.example", "200"),
                ("GET /healthz", "200 s1 /healthz"),
                ("GET /other", "200 s1 /other"),
            ],
        },
    ]
}
