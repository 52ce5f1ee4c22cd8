//! The steps of the rewrite module, and which block is active after them.

use super::*;

#[test]
fn paths_are_rewritten() {
    for (text, target, expected) in [
        ("rewrite ^/a/(.*)$ /b/$1 break;", "/a/c?d=e", "/b/c?d=e"),
        ("rewrite ^/a/(.*)$ /b/$1 last;", "/a/c", "/b/c"),
        ("rewrite ^/a/(.*)$ /b/$1;", "/a/c", "/b/c"),
        ("rewrite ^/a/(.*)$ /b/$1; break;", "/a/c", "/b/c"),
        ("rewrite ^/a/(.*)$ b/$1 break;", "/a/c", "/b/c"),
        // Both run, unless the first ends the steps.
        ("rewrite ^/a /b; rewrite ^/b /c break;", "/a", "/c"),
        ("rewrite ^/a /b last; rewrite ^/b /c break;", "/a", "/b"),
        // The query.
        ("rewrite ^/a /b?c=d break;", "/a?e=f", "/b?c=d&e=f"),
        ("rewrite ^/a /b?c=d break;", "/a", "/b?c=d"),
        ("rewrite ^/a /b?c=d? break;", "/a?e=f", "/b?c=d"),
        ("rewrite ^/a /b? break;", "/a?e=f", "/b"),
        ("rewrite ^/a/(.*) /b?c=$1 break;", "/a/d%26e", "/b?c=d%26e"),
        ("rewrite ^/a/(.*) /b?c=$1 break;", "/a/d&e", "/b?c=d&e"),
        ("rewrite ^/a/(.*) /b?c=$1&h=$http_x break;", "/a/d%20e", "/b?c=d%20e&h=1%202"),
        // Escapes are decoded, and encoded again if they are needed.
        ("rewrite ^/a/(.*) /b/$1 break;", "/a/c%20d%3Fe%2Ff", "/b/c%20d%3Fe/f"),
        ("rewrite ^/a/(.*) /b/$1 break;", "/a/caf%C3%A9%FF", "/b/caf%C3%A9%FF"),
        ("rewrite ^/a/(?<rest>.*) /b/$rest break;", "/a/c", "/b/c"),
        ("rewrite ^/(?!api)(.*) /web/$1 break;", "/c", "/web/c"),
        ("rewrite ^/(?!api)(.*) /web/$1 break;", "/api", "passes"),
        ("rewrite ^/a(.*) /$1/b break;", "/a..", "InvalidTarget"),
        ("rewrite ^/a https://b.example/c;", "/a?d=e", "302 to https://b.example/c?d=e"),
        ("rewrite ^/a https://b.example/c?f=g last;", "/a?d=e", "302 to https://b.example/c?f=g&d=e"),
        ("rewrite ^/a/(.*) https://b.example/$1? redirect;", "/a/c%3Fd%23e?f", "302 to https://b.example/c%3Fd%23e"),
        ("rewrite ^/(.*) $http_x permanent;", "/", "301 to 1%202"),
        ("set $args $args&a=$arg_b;", "/c?b=d", "/c?b=d&a=d"),
        ("set $args a=b; set $c $arg_a; rewrite ^ /$c$is_args break;", "/", "/b%3F?a=b"),
        ("rewrite ^/a /b; return 200 $uri;", "/a", "200 with \"/b\""),
    ] {
        let request = Request::with(target, &[("x", "1 2")]);
        assert_eq!(outcome(&run(&location(text), &request)), expected, "{text} {target}");
    }
}

#[test]
fn conditions_are_those_of_nginx() {
    for (condition, is_true) in [
        ("$http_a", true),
        ("$http_zero", false),
        ("$http_none", false),
        ("$http_a = b", true),
        ("$http_a = 'B'", false),
        ("$http_a != B", true),
        (" $http_a = \"b\" ", true),
        ("$http_a = $http_a", true),
        ("$http_none = ''", true),
        ("$http_a ~ B", false),
        ("$http_a ~* B", true),
        ("$http_a !~ B", true),
        ("$http_a !~* B", false),
        ("$http_a ~ \"^b$\"", true),
        ("$host ~* (example|test)", true),
        ("$request_uri ~ ^/a/(?!b)", true),
    ] {
        let snippet = location(&format!("if ({condition}) {{ return 403; }}"));
        let request = Request::with("/a/c", &[("a", "b"), ("zero", "0")]);
        assert_eq!(run(&snippet, &request).reply.is_some(), is_true, "{condition}");
    }
}

#[test]
fn groups_are_those_of_the_last_expression() {
    for (text, expected) in [
        ("if ($host ~ ^(.)) { set $first $1; } return 200 $first$2;", "200 with \"a\""),
        ("if ($host ~ ^(.)) { set $a 1; } if ($host ~ (z)) { set $a 2; } return 200 -$a$1;", "200 with \"-1\""),
        ("if ($host !~ ^(.)\\.) { set $a 1; } return 200 -$a$1;", "200 with \"-a\""),
        ("return 200 -$1; if ($host ~ (a)) { set $b c; }", "200 with \"-\""),
    ] {
        assert_eq!(outcome(&run(&location(text), &Request::get("/"))), expected, "{text}");
    }
}

#[test]
fn last_true_condition_is_active() {
    let snippet = location(
        r#"
        add_header X-Added outer;
        more_set_headers "X-More: outer";
        proxy_set_header X-Sent outer;
        proxy_set_header X-Only outer;
        deny 192.0.2.0/24;
        if ($arg_a) { more_set_headers "X-More-A: a"; }
        if ($arg_b) {
            add_header X-Added b;
            more_set_headers "X-More: b";
            proxy_set_header X-Sent b;
            allow 192.0.2.1;
        }
        if ($arg_c) { set $d e; }
        "#,
    );
    let cases: &[(&str, &[&str], &[&str], SnippetVerdict)] = &[
        ("/", &["x-added: outer", "x-more: outer"], &["x-only: outer", "x-sent: outer"], SnippetVerdict::Deny),
        (
            "/?a=1",
            &["x-added: outer", "x-more-a: a", "x-more: outer"],
            &["x-only: outer", "x-sent: outer"],
            SnippetVerdict::Deny,
        ),
        ("/?a=1&b=1", &["x-added: b", "x-more: b"], &["x-sent: b"], SnippetVerdict::Allow),
        // The block of the last one has nothing of its own, and nothing of the others.
        (
            "/?a=1&b=1&c=1",
            &["x-added: outer", "x-more: outer"],
            &["x-only: outer", "x-sent: outer"],
            SnippetVerdict::Deny,
        ),
    ];
    for (target, response, request_lines, expected) in cases {
        let request = Request::get(target);
        assert_eq!(lines(&response_fields(&snippet, &request, 200, &[])), *response, "{target}");
        assert_eq!(lines(&request_fields(&snippet, &request)), *request_lines, "{target}");
        assert_eq!(verdict(&snippet, &request, "192.0.2.1"), *expected, "{target}");
    }
}

#[test]
fn first_rule_for_an_address_decides() {
    for (text, address, expected) in [
        ("allow 10.0.0.0/8; deny all;", "10.1.2.3", SnippetVerdict::Allow),
        ("allow 10.0.0.0/8; deny all;", "::ffff:10.1.2.3", SnippetVerdict::Allow),
        ("allow 10.0.0.0/8; deny all;", "192.0.2.1", SnippetVerdict::Deny),
        ("deny 10.0.0.1; allow 10.0.0.0/8;", "10.0.0.1", SnippetVerdict::Deny),
        ("allow 2001:db8::/32; deny all;", "2001:db8::1", SnippetVerdict::Allow),
        ("deny 10.0.0.1;", "192.0.2.1", SnippetVerdict::Unmatched),
        ("allow all;", "192.0.2.1", SnippetVerdict::Allow),
        // The address is not known.
        ("deny 10.0.0.1;", "0.0.0.0", SnippetVerdict::Deny),
        ("expires 1h;", "0.0.0.0", SnippetVerdict::Unmatched),
    ] {
        let snippet = location(text);
        assert_eq!(verdict(&snippet, &Request::get("/"), address), expected, "{text} {address}");
        assert_eq!(snippet.restricts(), text != "expires 1h;", "{text}");
    }
}

#[test]
fn methods_have_rules_of_their_own() {
    let snippet = location("deny 10.0.0.1; limit_except GET { allow 192.0.2.1; deny all; }");
    for (method, address, expected) in [
        ("GET", "192.0.2.9", SnippetVerdict::Unmatched),
        ("HEAD", "192.0.2.9", SnippetVerdict::Unmatched),
        ("HEAD", "10.0.0.1", SnippetVerdict::Deny),
        ("POST", "192.0.2.9", SnippetVerdict::Deny),
        ("POST", "192.0.2.1", SnippetVerdict::Allow),
        ("PURGE", "192.0.2.9", SnippetVerdict::Deny),
    ] {
        let request = Request { method, ..Request::get("/") };
        assert_eq!(verdict(&snippet, &request, address), expected, "{method} {address}");
    }
}

#[test]
fn work_is_limited() {
    let snippet = location("if ($request_uri ~ (a|b)*c) { return 403; }");
    let run = snippet.run(&Request::get("/aaaaaaaa"), &RegexSteps::new(20));
    assert!(matches!(run.failed, Some(SnippetFailure::TooManySteps(_))) && run.reply.is_none());
    // Doubling a text ends at 8 KiB.
    let text = format!("set $a aaaaaaaa; {}", "set $a $a$a;".repeat(30));
    assert_eq!(outcome(&super::run(&location(&text), &Request::get("/"))), "TextTooLong");
}
