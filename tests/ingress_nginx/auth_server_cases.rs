//! Servers that permit or refuse requests: the annotation `auth-url` and those that belong to it.

use std::fmt::Write;

use super::access_cases::{LOGIN, basic, logins, with_user};
use super::directives::{DirectiveCase, annotated};
use super::nginx_conf::NginxLines;

pub(crate) fn all() -> Vec<DirectiveCase> {
    [statuses(), what_the_server_gets(), what_the_server_sets(), sign_in(), with_passwords(), stored()]
        .into_iter()
        .flatten()
        .collect()
}

fn statuses() -> Vec<DirectiveCase> {
    let statuses = [200, 201, 204, 301, 302, 400, 401, 403, 404, 500, 503];
    let mut cases: Vec<_> = statuses
        .iter()
        .map(|status| DirectiveCase {
            request_fields: &["x-user"],
            ..case(
                &format!("the server responds with {status}"),
                &format!("/respond/{status}/X-User/anna"),
                &[],
                "",
                "/ ; POST /a?b=c ; HEAD /",
            )
        })
        .collect();
    cases.extend([
        DirectiveCase {
            response_fields: &["www-authenticate"],
            ..case("a challenge of the server", "/respond/401/WWW-Authenticate/Bearer", &[], "", "/")
        },
        with_page(
            case(
                "a status of the endpoint is not one of the server",
                "/respond/200",
                &[("auth-signin", "http://login.example/start")],
                "error_page 401 = @signin;",
                "/respond/401",
            ),
            "location @signin { internal; return 302 http://login.example; }",
        ),
    ]);
    cases
}

fn what_the_server_gets() -> Vec<DirectiveCase> {
    const DESCRIPTION: &[&str] = &[
        "x-echo-method",
        "x-echo-target",
        "x-echo-field-host",
        "x-echo-field-x-original-url",
        "x-echo-field-x-original-method",
        "x-echo-field-x-sent-from",
        "x-echo-field-x-real-ip",
        "x-echo-field-x-forwarded-for",
        "x-echo-field-x-forwarded-proto",
        "x-echo-field-x-auth-request-redirect",
        "x-echo-field-cookie",
        "x-echo-field-content-length",
        "x-echo-field-authorization",
    ];
    const WITH_METHOD: &[&str] =
        &["x-echo-method", "x-echo-target", "x-echo-field-x-original-uri", "x-echo-field-x-scheme"];
    const OF_SNIPPET: &[&str] = &[
        "x-echo-method",
        "x-echo-field-x-a",
        "x-echo-field-x-c",
        "x-echo-field-cookie",
        "x-echo-field-authorization",
        "x-echo-field-x-sent-from",
    ];
    const TARGETS: &[&str] = &["x-echo-field-x-original-url", "x-echo-field-x-auth-request-redirect"];
    let rewrite = "rewrite ^/a/(.*)$ /b/$1 break;";
    let posting = "proxy_method POST; proxy_set_header X-Original-URI $request_uri; proxy_set_header X-Scheme $scheme;";
    vec![
        DirectiveCase {
            request_fields: DESCRIPTION,
            ..case(
                "what the server gets",
                "/respond/200",
                &[("auth-response-headers", &*DESCRIPTION.join(", "))],
                &copies(DESCRIPTION),
                "/a%20b?c=d | Cookie: session=1 ; \
                 POST /x | Host: @:8080 | X-Forwarded-Proto: https | Authorization: Bearer a",
            )
        },
        DirectiveCase {
            request_fields: WITH_METHOD,
            ..with_server_lines(
                case(
                    "the server gets another method",
                    "/respond/200/to$request_uri",
                    &[("auth-method", "POST"), ("auth-response-headers", &*WITH_METHOD.join(","))],
                    &copies(WITH_METHOD),
                    "/a?b=c ; POST /a",
                ),
                "/respond/200/to$request_uri",
                posting,
            )
        },
        DirectiveCase {
            request_fields: OF_SNIPPET,
            ..with_snippet(
                "the server gets what a snippet says",
                OF_SNIPPET,
                r#"
                    proxy_set_header X-A "$http_x_b-$request_method"; proxy_set_header X-C ""; proxy_method PUT;
                    proxy_set_header Cookie "a=$cookie_a";
                "#,
                "/ ; POST /x | X-A: client | X-B: 1 | X-C: 2 | Cookie: b=1; a=2 | X-Original-URI: /forged",
            )
        },
        DirectiveCase {
            request_fields: OF_SNIPPET,
            ..with_snippet(
                "the server gets no headers of the client",
                OF_SNIPPET,
                "proxy_pass_request_headers off; proxy_set_header X-A $http_x_b;",
                "/ | Cookie: a=1 | X-C: 2 ; POST / | X-B: b | X-A: c | Authorization: Basic YTpi",
            )
        },
        DirectiveCase {
            request_fields: TARGETS,
            ..case(
                "the server gets the target before a rewrite",
                "/respond/200",
                &[("auth-response-headers", &*TARGETS.join(", ")), ("configuration-snippet", rewrite)],
                &format!("{rewrite} {}", copies(TARGETS)),
                "/a/x?y ; /c",
            )
        },
    ]
}

fn what_the_server_sets() -> Vec<DirectiveCase> {
    vec![
        DirectiveCase {
            request_fields: &["x-user", "x-absent", "x-other"],
            ..case(
                "fields of the server for the endpoint",
                "/respond/200/X-User/anna/X-Other/changed",
                &[("auth-response-headers", "X-User, X-Absent")],
                &copies(&["X-User", "X-Absent"]),
                "/ | X-User: forged | X-Absent: forged | X-Other: kept",
            )
        },
        DirectiveCase {
            response_fields: &["set-cookie"],
            ..case(
                "a cookie of the server for the client",
                "/respond/200/Set-Cookie/a=b",
                &[],
                "auth_request_set $auth_cookie $upstream_http_set_cookie; add_header Set-Cookie $auth_cookie;",
                "/ ; /respond/404 ; /respond/200/Set-Cookie/own=1",
            )
        },
    ]
}

/// The location of the page for logins is that of ingress-nginx.
fn sign_in() -> Vec<DirectiveCase> {
    let lines = "auth_request_set $auth_cookie $upstream_http_set_cookie; error_page 401 = @signin;";
    let page = |url: &str| {
        format!("location @signin {{ internal; add_header Set-Cookie $auth_cookie; return 302 \"{url}\"; }}")
    };
    let mut with_target = with_page(
        DirectiveCase {
            response_fields: &["set-cookie", "www-authenticate"],
            ..case(
                "clients without a login are redirected",
                "/respond/401/Set-Cookie/csrf=1",
                &[("auth-signin", "http://login.example/start")],
                lines,
                "/a?b=c ; /",
            )
        },
        &page("http://login.example/start?rd=$scheme://$http_host$escaped_uri"),
    );
    with_target.lines.http =
        "map $request_uri $escaped_uri { default \"\"; \"/a?b=c\" \"%2Fa%3Fb%3Dc\"; \"/\" \"%2F\"; }".to_owned();
    vec![
        with_target,
        with_page(
            case(
                "a page for logins that has its parameter",
                "/respond/401",
                &[("auth-signin", "http://login.example/start?rd=home&at=$host")],
                lines,
                "/a?b=c",
            ),
            &page("http://login.example/start?rd=home&at=$host"),
        ),
        with_page(
            case(
                "another parameter of the page for logins",
                "/respond/401",
                &[("auth-signin", "http://login.example/?x=1"), ("auth-signin-redirect-param", "back")],
                lines,
                "/",
            ),
            &page("http://login.example/?x=1&back=$scheme://$http_host%2F"),
        ),
        with_page(
            case(
                "a denied client is not redirected",
                "/respond/403",
                &[("auth-signin", "http://login.example/start")],
                lines,
                "/",
            ),
            &page("http://login.example/start"),
        ),
    ]
}

fn with_passwords() -> Vec<DirectiveCase> {
    let mut cases = Vec::new();
    for satisfy in ["any", "all"] {
        for status in [200, 401, 403] {
            cases.push(with_user(case(
                &format!("satisfy {satisfy} with a password, and a server that responds with {status}"),
                &format!("/respond/{status}"),
                &[&LOGIN[..], &[("satisfy", satisfy)]].concat(),
                &format!("satisfy {satisfy}; {}", basic("Shop", "one-user")),
                &logins(),
            )));
        }
    }
    cases
}

/// The server counts its requests.
fn stored() -> Vec<DirectiveCase> {
    let mut cases = Vec::new();
    for (name, target, zone, duration) in [
        ("responses of the server are stored", "/respond/200/stored", "stored", None),
        (
            "responses of the server with a cookie are not stored",
            "/respond/200/Set-Cookie/a=b/stored",
            "cookies",
            Some(("auth-cache-duration", "200 5m")),
        ),
    ] {
        let mut annotations = vec![("auth-cache-key", "$http_x_key"), ("auth-response-headers", "X-Echo-Count")];
        annotations.extend(duration);
        let requests = "/ | X-Key: a ; / | X-Key: a ; / | X-Key: b ; / | X-Key: a";
        let case = case(name, target, &annotations, &copies(&["x-echo-count"]), requests);
        let lines = format!("proxy_cache {zone}; proxy_cache_key $http_x_key; proxy_cache_valid 200 202 401 5m;");
        let mut case = with_server_lines(case, target, &lines);
        case.lines.http = format!("proxy_cache_path {zone} keys_zone={zone}:1m;");
        cases.push(DirectiveCase { request_fields: &["x-echo-count"], ..case });
    }
    cases
}

/// A server with this target, and further annotations with the lines of each location that stand for them.
fn case(name: &str, target: &str, more: &[(&'static str, &str)], lines: &str, requests: &str) -> DirectiveCase {
    let url = format!("http://%auth%{target}");
    let annotations = [&[("auth-url", &*url)][..], more].concat();
    let case = annotated(name, &annotations, format!("auth_request /_auth; {lines}"), requests);
    with_server_lines(case, target, "")
}

/// A server whose requests have a snippet. The endpoint gets these fields of its responses.
fn with_snippet(name: &str, fields: &[&str], snippet: &str, requests: &str) -> DirectiveCase {
    let joined = fields.join(",");
    let annotations = [("auth-snippet", snippet), ("auth-response-headers", &*joined)];
    with_server_lines(case(name, "/respond/200", &annotations, &copies(fields), requests), "/respond/200", snippet)
}

/// Sets the location for requests to the server, as ingress-nginx has it, with further lines.
fn with_server_lines(case: DirectiveCase, target: &str, more: &str) -> DirectiveCase {
    let server = format!(
        "location = /_auth {{
            internal;
            proxy_pass_request_body off;
            proxy_set_header Content-Length \"\";
            proxy_set_header Connection \"\";
            proxy_set_header Host %nginx-auth-host%;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto \"\";
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Auth-Request-Redirect $request_uri;
            proxy_set_header X-Original-Method $request_method;
            proxy_set_header X-Original-URL $scheme://$http_host$request_uri;
            proxy_set_header X-Sent-From nginx-ingress-controller;
            {more}
            proxy_pass http://%nginx-auth%{target};
        }}"
    );
    DirectiveCase { lines: NginxLines { server, ..case.lines }, ..case }
}

/// Adds the location of the page for logins to the server.
fn with_page(mut case: DirectiveCase, location: &str) -> DirectiveCase {
    case.lines.server = case.lines.server + "\n" + location;
    case
}

/// The lines that copy fields from the response of the server to the request to the endpoint.
fn copies(names: &[&str]) -> String {
    let mut lines = String::new();
    for (index, name) in names.iter().enumerate() {
        let variable = name.replace('-', "_");
        write!(
            lines,
            "auth_request_set $copied{index} $upstream_http_{variable}; proxy_set_header {name} $copied{index}; "
        )
        .expect("a string accepts all text");
    }
    lines
}
