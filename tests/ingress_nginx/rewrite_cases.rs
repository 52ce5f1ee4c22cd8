//! Snippets of locations with the steps of the rewrite module: conditions, variables, rewrites and redirects.

use super::directives::{DirectiveCase, in_location};

pub(crate) fn all() -> Vec<DirectiveCase> {
    [conditions(), expressions(), variables(), rewrites(), redirects()].into_iter().flatten().collect()
}

fn conditions() -> Vec<DirectiveCase> {
    vec![
        DirectiveCase {
            response_fields: &["x-r"],
            ..in_location(
                "conditions",
                r#"
                    set $r ""; if ($arg_a) { set $r "${r}1"; } if ($arg_a = b) { set $r "${r}2"; }
                    if ($arg_a != b) { set $r "${r}3"; } if ($arg_a ~ ^B) { set $r "${r}4"; }
                    if ($arg_a ~* ^B) { set $r "${r}5"; } if ($arg_a !~ ^B) { set $r "${r}6"; }
                    if ($arg_a !~* "^b$") { set $r "${r}7"; } add_header X-R $r;
                "#,
                "/ ; /? ; /?a= ; /?a=0 ; /?a=00 ; /?a=b ; /?a=B ; /?a=bc ; /?a=b&a=c ; /?A=b ; /?aa=b ; \
                 /?a ; /?a=%62 ; /?c=d&a=b ; /?a=b%0A ; /?b=a=b",
            )
        },
        DirectiveCase {
            response_fields: &["x-r"],
            ..in_location(
                "conditions about fields and cookies",
                r#"
                    set $r ""; if ($http_x_a) { set $r "${r}1"; } if ($http_x_a = "a b") { set $r "${r}2"; }
                    if ($cookie_c = d) { set $r "${r}3"; } if ($cookie_c ~ "^(d|e)$") { set $r "${r}4"; }
                    if ($http_cookie ~ "c=d") { set $r "${r}5"; } if ($http_x_a = $http_x_b) { set $r "${r}6"; }
                    if ($request_method = POST) { set $r "${r}7"; } add_header X-R $r;
                "#,
                "/ ; / | X-A: 0 ; / | X-A: a b ; / | x-a: 1 | X-B: 1 ; / | Cookie: c=d ; \
                 / | Cookie: b=c; c=d; c=e ; / | Cookie: C=e ; / | Cookie: cc=d ; / | Cookie: c=d=e ; \
                 / | Cookie: b=\"c=d\" ; POST / ; / | X-A: first | X-A: second",
            )
        },
        in_location(
            "flags are accumulated",
            r#"
                set $block ""; if ($http_user_agent ~* (curl|wget)) { set $block "${block}A"; }
                if ($arg_key != secret) { set $block "${block}B"; } if ($block = AB) { return 403; }
            "#,
            "/ | User-Agent: Curl/8 ; /?key=secret | User-Agent: curl/8 ; / ; \
             /?key=Secret | User-Agent: a wget",
        ),
        in_location(
            "a flag permits maintenance to pass",
            r#"
                set $maintenance 1; if ($remote_addr ~ ^10\.) { set $maintenance 0; }
                if ($http_x_pass = yes) { set $maintenance 0; } if ($uri ~ ^/health) { set $maintenance 0; }
                if ($maintenance) { return 503 "Back soon"; }
            "#,
            "/ ; / | X-Pass: yes ; /health/x ; //health ; /a/../health ; /%68ealth ; /Health",
        ),
        DirectiveCase {
            response_fields: &["x-r"],
            ..in_location(
                "groups of conditions",
                r#"
                    set $bare ""; set $browser ""; if ($host ~* ^www\.(.+)$) { set $bare $1; }
                    if ($http_user_agent ~ "(?<name>[a-z]+)/(\d+)") { set $browser "$name $2"; }
                    add_header X-R "$bare|$browser|$1";
                "#,
                "/ ; / | User-Agent: curl/8.1 ; / | User-Agent: Curl/8 ; / | Host: WWW.@",
            )
        },
        DirectiveCase {
            response_fields: &["x-r"],
            ..in_location(
                "groups of the last condition, and of one that fails",
                r#"
                    set $r ""; if ($arg_a ~ (b)(c)?) { set $r "$1-$2"; } if ($arg_z ~ (z)) { set $r z; }
                    add_header X-R "$r/$1";
                "#,
                "/ ; /?a=b ; /?a=bc ; /?a=bc&z=z",
            )
        },
        in_location(
            "hosts without www",
            r"if ($host ~* ^www\.(.*)$) { return 301 https://$1$request_uri; }",
            "/a%20b?c=d ; / | Host: @:8080",
        ),
        // Portico reads such fields only from proxies that it trusts, and else has the scheme of the connection there.
        DirectiveCase {
            differences: &[
                ("/a", "301, location https://@/a"),
                ("/a | X-Forwarded-Proto: https", "301, location https://@/a"),
            ],
            ..in_location(
                "plain text behind a proxy is redirected",
                "if ($http_x_forwarded_proto = 'http') { return 301 https://$host$request_uri; }",
                "/a ; /a | X-Forwarded-Proto: http ; /a | X-Forwarded-Proto: https",
            )
        },
        DirectiveCase {
            response_fields: &["x-r"],
            ..in_location(
                "break ends the steps",
                "set $r 1; if ($arg_a) { break; } set $r 2; if ($arg_b) { return 403; } add_header X-R $r;",
                "/ ; /?a=1 ; /?b=1 ; /?a=1&b=1",
            )
        },
        in_location(
            "return ends the steps, and precedes rules for addresses",
            "deny all; if ($arg_a) { return 200 a; } set $b c;",
            "/ ; /?a=1",
        ),
        DirectiveCase {
            response_fields: &["x-r"],
            ..in_location(
                "values that count as empty",
                r#"
                    set $r ""; if ($http_x = "") { set $r e; } if ($http_x = 0) { set $r z; }
                    if ($r) { add_header X-R "$r"; }
                "#,
                "/ ; / | X: 0 ; / | X: 1 ; / | X:",
            )
        },
        in_location(
            "groups in what return sends",
            r#"
                if ($uri ~ ^/go/(.*)$) { return 302 https://x.example/$1; }
                if ($uri ~ ^/text/(.*)$) { return 200 "$1"; } if ($args ~ ^u=(.*)$) { return 302 $1; }
            "#,
            "/go/a ; /go/a/b?c ; /text/a%20b%C3%A9 ; /?u=/x ; /?u=http://y/%20 ; /?u=y",
        ),
    ]
}

fn expressions() -> Vec<DirectiveCase> {
    vec![
        in_location(
            "paths of a regular expression in other forms",
            "if ($uri ~ ^/admin$) { return 403; }",
            "/admin ; /admin%0A ; //admin ; /a/../admin ; /%61dmin ; /%2e/admin ; /x/%2e%2e/admin ; \
             /ADMIN ; /admin/ ; /admin?x ; /admin;x ; /admin%3Fx",
        ),
        in_location(
            "the target of the request in other forms",
            "if ($request_uri ~ ^/admin) { return 403; }",
            "/admin ; //admin ; /%61dmin ; /admin%0A ; /x?/admin",
        ),
        DirectiveCase {
            response_fields: &["x-r"],
            ..in_location(
                "expressions",
                r#"
                    set $r ""; if ($uri ~ "(.)\1") { set $r "${r}0"; } if ($uri ~ "^/(?>a+)b?$") { set $r "${r}1"; }
                    if ($uri ~ "^/[[:alpha:]]+$") { set $r "${r}2"; } if ($uri ~ "\.(?:git|env)$") { set $r "${r}3"; }
                    if ($uri ~ "^/\D+$") { set $r "${r}4"; } if ($uri ~ "^/(?i:ADMIN)$") { set $r "${r}5"; }
                    if ($uri ~ "(?<!a)b") { set $r "${r}6"; } if ($uri ~ "^/\S+$") { set $r "${r}7"; }
                    if ($uri ~ "^/$|^/k$") { set $r "${r}8"; } if ($uri ~* "^/SECRET$") { set $r "${r}9"; }
                    if ($uri !~ "^/[\w./-]*$") { set $r "${r}a"; } if ($uri !~* "[A-F]") { set $r "${r}b"; }
                    add_header X-R $r;
                "#,
                "/ ; /cafe ; /admin ; /ADMIN ; /admin%0A ; /a/b ; /A1_ ; /a%20b ; /secret ; /Secret ; /aa ; \
                 /aab ; /ab.git ; /.env ; /a.env%0A ; /k ; /12",
            )
        },
        DirectiveCase {
            response_fields: &["x-r"],
            ..in_location(
                "expressions match bytes",
                r#"
                    set $r ""; if ($uri ~ "^/\w+$") { set $r "${r}w"; } if ($uri ~* "^/SECRET$") { set $r "${r}s"; }
                    if ($uri !~ "^/[\w./-]*$") { return 403; } add_header X-R $r;
                "#,
                "/cafe ; /caf%C3%A9 ; /secret ; /%C5%BFecret ; /Secret ; /%CF%83",
            )
        },
    ]
}

/// What a client sends that is no proxy.
const FORWARDED_REQUEST: &str = "/ | X-Forwarded-For: 192.0.2.1 | X-Forwarded-Proto: https | \
                                 X-Forwarded-Host: a.example | X-Real-IP: 192.0.2.2 | X-Scheme: ftp";
const OWN_FORWARDED_FIELDS: &str =
    "200, response x-r: 127.0.0.1|http|@, response x-s: 127.0.0.1|http, service one/s0, target /";

fn variables() -> Vec<DirectiveCase> {
    vec![
        DirectiveCase {
            response_fields: &["x-r", "x-s"],
            differences: &[("/", OWN_FORWARDED_FIELDS), (FORWARDED_REQUEST, OWN_FORWARDED_FIELDS)],
            ..in_location(
                "fields of other proxies are those for the endpoint",
                r#"
                    add_header X-R "$http_x_forwarded_for|$http_x_forwarded_proto|$http_x_forwarded_host";
                    add_header X-S "$http_x_real_ip|$http_x_scheme";
                "#,
                &["/", FORWARDED_REQUEST].join(" ; "),
            )
        },
        DirectiveCase {
            response_fields: &["x-r", "x-l", "x-t", "x-q", "x-h", "x-u"],
            ..in_location(
                "variables of the request",
                r#"
                    add_header X-R "$host|$http_host|$server_name|$scheme|$remote_addr" always;
                    add_header X-L "$request_method|$server_protocol|$request" always;
                    add_header X-T "$uri|$document_uri|$request_uri" always;
                    add_header X-Q "$args|$query_string|$is_args|$arg_a|$arg_B_c" always;
                    add_header X-H "$http_x_a|$cookie_c|$content_type|$content_length" always;
                    add_header X-U "$http_user_agent|$http_referer" always;
                "#,
                "/ ; /a/b?a=1&b_c=2 ; /a/b? ; /?a ; //a/./b/../c%20d/%65?a=%20 ; /caf%C3%A9 ; \
                 /a%2Fb%3Fc%23d ; POST / | Content-Type: text/plain ; / | X-A: 1 | Cookie: b=1; c=2 ; \
                 / | Cookie: c=1 | Cookie: d=2 ; / | Host: WWW.@ ; / | Host: @:8080 ; / | Host: @. ; \
                 / | User-Agent: a | Referer: http://b/ ; HEAD /a ; /a?b=c?d=e&a=? ; PUT /a ; DELETE /a",
            )
        },
        // nginx 1.22 takes the first line; the nginx of the last ingress-nginx joins them, as of version 1.23.
        DirectiveCase {
            response_fields: &["x-r"],
            differences: &[("/ | X-A: 1 | X-A: 2", "200, response x-r: 1, 2, service one/s0, target /")],
            ..in_location("a field with several lines", "add_header X-R $http_x_a;", "/ | X-A: 1 | X-A: 2")
        },
        DirectiveCase {
            response_fields: &["x-r"],
            ..in_location(
                "comments, quotes and escapes",
                r#"
                    # comment { } ;
                    add_header X-R "a # b"; # end
                    add_header X-R 'it"s';add_header X-R a#b;
                    	set	$v
                      "x;y";
                    add_header X-R ${v}z;add_header X-R "q\"r\\s\.t";
                    add_header X-R a\ b; add_header "X-R" a"b; add_header X-R "$v-${v}";
                "#,
                "/",
            )
        },
        DirectiveCase {
            response_fields: &["x-r"],
            ..in_location(
                "parameters with unusual names",
                r#"add_header X-R "$arg_a|$arg_a_b|$arg_x-y";"#,
                "/?a+b=1 ; /?a_b=1&A=2 ; /?&a=1 ; /?a=1;a=2 ; /?b=?a=1 ; /?x=1&a ; /?x-y=3 ; /?a=%",
            )
        },
        DirectiveCase {
            response_fields: &["x-r"],
            ..in_location(
                "cookies in unusual forms",
                r#"add_header X-R "$cookie_c|$cookie_C_d";"#,
                "/ | Cookie: c = d ; / | Cookie: c=d,e=f ; / | Cookie: c=\"d; e\" ; / | Cookie: c; c=e ; \
                 / | Cookie: c-d=1; C_D=2 ; / | Cookie: a=1,c=2 ; / | Cookie: c= ; / | Cookie: ;c=1",
            )
        },
    ]
}

fn rewrites() -> Vec<DirectiveCase> {
    vec![
        in_location(
            "rewrite with break",
            "rewrite ^/a/(.*)$ /b/$1 break;",
            "/a/x ; /a/x?q=1 ; /a/ ; /a ; /a/b%20c ; /a/b%2Fc ; /a/b%3Fc ; /a/b%25c ; /a/b&c ; /a/b+c ; \
             /a/caf%C3%A9 ; /a/%ff ; /A/x ; /other? ; /a/x? ; /a/x?%2F=%20 ; //a//x ; POST /a/x ; \
             /a/b%22c%3C%3E%5C%5E%60%7B%7C%7D~",
        ),
        in_location(
            "a request that no rewrite matches keeps its target",
            "rewrite ^/a/(.*)$ /b/$1 break;",
            "//other/./x ; /x%41? ; /other/../x",
        ),
        in_location(
            "rewrite with a query",
            "rewrite ^/a/(.*)$ /b?x=$1 break;",
            "/a/x ; /a/x?q=1 ; /a/b%20c ; /a/b%26c ; /a/b&c=d ; /a/b+c ; /a/b%2Bc ; /a/caf%C3%A9 ; /a/x?",
        ),
        in_location("rewrite without the query of the request", "rewrite ^/a/(.*)$ /b/$1? break;", "/a/x?q=1 ; /a/x"),
        in_location(
            "rewrite with two queries",
            "rewrite ^/a/(?<rest>.*)$ /b/$rest?y=1&z=$host break;",
            "/a/x?q=1 ; /a/x",
        ),
        in_location(
            "rewrites one after the other",
            "rewrite ^/a /b; rewrite ^/b(.*)$ /c$1 break;",
            "/a ; /b/x ; /ax?q ; /d",
        ),
        in_location(
            "rewrite with look-ahead and alternatives",
            r#"rewrite ^/(?!api/)(.*)$ /web/$1 break; rewrite "^/api/(v[0-9]{1,2})/(users|groups)" /$2/$1 break;"#,
            "/ ; /x/y ; /api/v1/users ; /api/v123/users ; /API/v1/users",
        ),
        DirectiveCase {
            response_fields: &["x-a"],
            ..in_location(
                "rewrite in an if",
                "if ($arg_v = 2) { rewrite ^/api/(.*)$ /v2/$1 break; } add_header X-A b;",
                "/api/x ; /api/x?v=2 ; /x?v=2",
            )
        },
        in_location("the query is changed", r#"set $args "$args&z=1";"#, "/a?b=c ; /a ; /a%20b?"),
        DirectiveCase {
            response_fields: &["x-r"],
            ..in_location(
                "variables after a rewrite",
                r#"rewrite ^/a/(.*)$ /b/$1?n=1 break; add_header X-R "$uri|$args|$arg_n|$request_uri|$is_args";"#,
                "/a/x ; /a/x?n=2 ; /c?n=3",
            )
        },
        DirectiveCase {
            response_fields: &["x-a"],
            ..in_location(
                "rewrite that leads to the only location",
                "rewrite ^/a/(.*)$ /b/$1 last; add_header X-A b;",
                "/a/x ; /a/a/x?q ; /b/x",
            )
        },
        DirectiveCase {
            response_fields: &["x-r"],
            ..in_location(
                "steps of a location run again",
                r#"
                    set $r "$r($uri)"; if ($uri = /b) { add_header X-R "in $r"; } rewrite ^/(.)/last$ /$1 last;
                    rewrite ^/a$ /b; if ($uri = /c) { return 410; } rewrite ^/d$ /c last; rewrite ^/e$ /d;
                    if ($arg_stop) { break; } add_header X-R "$r";
                "#,
                "/a ; /a/last ; /b ; /b/last ; /c ; /d ; /d/last ; /e ; /e/last ; /e?stop=1 ; /a?stop=1 ; /f",
            )
        },
        in_location(
            "rewrites that lead to each other end",
            r#"
                set $n "${n}1"; if ($uri = /loop) { rewrite ^ /loop last; }
                if ($uri = /ten) { set $m "${m}1"; } if ($m = 1111111111) { return 200 $n; }
                if ($uri = /ten) { rewrite ^ /ten last; } if ($n = $arg_n) { return 200 $n; }
                if ($arg_n) { rewrite ^ /n last; }
            "#,
            "/loop ; /ten ; /?n=1 ; /?n=11 ; /?n=1111111111 ; /?n=11111111111 ; /?n=111111111111",
        ),
        // Which of several locations a path has is not searched again: the Ingress gets an error.
        DirectiveCase {
            rules: &["/ Prefix s0", "/b Prefix s1"],
            differences: &[("/a/x", "503"), ("/b/x", "503")],
            ..in_location("rewrite that leads to another location", "rewrite ^/a/(.*)$ /b/$1 last;", "/a/x ; /b/x")
        },
        in_location(
            "rewrites to unusual paths",
            r#"
                rewrite ^/a$ / break; rewrite ^/b/(.*)$ //$1 break; rewrite ^/d/(.*) /$1#f break;
                rewrite ^/e/(.*)$ "/x y/$1" break; rewrite ^/f/(.*)$ /%20/$1 break;
            "#,
            "/a ; /b/x ; /d/x ; /e/x ; /f/x",
        ),
        DirectiveCase {
            response_fields: &["x-r"],
            ..in_location(
                "rewrites in several ifs",
                "
                    if ($arg_a) { rewrite ^/(.*)$ /a/$1 break; } set $x 1; if ($arg_b) { rewrite ^/(.*)$ /b/$1 break; }
                    add_header X-R $x;
                ",
                "/p ; /p?a=1 ; /p?b=1 ; /p?a=1&b=1",
            )
        },
    ]
}

fn redirects() -> Vec<DirectiveCase> {
    vec![
        DirectiveCase {
            response_fields: &["x-a", "x-b"],
            ..in_location(
                "error pages that are URLs",
                r#"
                    error_page 403 404 http://x.example/e?u=$request_uri; error_page 410 =301 https://y.example/;
                    error_page 418 =200 $scheme://z.example$uri; error_page 404 http://second.example/;
                    if ($arg_a) { return 403; } if ($arg_b) { return 410; } if ($arg_c) { return 403 text; }
                    if ($arg_d) { return 404; } if ($arg_e) { return 418; } if ($arg_f) { return 409; }
                    add_header X-A a; add_header X-B b always;
                "#,
                "/ ; /x?a=1 ; /x?b=1 ; /x?c=1 ; /x?d=1 ; /x/y?e=1 ; /x?f=1 ; /respond/404/X-A/1",
            )
        },
        in_location("an error page of denied clients", "error_page 403 https://x.example/denied; deny all;", "/"),
        in_location(
            "an error page in an if",
            "
                error_page 403 http://x.example/; if ($arg_a) { error_page 404 http://y.example/; return 403; }
                if ($arg_b) { error_page 404 http://y.example/; return 404; } if ($arg_c) { return 403; }
            ",
            "/?a=1 ; /?b=1 ; /?c=1",
        ),
        // In nginx, an encoded question mark of a group begins the query.
        DirectiveCase {
            differences: &[("/old/b%3Fc", "301, location http://@/new/b%3Fc")],
            ..in_location(
                "rewrite with permanent",
                "rewrite ^/old/(.*)$ /new/$1 permanent;",
                "/old/x ; /old/x?q=1 ; /old/b%20c ; /old/b%2Fc ; /old/b%3Fc ; /old/b%26c ; /old/b&c ; \
                 /old/b+c ; /old/caf%C3%A9 ; /Old/x ; //old//x ; /old/x | Host: @:8080 ; \
                 /old/x | Host: WWW.@ ; /old/x?",
            )
        },
        DirectiveCase {
            differences: &[("/old/b%3Fc", "302, location http://@/new/b%3Fc")],
            ..in_location(
                "rewrite with redirect",
                "rewrite ^/old/(.*)$ /new/$1 redirect;",
                "/old/x ; /old/x?q=1 ; /old/b%20c ; /old/b%2Fc ; /old/b%3Fc ; /old/b%26c ; /old/b&c ; \
                 /old/b+c ; /old/caf%C3%A9 ; /Old/x ; //old//x ; /old/x | Host: @:8080 ; \
                 /old/x | Host: WWW.@ ; /old/x?",
            )
        },
        in_location(
            "rewrite to another host",
            "rewrite ^/old/(.*)$ https://new.example/$1?from=old redirect;",
            "/old/x ; /old/x?q=1 ; /old/b%20c",
        ),
        in_location(
            "rewrite of all to another host",
            "rewrite ^(.*)$ https://other.example$1 permanent;",
            "/ ; /a/b?c=d ; /a%20b",
        ),
        in_location(
            "rewrite without the query to another path",
            "rewrite ^/old/(.*)$ /new/$1? redirect;",
            "/old/x?q=1",
        ),
        in_location(
            "rewrite to a URL is a redirect",
            "rewrite ^/old http://x.example/y break; rewrite ^/scheme $scheme://x.example$uri;",
            "/old?q=1 ; /scheme/a ; /a",
        ),
        in_location(
            "rewrite with variables of the request",
            "rewrite ^/go$ /to/$arg_t? redirect; rewrite ^/in/(.*) /$http_x_a/$1 break;",
            "/go?t=a ; /in/b | X-A: c ; /in/b%20c | X-A: c d",
        ),
    ]
}
