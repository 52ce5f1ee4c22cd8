//! What is refused, where, and why.

use super::*;

fn refuse(text: &str, place: SnippetPlace) -> RefusedSnippet {
    match Snippet::parse(text, place, RegexLimit { max_states: 2_000 }) {
        Ok(snippet) => panic!("{text}: {snippet:?}"),
        Err(refused) => refused,
    }
}

#[test]
fn unknown_directives_are_refused_by_name() {
    for (text, line, message) in [
        ("expires 1h;\n\nroot /var/www;", 3, "root is not supported; serve files with a backend"),
        ("proxy_pass http://a;", 1, "proxy_pass is not supported; give the path a Service"),
        (
            "access_by_lua_block { ngx.exit(403) }",
            1,
            "access_by_lua_block is not supported; use the plugin pre-function",
        ),
        ("set_by_lua_file $a b;", 1, "set_by_lua_file is not supported; use the plugin pre-function"),
        ("auth_request /a;", 1, "auth_request is not supported; use the annotation `auth-url`"),
        ("auth_request_set $a $b;", 1, "auth_request_set is not supported; use the annotation `auth-response-headers`"),
        ("limit_req zone=a;", 1, "limit_req is not supported; use the annotation `limit-rps`"),
        ("include a;", 1, "include is not supported; write the directives into the snippet"),
        ("access_log /a;", 1, "access_log is not supported; use the flags --access-log and --access-log-format"),
        ("satisfy any;", 1, "satisfy is not supported; use the annotation `satisfy`"),
        ("gzip on;", 1, "gzip is not supported; use the plugin compression"),
        ("location /a { deny all; }", 1, "location is not supported; use a `server-snippet`"),
        ("something_else a;", 1, "something_else is not supported; use an annotation or a plugin"),
        ("add_header A $foo;", 1, "add_header reads `$foo`, which is not a variable that is supported"),
        (
            "proxy_set_header A $status;",
            1,
            "proxy_set_header reads `$status`, which has a value only in fields of resp",
        ),
        ("set $host a;", 1, "set sets `$host`, which is a variable of nginx"),
        ("set $proxy_upstream_name a;", 1, "set sets `$proxy_upstream_name`, which is a variable of nginx"),
        ("if (-f $request_filename) { return 403; }", 1, "if checks files"),
        ("if (!-d $uri) { return 403; }", 1, "if checks files"),
        ("proxy_set_header Transfer-Encoding a;", 1, "proxy_set_header changes `Transfer-Encoding`"),
        ("proxy_set_header Connection close;", 1, "proxy_set_header changes `Connection`"),
        ("more_set_headers 'Content-Length: 1';", 1, "more_set_headers changes `Content-Length`"),
        ("more_set_headers \"A: b\nc\";", 1, "more_set_headers has a line break or another control character"),
    ] {
        let refused = refuse(text, SnippetPlace::Location);
        assert_eq!(refused.line, line, "{text}");
        let written = refused.to_string();
        assert!(written.starts_with(&format!("line {line}: {message}")), "{written}");
    }
}

#[test]
fn invalid_arguments_are_refused() {
    for text in [
        "set $a;",
        "set a b;",
        "set $a b c;",
        "set $a-b c;",
        "return;",
        "return abc;",
        "return 99;",
        "return 600;",
        "return 200 a b;",
        "rewrite ^/a;",
        "rewrite ^/a ?;",
        "rewrite ( /a;",
        "rewrite ^/a /b always;",
        "rewrite a{900}{9} /b;",
        "break a;",
        "if { return 403; }",
        "if () { return 403; }",
        "if $a { return 403; }",
        "if (a = b) { return 403; }",
        "if ($host == b) { return 403; }",
        "if ($host = a b) { return 403; }",
        "if ($host$uri) { return 403; }",
        "if ($host) return;",
        "if ($host) { if ($uri) { return 403; } }",
        "if ($host) { client_max_body_size 1m; }",
        "if ($host) { root /a; }",
        "allow a.example;",
        "deny;",
        "deny 10.0.0.0/33;",
        "limit_except GET { return 403; }",
        "limit_except NONE { deny all; }",
        "limit_except { deny all; }",
        "limit_except GET { deny all; } limit_except POST { deny all; }",
        "add_header A;",
        "add_header A b never;",
        "add_header 'A b' c;",
        "more_set_headers;",
        "more_set_headers -s;",
        "more_set_headers -s 1 'A: b';",
        "more_set_headers -x a 'A: b';",
        "more_set_headers -s 404;",
        "more_set_input_headers -r 'A: b';",
        "more_set_input_headers 'Host: b';",
        "proxy_set_header Host 'a b';",
        "proxy_set_header A;",
        "proxy_set_header A b { }",
        "proxy_http_version 1.0;",
        "proxy_read_timeout a;",
        "proxy_read_timeout 1; proxy_read_timeout 2;",
        "client_max_body_size -1;",
        "default_type a;",
        "expires @1h;",
    ] {
        refuse(text, SnippetPlace::Location);
    }
    for text in [
        "location a { deny all; }",
        "location /a;",
        "location ! /a { deny all; }",
        "location ~ ( { deny all; }",
        "location / { location /a { deny all; } }",
        "location / { root /a; }",
        "location @a { deny all; }",
        "if ($host) { add_header A b; }",
        "limit_except GET { deny all; }",
    ] {
        refuse(text, SnippetPlace::Server);
    }
}

#[test]
fn sizes_are_limited() {
    let sets = |count: usize| (0..count).map(|number| format!("set $a{number} b;\n")).collect::<String>();
    let ifs = |count| "if ($host) { break; }\n".repeat(count);
    assert_eq!((location(&sets(32)), location(&ifs(16))), (location(&sets(32)), location(&ifs(16))));
    assert_eq!(refuse(&sets(33), SnippetPlace::Location).line, 33);
    assert_eq!(refuse(&ifs(17), SnippetPlace::Location).line, 17);
}

#[test]
fn refused_snippets_tell_whether_they_restrict() {
    for (text, restricts) in [
        ("root /a; add_header A b;", false),
        ("root /a; deny all;", true),
        ("root /a; if ($http_a = b) { return 403; }", true),
        ("add_header A $foo;", false),
        ("add_header A 'b;", true),
        ("unknown_directive a;", true),
        ("access_by_lua_block { }", true),
    ] {
        assert_eq!(refuse(text, SnippetPlace::Location).restricts, restricts, "{text}");
    }
}
