//! Which clients may use a location: by their address, their method and their password, in snippets and by annotations.

use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::directives::{DirectiveCase, annotated, in_location};

pub(crate) fn all() -> Vec<DirectiveCase> {
    [addresses(), lists(), methods(), passwords(), with_snippets(), satisfy()].into_iter().flatten().collect()
}

fn addresses() -> Vec<DirectiveCase> {
    vec![
        DirectiveCase {
            response_fields: &["x-a"],
            ..in_location(
                "addresses are allowed",
                "allow 127.0.0.0/8; deny all; add_header X-A b always;",
                "/ ; POST /a",
            )
        },
        DirectiveCase {
            response_fields: &["x-a", "x-b"],
            ..in_location(
                "other addresses are denied",
                "
                    allow 192.0.2.0/24; allow 2001:db8::/32; deny all; add_header X-A b always; add_header X-B c;
                ",
                "/",
            )
        },
        in_location("the first rule denies", "deny 127.0.0.1; allow all;", "/"),
        in_location("the first rule allows", "allow 127.0.0.1; deny 127.0.0.0/8;", "/"),
        in_location("no rule is for the client", "deny 192.0.2.1;", "/"),
        DirectiveCase {
            response_fields: &["x-a"],
            ..in_location("rules apply in each if", "deny all; if ($arg_a) { add_header X-A b; }", "/ ; /?a=1")
        },
    ]
}

/// Lists of annotations, also next to the rules of a snippet, which come first.
fn lists() -> Vec<DirectiveCase> {
    vec![
        annotated(
            "a list that denies precedes one that allows",
            &[("denylist-source-range", "127.0.0.1"), ("allowlist-source-range", "127.0.0.0/8")],
            "deny 127.0.0.1; allow 127.0.0.0/8; deny all;",
            "/",
        ),
        annotated(
            "a list allows the client",
            &[("whitelist-source-range", "192.0.2.1, 127.0.0.0/8")],
            "allow 192.0.2.1; allow 127.0.0.0/8; deny all;",
            "/ ; POST /",
        ),
        annotated(
            "a snippet denies what a list allows",
            &[("configuration-snippet", "deny 127.0.0.1;"), ("allowlist-source-range", "127.0.0.0/8")],
            "deny 127.0.0.1; allow 127.0.0.0/8; deny all;",
            "/",
        ),
        // In Portico, no snippet lets a client pass that an annotation denies.
        DirectiveCase {
            differences: &[("/", "403")],
            ..annotated(
                "a snippet allows what a list denies",
                &[("configuration-snippet", "allow 127.0.0.1;"), ("allowlist-source-range", "192.0.2.0/24")],
                "allow 127.0.0.1; allow 192.0.2.0/24; deny all;",
                "/",
            )
        },
    ]
}

fn methods() -> Vec<DirectiveCase> {
    vec![
        in_location(
            "methods are limited",
            "limit_except GET { deny all; }",
            "/ ; HEAD / ; POST / ; PUT / ; OPTIONS / ; DELETE /",
        ),
        in_location(
            "methods are limited for some addresses",
            "limit_except POST PUT { allow 127.0.0.1; deny all; } deny all;",
            "/ ; POST / ; PUT /",
        ),
        in_location(
            "methods that are unusual",
            "limit_except GET POST { allow 192.0.2.1; deny all; }",
            "/ ; POST / ; PATCH / ; PROPFIND / ; FOO /",
        ),
        DirectiveCase {
            response_fields: &["x-a"],
            ..in_location(
                "methods are limited, and a condition is true",
                "limit_except GET { deny all; } if ($arg_a) { add_header X-A b; }",
                "/?a=1 ; POST / ; POST /?a=1",
            )
        },
        in_location(
            "methods are limited, and a step returns",
            "limit_except GET { deny all; } if ($arg_a) { return 200 a; }",
            "/?a=1 ; HEAD /?a=1 ; POST /?a=1 ; POST /",
        ),
        in_location(
            "methods are limited, and the target is rewritten",
            "limit_except GET { deny all; } rewrite ^/a /b break;",
            "/a ; POST /a",
        ),
    ]
}

fn passwords() -> Vec<DirectiveCase> {
    let mut requests = vec!["/".to_owned(), "OPTIONS /".to_owned(), "HEAD /".to_owned()];
    for user in ["apr1", "md5", "sha256", "sha512", "sha", "ssha", "plain"] {
        requests.extend([login(&format!("{user}:secret")), login(&format!("{user}:Secret"))]);
    }
    for text in [
        "eve:secret",
        "colon:a",
        "twice:one",
        "twice:two",
        "junk:nonsense",
        "junk:",
        "empty:",
        "empty:a",
        ":secret",
        "plain",
    ] {
        requests.push(login(text));
    }
    requests.push(login("plain:secret").replace("Basic", "basic"));
    requests.extend(["Basic !!!", "Basic", "Bearer x"].map(|value| format!("/ | Authorization: {value}")));
    let colon = "colon:{SHA}3OptnM09ILoVSfbZtd3mB0IViII=\n";
    vec![
        DirectiveCase {
            objects: secret("users", &[("auth", USERS)]),
            files: vec![("users", USERS.to_owned())],
            response_fields: &["www-authenticate"],
            request_fields: &["authorization"],
            ..annotated(
                "passwords",
                &[("auth-type", "basic"), ("auth-secret", "users"), ("auth-realm", "The shop")],
                basic("The shop", "users"),
                &requests.join(" ; "),
            )
        },
        DirectiveCase {
            objects: secret("colon", &[("auth", colon)]),
            files: vec![("colon", colon.to_owned())],
            ..annotated(
                "a colon in a password",
                &[("auth-type", "basic"), ("auth-secret", "colon"), ("auth-realm", "The shop")],
                basic("The shop", "colon"),
                &[login("colon:a:b"), login("colon:a")].join(" ; "),
            )
        },
        DirectiveCase {
            objects: secret("map", &[("anna", "{PLAIN}secret"), ("ben", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=")]),
            files: vec![("map", "anna:{PLAIN}secret\nben:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n".to_owned())],
            response_fields: &["www-authenticate"],
            request_fields: &["authorization"],
            ..annotated(
                "users as keys, without a realm",
                &[("auth-type", "basic"), ("auth-secret", "one/map"), ("auth-secret-type", "auth-map")],
                basic("", "map"),
                &["/".to_owned(), login("anna:secret"), login("ben:secret"), login("ben:Secret")].join(" ; "),
            )
        },
    ]
}

/// Snippets act before the login, and also change responses to clients without one.
fn with_snippets() -> Vec<DirectiveCase> {
    let fields = "add_header X-A b always; if ($arg_a) { return 200 open; } if ($arg_b) { add_header X-B c always; }";
    let fields_lines = format!("{} {fields}", basic("Shop", "one-user"));
    let denying_lines = format!("deny all; {}", basic("Shop", "one-user"));
    let anna_with_parameter = login("anna:secret").replacen('/', "/?b=1", 1);
    let with = |more: &[(&'static str, &'static str)]| [&LOGIN[..], more].concat();
    vec![
        DirectiveCase {
            response_fields: &["www-authenticate", "x-a", "x-b"],
            ..with_user(annotated(
                "a snippet acts before the login, and on its refusal",
                &with(&[("configuration-snippet", fields)]),
                fields_lines,
                &["/", "/?a=1", "/?b=1", &anna_with_parameter, &login("anna:secret")].join(" ; "),
            ))
        },
        with_user(annotated(
            "rules of a snippet before a login",
            &with(&[("configuration-snippet", "deny all;")]),
            denying_lines.clone(),
            &logins(),
        )),
        // In Portico, a login does not replace the rules of a snippet.
        DirectiveCase {
            differences: &[("/", "403"), (LOGIN_OF_ANNA, "403"), (LOGIN_OF_EVE, "403")],
            ..with_user(annotated(
                "rules of a snippet or a login",
                &with(&[("configuration-snippet", "deny all;"), ("satisfy", "any")]),
                format!("satisfy any; {denying_lines}"),
                &logins(),
            ))
        },
    ]
}

fn satisfy() -> Vec<DirectiveCase> {
    let mut cases = Vec::new();
    for satisfy in ["any", "all"] {
        for (annotation, list, rules) in [
            ("allowlist-source-range", "127.0.0.0/8", "allow 127.0.0.0/8; deny all;"),
            ("allowlist-source-range", "192.0.2.0/24", "allow 192.0.2.0/24; deny all;"),
            ("denylist-source-range", "127.0.0.0/8", "deny 127.0.0.0/8;"),
            ("denylist-source-range", "192.0.2.0/24", "deny 192.0.2.0/24;"),
        ] {
            let name = format!("satisfy {satisfy}, with {annotation} {list}");
            let annotations = [&LOGIN[..], &[("satisfy", satisfy), (annotation, list)]].concat();
            let lines = format!("satisfy {satisfy}; {rules} {}", basic("Shop", "one-user"));
            cases.push(with_user(annotated(&name, &annotations, lines, &logins())));
        }
    }
    cases
}

/// The annotations for the Secret of [`with_user`].
pub(crate) const LOGIN: [(&str, &str); 3] =
    [("auth-type", "basic"), ("auth-secret", "one-user"), ("auth-realm", "Shop")];

/// Adds the Secret and the file with one user.
pub(crate) fn with_user(case: DirectiveCase) -> DirectiveCase {
    const USER: &str = "anna:{PLAIN}secret\n";
    let response_fields: &[&str] =
        if case.response_fields.is_empty() { &["www-authenticate"] } else { case.response_fields };
    DirectiveCase {
        objects: secret("one-user", &[("auth", USER)]),
        files: vec![("one-user", USER.to_owned())],
        response_fields,
        request_fields: &["authorization"],
        ..case
    }
}

/// The lines for a file of users.
pub(crate) fn basic(realm: &str, file: &str) -> String {
    format!("auth_basic \"{realm}\"; auth_basic_user_file {file}; proxy_set_header Authorization \"\";")
}

/// Requests without a login, with that of the user, and with that of another one.
pub(crate) fn logins() -> String {
    ["/", LOGIN_OF_ANNA, LOGIN_OF_EVE].join(" ; ")
}

/// With the password `secret`, which is that of anna.
const LOGIN_OF_ANNA: &str = "/ | Authorization: Basic YW5uYTpzZWNyZXQ=";
const LOGIN_OF_EVE: &str = "/ | Authorization: Basic ZXZlOnNlY3JldA==";

fn login(user: &str) -> String {
    format!("/ | Authorization: Basic {}", BASE64_STANDARD.encode(user))
}

fn secret(name: &str, data: &[(&str, &str)]) -> String {
    let mut yaml =
        format!("---\napiVersion: v1\nkind: Secret\nmetadata: {{ namespace: one, name: {name} }}\nstringData:\n");
    for (key, value) in data {
        // As Rust writes it, a text of ASCII is one of YAML, too.
        writeln!(yaml, "  {key}: {value:?}").expect("a string accepts all text");
    }
    yaml
}

/// As htpasswd and openssl write them. Most have the password `secret`.
const USERS: &str = "# users of the shop
apr1:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/
md5:$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1
sha256:$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.
sha512:$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG.:a comment
sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=
ssha:{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0
plain:{PLAIN}secret
colon:{PLAIN}a:b
empty:{PLAIN}
twice:{PLAIN}one
twice:{PLAIN}two
junk:nonsense
";
