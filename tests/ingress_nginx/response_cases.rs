//! Snippets of locations that change fields of responses and of requests, and those that respond themselves.

use super::directives::{DirectiveCase, annotated, in_location};

pub(crate) fn all() -> Vec<DirectiveCase> {
    [response_fields(), of_config_maps(), expiry(), replies(), bodies(), request_fields()]
        .into_iter()
        .flatten()
        .collect()
}

fn response_fields() -> Vec<DirectiveCase> {
    vec![
        DirectiveCase {
            response_fields: &["x-a", "x-b", "x-empty"],
            ..in_location(
                "add_header applies to usual statuses, and with always to all",
                r#"
                    add_header X-A one; add_header X-A two; add_header X-B "a; b" always; add_header X-Empty $http_none;
                "#,
                "/ ; /respond/404 ; /respond/500 ; /respond/201 ; /respond/302/Location/x ; \
                 /respond/200/X-A/zero ; HEAD /",
            )
        },
        DirectiveCase {
            response_fields: &["x-a", "x-b"],
            ..in_location(
                "add_header applies to what return sends",
                "
                    add_header X-A a; add_header X-B b always; if ($arg_c) { return 403; }
                    if ($arg_r) { return 302 /x; } return 204;
                ",
                "/ ; /?c=1 ; /?r=1 ; POST /",
            )
        },
        DirectiveCase {
            response_fields: &["x-a", "x-b"],
            ..in_location(
                "add_header of an if replaces those around it",
                "add_header X-A outer; add_header X-B outer; if ($arg_a) { add_header X-A inner always; }",
                "/ ; /?a=1 ; /respond/404?a=1 ; /respond/404",
            )
        },
        DirectiveCase {
            response_fields: &["x-a"],
            ..in_location(
                "the last if that is true decides about fields",
                "
                    add_header X-A none; if ($arg_a) { add_header X-A a; } if ($arg_b) { add_header X-A b; }
                    if ($arg_c) { set $c 1; }
                ",
                "/ ; /?a=1 ; /?b=1 ; /?a=1&b=1 ; /?a=1&b=1&c=1 ; /?a=0&b=",
            )
        },
        DirectiveCase {
            response_fields: &["x-powered-by", "x-other", "x-third"],
            ..in_location(
                "fields of the endpoint are hidden",
                "proxy_hide_header X-Powered-By; proxy_hide_header x-other;",
                "/respond/200/X-Powered-By/php/X-Other/a/X-Third/b ; /respond/404/X-Other/a",
            )
        },
        DirectiveCase {
            response_fields: &["x-u", "x-s", "x-sent"],
            ..in_location(
                "fields may read the response",
                "
                    add_header X-U $upstream_http_x_in always; add_header X-S $status always;
                    add_header X-Sent $sent_http_x_in always; if ($arg_r) { return 200 text; }
                ",
                "/respond/200/X-In/a ; /respond/404/X-In/b ; /?r=1 ; /",
            )
        },
        DirectiveCase {
            response_fields: &["etag", "last-modified"],
            ..in_location(
                "ETag and Last-Modified are replaced",
                r#"add_header ETag abc; add_header Last-Modified "Tue, 01 Jan 2030 00:00:00 GMT";"#,
                "/ ; /respond/200/ETag/x/Last-Modified/y ; /respond/404/ETag/x",
            )
        },
        DirectiveCase {
            response_fields: &["cache-control"],
            ..in_location(
                "Cache-Control is added to that of the endpoint",
                "add_header Cache-Control private;",
                "/ ; /respond/200/Cache-Control/public ; /respond/404/Cache-Control/public",
            )
        },
    ]
}

/// ingress-nginx sets the fields with a module that Debian's nginx does not have. Hiding and adding them is the same.
fn of_config_maps() -> Vec<DirectiveCase> {
    let objects = "---
apiVersion: v1
kind: ConfigMap
metadata: { namespace: one, name: fields }
data: { X-Frame-Options: DENY, X-Other: a; b }
";
    vec![DirectiveCase {
        objects: objects.to_owned(),
        response_fields: &["x-frame-options", "x-other"],
        ..annotated(
            "fields of a ConfigMap",
            &[("custom-headers", "one/fields"), ("configuration-snippet", "if ($arg_a) { return 403; }")],
            "
                proxy_hide_header X-Frame-Options; add_header X-Frame-Options DENY always;
                proxy_hide_header X-Other; add_header X-Other \"a; b\" always;
                if ($arg_a) { return 403; }
            ",
            "/ ; /respond/404/X-Frame-Options/a ; /?a=1",
        )
    }]
}

fn expiry() -> Vec<DirectiveCase> {
    vec![
        DirectiveCase {
            response_fields: &["cache-control", "expires"],
            ..in_location(
                "expires epoch",
                "expires epoch;",
                "/ ; /respond/200/Cache-Control/public/Expires/x ; /respond/404/Expires/x ; \
                 /respond/302/Location/x",
            )
        },
        DirectiveCase {
            response_fields: &["cache-control", "expires"],
            ..in_location(
                "expires max",
                "expires max;",
                "/ ; /respond/200/Cache-Control/public/Expires/x ; /respond/404/Expires/x ; \
                 /respond/302/Location/x",
            )
        },
        DirectiveCase {
            response_fields: &["cache-control", "expires"],
            ..in_location(
                "expires off",
                "expires off;",
                "/ ; /respond/200/Cache-Control/public/Expires/x ; /respond/404/Expires/x ; \
                 /respond/302/Location/x",
            )
        },
        DirectiveCase {
            response_fields: &["cache-control"],
            ..in_location("expires 1h", "expires 1h;", "/ ; /respond/200/Cache-Control/public ; /respond/404")
        },
        DirectiveCase {
            response_fields: &["cache-control"],
            ..in_location("expires 0", "expires 0;", "/ ; /respond/200/Cache-Control/public ; /respond/404")
        },
        DirectiveCase {
            response_fields: &["cache-control"],
            ..in_location("expires -1", "expires -1;", "/ ; /respond/200/Cache-Control/public ; /respond/404")
        },
        DirectiveCase {
            response_fields: &["cache-control"],
            ..in_location("expires 30d", "expires 30d;", "/ ; /respond/200/Cache-Control/public ; /respond/404")
        },
        DirectiveCase {
            response_fields: &["cache-control", "x-static"],
            ..in_location(
                "expires in an if",
                r"if ($uri ~* \.(css|js)$) { expires 30d; add_header X-Static 1; }",
                "/a.css ; /a.JS?b ; /a.html",
            )
        },
    ]
}

fn replies() -> Vec<DirectiveCase> {
    vec![
        in_location(
            "return with a status",
            "
                if ($arg_r = 200) { return 200; }
                if ($arg_r = 204) { return 204; }
                if ($arg_r = 400) { return 400; }
                if ($arg_r = 401) { return 401; }
                if ($arg_r = 403) { return 403; }
                if ($arg_r = 404) { return 404; }
                if ($arg_r = 405) { return 405; }
                if ($arg_r = 410) { return 410; }
                if ($arg_r = 413) { return 413; }
                if ($arg_r = 418) { return 418; }
                if ($arg_r = 429) { return 429; }
                if ($arg_r = 500) { return 500; }
                if ($arg_r = 502) { return 502; }
                if ($arg_r = 503) { return 503; }
            ",
            "/?r=200 ; /?r=204 ; /?r=400 ; /?r=401 ; /?r=403 ; /?r=404 ; /?r=405 ; /?r=410 ; /?r=413 ; \
             /?r=418 ; /?r=429 ; /?r=500 ; /?r=502 ; /?r=503 ; /?r=1",
        ),
        DirectiveCase {
            response_fields: &["content-type"],
            ..in_location(
                "return with a text",
                r#"
                    if ($arg_r = 200) { return 200 "a $host"; } if ($arg_r = 201) { return 201 created; }
                    if ($arg_r = 403) { return 403 'no "access"'; } if ($arg_r = 404) { return 404 "$request_uri"; }
                    if ($arg_r = 503) { return 503 'Back soon'; } if ($arg_r = n) { return 200 "a\nb"; }
                "#,
                "/a?r=200 ; /a?r=201 ; /a?r=403 ; /a?r=404 ; /a?r=503 ; /a?r=n ; HEAD /a?r=200",
            )
        },
        DirectiveCase {
            response_fields: &["content-type"],
            ..in_location(
                "return with a media type",
                r#"default_type text/plain; return 200 "User-agent: *\nDisallow: /\n";"#,
                "/robots ; POST /",
            )
        },
        DirectiveCase {
            response_fields: &["content-type", "x-a"],
            ..in_location(
                "return with JSON",
                r#"
                    default_type application/json; add_header X-A a;
                    return 200 '{"path": "$request_uri", "b": "${scheme}s"}';
                "#,
                "/a?b=c",
            )
        },
        in_location(
            "return with a URL",
            "
                if ($arg_r = 301) { return 301 https://$host$request_uri; } if ($arg_r = 302) { return 302 /login; }
                if ($arg_r = 303) { return 303 /login?from=$request_uri; }
                if ($arg_r = 307) { return 307 https://new.example$request_uri; }
                if ($arg_r = 308) { return 308 $scheme://new.example; }
                if ($arg_r = url) { return https://new.example/a; }
                if ($arg_r = scheme) { return $scheme://new.example$request_uri; }
                if ($arg_r = http_host) { return 301 https://$http_host/x; }
            ",
            "/a/b%20c?r=301 ; /a/b%20c?r=302 ; /a/b%20c?r=303 ; /a/b%20c?r=307 ; /a/b%20c?r=308 ; \
             /a/b%20c?r=url ; /a/b%20c?r=scheme ; /a/b%20c?r=http_host ; //a/../b?r=301&q=%2F ; \
             /?r=302 | Host: @:8080 ; /?r=301 | Host: @:8080 ; /?r=http_host | Host: @:8080",
        ),
        // nginx closes the connection without a response, and Portico after one.
        DirectiveCase { differences: &[("/", "444")], ..in_location("return 444", "return 444;", "/") },
        DirectiveCase {
            response_fields: &["content-length", "content-type"],
            ..in_location("HEAD and return", "return 200 abc;", "HEAD /")
        },
        DirectiveCase {
            response_fields: &["x-a"],
            ..in_location(
                "return with unusual statuses and empty texts",
                r#"
                    add_header X-A a; if ($arg_a) { return 304; } if ($arg_b) { return 302 ""; }
                    if ($arg_c) { return 204 text; } if ($arg_d) { return 201; } if ($arg_e) { return 299 text; }
                    return 206 abc;
                "#,
                "/?a=1 ; /?b=1 ; /?c=1 ; /?d=1 ; /?e=1 ; /",
            )
        },
    ]
}

fn bodies() -> Vec<DirectiveCase> {
    let of_text = |name: &str, directives: &str, text: &str, requests: &str| {
        in_location(name, &format!("{directives} return 200 {text};"), requests)
    };
    vec![
        of_text("sub_filter replaces a text once", "sub_filter a x;", "banana", "/"),
        of_text("sub_filter replaces in any case", "sub_filter AN x; sub_filter_once off;", "bAnana", "/ ; HEAD /"),
        of_text(
            "the first match of several sub_filters counts",
            "sub_filter nan 1; sub_filter ana 2; sub_filter an 3;",
            "bananananan",
            "/",
        ),
        of_text(
            "sub_filter has variables",
            "set $v q; sub_filter $arg_b x; sub_filter $arg_none y; sub_filter c $v$uri;",
            "abcabc",
            "/ ; /d?b=b ; /d?b=B",
        ),
        of_text("sub_filter is for HTML", "default_type text/css; sub_filter a x;", "banana", "/"),
        of_text(
            "sub_filter_types add media types",
            "default_type text/css; sub_filter a x; sub_filter_types text/css;",
            "banana",
            "/",
        ),
        of_text("sub_filter of the host", "", "banana", "/").with_server("sub_filter a x; sub_filter_once off;"),
        of_text("sub_filter of the location", "sub_filter n y;", "banana", "/").with_server("sub_filter a x;"),
        DirectiveCase {
            response_fields: &["etag", "last-modified"],
            ..in_location(
                "sub_filter removes fields about the age",
                "sub_filter no-such-text x; sub_filter_types text/plain;",
                "/respond/200/ETag/%22a%22/Last-Modified/x ; /respond/404/ETag/%22a%22",
            )
        },
        DirectiveCase {
            response_fields: &["last-modified"],
            ..in_location(
                "sub_filter keeps the age",
                "sub_filter no-such-text x; sub_filter_types *; sub_filter_last_modified on;",
                "/respond/200/Last-Modified/x",
            )
        },
    ]
}

fn request_fields() -> Vec<DirectiveCase> {
    vec![
        DirectiveCase {
            request_fields: &["x-a", "x-removed", "x-b", "x-c", "x-d", "x-other", "accept-encoding"],
            ..in_location(
                "request fields are set, replaced and removed",
                r#"
                    proxy_set_header X-A "a $host"; proxy_set_header X-Removed ""; proxy_set_header X-B $http_none;
                    proxy_set_header X-C $http_x_in; proxy_set_header Accept-Encoding "";
                    proxy_set_header X-D "$arg_d-$cookie_d";
                "#,
                "/ | X-A: client | X-Removed: client | X-B: client | X-In: in | X-C: client | Accept-Encoding: gzip ; \
                 /?d=1 | Cookie: a=b; d=2 | X-Other: kept ; POST /?d=%20",
            )
        },
        DirectiveCase {
            request_fields: &["x-lower"],
            ..in_location(
                "request fields in upper and lower case",
                "proxy_set_header x-lower a; proxy_set_header X_Under b;",
                "/ | X-LOWER: c",
            )
        },
        DirectiveCase {
            request_fields: &["host"],
            ..in_location("Host is fixed", "proxy_set_header Host other.example;", "/ ; / | Host: @:8080")
        },
        DirectiveCase {
            request_fields: &["host"],
            differences: &[("/ | Host: @:8080", "200, service one/s0, target /, request host: @:8080")],
            ..in_location(
                "Host is that of the request, and in nginx without its port",
                "proxy_set_header Host $host;",
                "/ ; / | Host: @:8080",
            )
        },
    ]
}
