//! Snippets of hosts: their locations next to the paths of Ingresses, and what locations have from the host.

use super::directives::{DirectiveCase, in_location, in_server};

pub(crate) fn all() -> Vec<DirectiveCase> {
    [locations(), hosts()].into_iter().flatten().collect()
}

/// The same Ingress with paths that are expressions.
fn with_expressions(case: DirectiveCase) -> DirectiveCase {
    with_annotation("use-regex", "true", case)
}

fn with_annotation(name: &'static str, value: &str, mut case: DirectiveCase) -> DirectiveCase {
    case.annotations.push((name, value.to_owned()));
    case
}

const LOCATIONS: &str = r#"
    location = /status { return 200 ok; }
    location /metrics { deny all; }
    location ^~ /static/ { return 404 "no files"; }
    location ~ \.php$ { return 403; }
    location ~* ^/admin$ { return 401; }
    location /app/private { deny all; }
    location /app/private/open { return 200 open; }
    location /nothing { allow all; }
    location /moved/ { rewrite ^/moved/(.*)$ /app/$1 permanent; }
    location ~ ^/users/(\d+)$ { return 301 /app/$1; }
    location =/joined { return 200 joined; }
    location ~*^/any { return 410; }
"#;

/// For them in other forms, and for their neighbors.
const LOCATION_REQUESTS: &str = "\
    / ; /status ; /STATUS ; /status/ ; /statu%73 ; //status ; /a/../status ; /status%0A ; \
    /status?x ; /metrics ; /metrics/x ; /metricsx ; /Metrics ; //metrics ; /x/../metrics ; \
    /x/%2e%2e/metrics ; /%6detrics ; /metrics%2Fx ; /metrics%00 ; /static/a.php ; /static ; \
    /staticx ; /app/a.php ; /a.PHP ; /x.php ; /x.php/ ; /a.php%0A ; /a.php%0Ab ; /admin ; \
    /ADMIN ; /admin%0A ; //admin ; /a/../admin ; /admin/ ; /%41dmin ; /app ; /app/ ; /app/x ; \
    /app/private ; /app/private/x ; /app/privatex ; /app/private/open/y ; /app//private ; \
    /app/./private ; /APP/private ; /nothing ; /nothing/x ; /exact ; /exact/ ; /moved/a%20b?c ; \
    /users/12 ; /users/12x ; /users/12%0A ; /joined ; /any/x ; /ANYTHING ; /dir ; /dir/x ; \
    /other%20x ; POST /status ; HEAD /status";

/// Paths of all types.
const MIXED_PATHS: &[&str] =
    &["/ Prefix s0", "/app Prefix s1", "/exact Exact s2", "/x.php Exact s3", "/dir/ Prefix s4"];

fn locations() -> Vec<DirectiveCase> {
    vec![
        DirectiveCase {
            rules: MIXED_PATHS,
            ..in_server("locations next to plain paths", LOCATIONS, LOCATION_REQUESTS)
        },
        DirectiveCase {
            rules: &["/app/[a-z]+ - s0", "/exact Exact s1", "/met - s2", "/ - s3"],
            ..with_expressions(in_server("locations next to expressions", LOCATIONS, LOCATION_REQUESTS))
        },
        DirectiveCase {
            rules: &["/app Prefix s0"],
            ..in_server(
                "locations and no path for the root",
                LOCATIONS,
                "/ ; /status ; /metrics ; /app/x ; /app/private ; /unknown ; /a.php",
            )
        },
        in_server(
            "addresses in locations",
            "
                location /a { allow 127.0.0.1; deny all; } location /b { deny 127.0.0.1; allow all; }
                location /c { allow 127.0.0.1; deny all; return 200 c; }
            ",
            "/a ; /b ; /c",
        ),
        in_server(
            "methods in locations",
            "
                location /a { limit_except GET { deny all; } }
                location /b { limit_except GET { deny all; } return 200 b; }
            ",
            "/a ; POST /a ; /b ; POST /b",
        ),
        DirectiveCase {
            response_fields: &["x-r"],
            ..in_server(
                "steps in locations",
                "
                    location /a/ { rewrite ^/a/(.*)$ /z/$1 break; } location ~ ^/b/(?<rest>.+)$ { return 302 /z/$rest; }
                    location /c { if ($arg_x) { return 200 x; } add_header X-R c always; }
                ",
                "/a/x ; /b/x?q ; /c ; /c?x=1",
            )
        },
        DirectiveCase {
            rules: &["/api/(v[0-9]) - s0"],
            response_fields: &["x-r"],
            ..with_expressions(in_location(
                "groups of the expression of a path",
                r#"add_header X-R "$1"; if ($arg_a) { return 301 https://new.example/$1; }"#,
                "/api/v1 ; /API/v2/x ; /api/v3?a=1",
            ))
        },
        in_server(
            "the longest location",
            "
                location /ab { return 200 ab; } location /abc { return 200 abc; }
                location ^~ /a/b { return 200 carets; } location ~ c$ { return 200 expression; }
                location /a/ { return 200 slash; }
            ",
            "/a ; /ab ; /abc ; /abcd ; /ab/c ; /a/b ; /a/b/c ; /a/bc",
        ),
        DirectiveCase {
            rules: &["/ Prefix s0", "/a Prefix s1", "/a/b/c Exact s2"],
            ..in_server(
                "longer paths of Ingresses precede locations",
                "
                    location /a/b { return 200 snippet; } location ~ ^/a/b/c$ { return 200 expression; }
                    location /a { return 200 short; }
                ",
                "/a ; /a/ ; /a/b ; /a/b/c ; /a/bc ; /ab",
            )
        },
    ]
}

fn hosts() -> Vec<DirectiveCase> {
    vec![
        DirectiveCase {
            response_fields: &["x-a", "x-b", "x-c"],
            ..in_server(
                "fields of the server and of locations",
                "
                    add_header X-A server always; add_header X-B server;
                    location /in { add_header X-C in; if ($arg_a) { return 403; } return 200 in; }
                    location /none { return 404; }
                ",
                "/ ; /respond/404 ; /in ; /in?a=1 ; /none",
            )
        },
        DirectiveCase {
            response_fields: &["x-a", "x-c"],
            ..in_server(
                "fields of a location replace those of the server",
                "add_header X-A server always; location /none { return 404; }",
                "/ ; /none",
            )
            .with_location("add_header X-C location;")
        },
        DirectiveCase {
            response_fields: &["x-mode"],
            ..in_server(
                "steps of the server come first",
                r#"
                    set $mode $arg_m; if ($http_user_agent ~* bot) { return 403; }
                    rewrite ^/old/(.*)$ https://new.example/$1 permanent; location /in { return 200 "in $mode"; }
                "#,
                "/ ; /?m=special ; /?m=closed ; / | User-Agent: a Bot ; /old/x?y ; /in | User-Agent: bot ; \
                 /in?m=special",
            )
            .with_location("if ($mode = special) { add_header X-Mode $mode; } if ($mode = closed) { return 410; }")
        },
        DirectiveCase {
            rules: MIXED_PATHS,
            ..in_server(
                "the whole host is closed",
                r#"return 503 "Back soon"; location /open { return 200 open; }"#,
                "/ ; /app ; /dir ; /open",
            )
        },
        DirectiveCase {
            rules: MIXED_PATHS,
            ..in_server(
                "the whole host is denied",
                "
                    deny all; location /open { allow all; return 200 open; } location /files { allow all; }
                    location /text { return 200 text; }
                ",
                "/ ; /app/x ; /open ; /text",
            )
        },
        DirectiveCase {
            rules: MIXED_PATHS,
            ..in_server(
                "a redirect to a slash does not precede the server",
                "if ($http_user_agent ~* bot) { return 403; }",
                "/dir | User-Agent: bot ; /dir",
            )
        },
        with_annotation(
            "app-root",
            "/app",
            DirectiveCase {
                rules: MIXED_PATHS,
                ..in_server(
                    "app-root comes after the steps of the server, and before its locations",
                    "if ($arg_a) { return 403; } location = / { return 200 root; }",
                    "/ ; /?a=1 ; /app",
                )
            },
        ),
        with_expressions(with_annotation(
            "app-root",
            "/app",
            in_server(
                "app-root comes before a location, also among expressions",
                "location = / { return 200 root; } location = /app { return 200 app; }",
                "/ ; /app ; /b",
            ),
        )),
        with_annotation(
            "server-alias",
            "alias.example, *.aliases.example, .dot.example",
            DirectiveCase {
                rules: MIXED_PATHS,
                ..in_server(
                    "a host has further names",
                    r#"location /in { return 200 "$host $server_name"; }"#,
                    "/app | Host: alias.example ; /in | Host: ALIAS.example ; /dir | Host: alias.example:80 ; \
                     / | Host: a.aliases.example ; /in | Host: dot.example ; / | Host: a.dot.example ; /in",
                )
            },
        )
        .with_server_line("server_name alias.example *.aliases.example .dot.example;"),
        DirectiveCase {
            request_fields: &["x-a"],
            ..in_server(
                "request fields of the server have no effect",
                "proxy_set_header X-A server;",
                "/ | X-A: client",
            )
        },
        in_server(
            "server rewrite to the only location",
            "rewrite ^/a/(.*)$ /b/$1 last; rewrite ^/c$ /d?x=1; rewrite ^/d$ /e break; rewrite ^/e$ /f;",
            "/a/x ; /c ; /c?y ; /d ; /e ; /b/x",
        )
        .with_location("if ($uri = /b/y) { return 410; } rewrite ^/b/(.*)$ /a/$1 last;"),
        in_server(
            "error pages of the server",
            "
                error_page 403 https://x.example/denied; location /in { return 403; }
                location /own { error_page 404 https://x.example/none; return 403; } location /text { return 403 a; }
            ",
            "/ ; /in ; /own ; /text ; /?a=1",
        )
        .with_location("if ($arg_a) { return 403; }"),
        in_server(
            "rewrites in locations of the server",
            "
                rewrite ^/start/(.*)$ /$1; location = /old { rewrite ^ /new last; } location = /new { return 410; }
                location = /older { rewrite ^ /app; } location /private { deny all; }
                location = /loop { rewrite ^ /loop last; } location = /stay { rewrite ^ /new; return 403; }
            ",
            "/old ; /start/old ; /older ; /start/older?q ; /open/x ; /private/x ; /start/private ; /loop ; /stay",
        )
        .with_location("if ($uri = /app) { return 418; } rewrite ^/open/(.*)$ /private/$1 last;"),
        // Which of several locations a path has is not searched again: the Ingress gets an error.
        DirectiveCase {
            rules: MIXED_PATHS,
            differences: &[("/a/x", "503")],
            ..in_server("server rewrite to one of several locations", "rewrite ^/a/(.*)$ /app/$1 last;", "/a/x")
        },
        DirectiveCase {
            response_fields: &["x-a"],
            ..in_server("fields are hidden in the server", "proxy_hide_header X-A;", "/respond/200/X-A/1")
        },
        DirectiveCase {
            response_fields: &["x-a", "x-b"],
            ..in_server(
                "fields are hidden in the server and in a location",
                "proxy_hide_header X-A;",
                "/respond/200/X-A/1/X-B/2",
            )
            .with_location("proxy_hide_header X-B;")
        },
        DirectiveCase {
            response_fields: &["expires", "cache-control"],
            ..in_server("expires in the server", "expires epoch; location /in { return 200 a; }", "/ ; /in")
        },
        DirectiveCase {
            response_fields: &["x-r"],
            ..in_server("variables of the server", r#"set $v 0; if ($arg_a) { set $v "$arg_a-1"; }"#, "/ ; /?a=1")
                .with_location(r#"add_header X-R "$v";"#)
        },
        DirectiveCase {
            response_fields: &["x-r"],
            ..in_server("groups of the server", "if ($arg_a ~ (.)) { set $v 2; }", "/ ; /?a=1")
                .with_location(r#"add_header X-R "$1";"#)
        },
        DirectiveCase {
            response_fields: &["x-r"],
            ..in_server(
                "break in the server",
                "if ($arg_a) { break; } set $r 1; if ($arg_b) { return 403; }",
                "/ ; /?a=1 ; /?b=1 ; /?a=1&b=1",
            )
            .with_location("set $r location; add_header X-R $r;")
        },
    ]
}
