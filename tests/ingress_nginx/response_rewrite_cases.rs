//! Rewrites of what endpoints say about their URLs and cookies, by snippets and by annotations.

use super::directives::{DirectiveCase, annotated, in_location};

pub(crate) fn all() -> Vec<DirectiveCase> {
    [redirects(), cookies(), flags(), of_annotations()].into_iter().flatten().collect()
}

fn redirects() -> Vec<DirectiveCase> {
    vec![
        in_location(
            "proxy_redirect with prefixes",
            "proxy_redirect http://b/ /x/; proxy_redirect http:// https://; proxy_redirect /old http://new$uri;",
            "/respond/302/Location/http:%2F%2Fb%2Fa ; /respond/302/Location/http:%2F%2Fc%2Fa ; \
             /respond/201/Location/http:%2F%2Fb%2Fa%3Fc%3Dd ; /respond/302/Location/HTTP:%2F%2Fb%2Fa ; \
             /respond/302/Location/%2Fold%2Fa ; /respond/302/Location/%2Fa ; /respond/302/Location/a ; / ; \
             /respond/302/Location/http:%2F%2Fb%2Fa | Host: @:8080",
        ),
        in_location(
            "proxy_redirect with expressions",
            r"
                proxy_redirect ~^http://([a-z]+)(:\d+)?/(.*)$ https://$1.$host/$3;
                proxy_redirect ~*^/(?<first>[a-z]+)/(.*)$ /$2?$first;
            ",
            "/respond/302/Location/http:%2F%2Fb%2Fa ; /respond/302/Location/http:%2F%2Fb:8080%2Fa%2Fb ; \
             /respond/302/Location/http:%2F%2F1%2Fa ; /respond/302/Location/%2FFoo%2Fbar ; \
             /respond/302/Location/https:%2F%2Fb%2F",
        ),
        in_location(
            "proxy_redirect with variables",
            "proxy_redirect http://$host/ https://$arg_a/$http_x_b/; proxy_redirect $scheme:// x://;",
            "/respond/302/Location/http:%2F%2F@%2Fa?a=c | X-B: b ; /respond/302/Location/http:%2F%2Fother%2Fa",
        ),
        DirectiveCase {
            response_fields: &["refresh"],
            ..in_location(
                "proxy_redirect of Refresh",
                "proxy_redirect http://b/ /x/;",
                "/respond/200/Refresh/5;%20url=http:%2F%2Fb%2Fa ; /respond/200/Refresh/0;URL=http:%2F%2Fb%2Fa ; \
                 /respond/200/Refresh/5 ; /respond/200/Refresh/5;%20url=http:%2F%2Fc",
            )
        },
        in_location(
            "proxy_redirect leaves redirects of the location alone",
            "proxy_redirect http:// https://; if ($arg_a) { return 302 http://b/; }",
            "/?a=1 ; /respond/302/Location/http:%2F%2Fb%2F",
        ),
        in_location("proxy_redirect off", "proxy_redirect off;", "/respond/302/Location/http:%2F%2Fb%2Fa"),
    ]
}

fn cookies() -> Vec<DirectiveCase> {
    let of_cookies = |name: &str, snippet: &str, requests: &str| DirectiveCase {
        response_fields: &["set-cookie"],
        ..in_location(name, snippet, requests)
    };
    vec![
        of_cookies(
            "proxy_cookie_path with flags",
            r#"proxy_cookie_path / "/; Secure; HttpOnly; SameSite=strict";"#,
            "/respond/200/Set-Cookie/a=b ; /respond/200/Set-Cookie/a=b;path=%2F ; \
             /respond/200/Set-Cookie/a%20=%20b%20;%20%20PATH%20=%20%2Fx%20;%20Max-Age=3;%20x ; \
             /respond/200/Set-Cookie/a;%20Path=%2F ; /respond/200/Set-Cookie/=b;%20Path=%2F ; \
             /respond/200/Set-Cookie/a=b;Path ; /respond/200/Set-Cookie/a=b;Path= ; \
             /respond/404/Set-Cookie/a=b;Path=%2F;Path=%2Fx/Set-Cookie/c=d;Path=%2F ; \
             /respond/200/Set-Cookie/a=b;Path=%2F/X-A/b/Set-Cookie/c=d",
        ),
        of_cookies(
            "proxy_cookie_path with expressions",
            "
                proxy_cookie_path /one/ /two/; proxy_cookie_path ~^/(x)/(.*)$ /$2/$1;
                proxy_cookie_path ~*^/y /z$arg_a;
            ",
            "/respond/200/Set-Cookie/a=b;Path=%2Fone%2Fq ; /respond/200/Set-Cookie/a=b;Path=%2Fone ; \
             /respond/200/Set-Cookie/a=b;Path=%2Fx%2Ffoo ; /respond/200/Set-Cookie/a=b;Path=%2FX%2Ffoo ; \
             /respond/200/Set-Cookie/a=b;Path=%2FY%2Fa?a=1",
        ),
        of_cookies(
            "proxy_cookie_domain",
            r"
                proxy_cookie_domain .localhost .example.org; proxy_cookie_domain ~\.([a-z]+\.[a-z]+)$ $1;
                proxy_cookie_domain internal $host;
            ",
            "/respond/200/Set-Cookie/a=b;Domain=localhost ; /respond/200/Set-Cookie/a=b;Domain=.LOCALHOST ; \
             /respond/200/Set-Cookie/a=b;Domain=a.localhost ; /respond/200/Set-Cookie/a=b;domain=.x.y ; \
             /respond/200/Set-Cookie/a=b;Domain=q.X.Y;Path=%2F ; /respond/200/Set-Cookie/a=b;Domain=internal ; \
             /respond/200/Set-Cookie/a=b;Domain",
        ),
    ]
}

fn flags() -> Vec<DirectiveCase> {
    let of_flags = |name: &str, snippet: &str| DirectiveCase {
        response_fields: &["set-cookie"],
        ..in_location(
            name,
            snippet,
            "/respond/200/Set-Cookie/sid=1 ; /respond/200/Set-Cookie/SID=1;Secure;%20httponly%20 ; \
             /respond/200/Set-Cookie/a=1;Path=%2F;secure;SameSite=Lax;HttpOnly ; \
             /respond/200/Set-Cookie/a=1;%20samesite=STRICT ; /respond/200/Set-Cookie/a ; \
             /respond/200/Set-Cookie/a=1;SameSite=none;SameSite=Lax;HttpOnly=1;Secure=x ; \
             /respond/200/Set-Cookie/a=1/Set-Cookie/sid=2",
        )
    };
    vec![
        of_flags(
            "proxy_cookie_flags of one cookie and of others",
            "proxy_cookie_flags sid httponly; proxy_cookie_flags ~ nosecure samesite=strict;",
        ),
        of_flags("proxy_cookie_flags that are set", "proxy_cookie_flags ~ Secure httponly samesite=none;"),
        of_flags("proxy_cookie_flags that are removed", "proxy_cookie_flags ~^[a-z]+$ nosecure nohttponly nosamesite;"),
        of_flags(
            "proxy_cookie_flags after proxy_cookie_path",
            r#"proxy_cookie_path / "/; Secure"; proxy_cookie_flags ~ samesite=lax;"#,
        ),
        of_flags("proxy_cookie_flags off", "proxy_cookie_flags off;"),
    ]
}

fn of_annotations() -> Vec<DirectiveCase> {
    vec![
        annotated(
            "proxy-redirect-from and proxy-redirect-to",
            &[("proxy-redirect-from", "http://b/a/"), ("proxy-redirect-to", "/c/")],
            "proxy_redirect http://b/a/ /c/;",
            "/respond/302/Location/http:%2F%2Fb%2Fa%2Fd ; /respond/302/Location/http:%2F%2Fb%2F",
        ),
        DirectiveCase {
            response_fields: &["set-cookie"],
            ..annotated(
                "proxy-cookie-path and proxy-cookie-domain",
                &[("proxy-cookie-path", "/one/ /"), ("proxy-cookie-domain", "b.internal b.example")],
                "proxy_cookie_path /one/ /; proxy_cookie_domain b.internal b.example;",
                "/respond/200/Set-Cookie/a=b;Path=%2Fone%2F;Domain=b.internal ; \
                 /respond/200/Set-Cookie/a=b;Path=%2F;Domain=c.internal",
            )
        },
        annotated(
            "relative-redirects",
            &[
                ("relative-redirects", "true"),
                ("proxy-redirect-from", "http://b/a/"),
                ("proxy-redirect-to", "/c/"),
                ("configuration-snippet", "if ($arg_r) { return 302 /r; }"),
            ],
            "absolute_redirect off; proxy_redirect http://b/a/ /c/; if ($arg_r) { return 302 /r; }",
            "/respond/302/Location/http:%2F%2Fb%2Fa%2Fd ; /respond/302/Location/%2Fd ; /?r=1",
        ),
        DirectiveCase {
            response_fields: &["set-cookie", "x-a"],
            ..annotated(
                "an annotation beside a snippet",
                &[
                    ("proxy-cookie-path", "/one/ /"),
                    ("configuration-snippet", "proxy_cookie_flags ~ secure; add_header X-A a;"),
                ],
                "proxy_cookie_path /one/ /; proxy_cookie_flags ~ secure; add_header X-A a;",
                "/respond/200/Set-Cookie/a=b;Path=%2Fone%2F ; /respond/200/Set-Cookie/a=b;Path=%2F",
            )
        },
    ]
}
