//! Ingresses and requests whose responses are compared, and where Traefik differs from ingress-nginx.

/// An Ingress with a host of its own, and perhaps its canary.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) path: &'static str,
    /// The path of requests that name none.
    pub(super) requested: &'static str,
    /// Whether the host has TLS, with the default certificate.
    pub(super) has_tls: bool,
    pub(super) annotations: &'static [(&'static str, &'static str)],
    /// Those of the canary. Without any, there is none.
    pub(super) canary: &'static [(&'static str, &'static str)],
    /// Arguments of curl; the first one may be a path.
    pub(super) requests: &'static [&'static [&'static str]],
}

const ROOT: Case =
    Case { name: "", path: "/", requested: "/", has_tls: false, annotations: &[], canary: &[], requests: &[] };

pub(super) const CASES: &[Case] = &[
    Case {
        name: "cors-any",
        annotations: &[("enable-cors", "true")],
        requests: &[
            &[],
            &["--header", "Origin: https://a.example"],
            &["--request", "OPTIONS", "--header", "Origin: https://a.example"],
            &["--request", "OPTIONS"],
        ],
        ..ROOT
    },
    Case {
        name: "cors-list",
        annotations: &[
            ("enable-cors", "true"),
            ("cors-allow-origin", "https://a.example, https://*.b.example:8443"),
            ("cors-allow-credentials", "false"),
            ("cors-allow-methods", "GET, PUT"),
            ("cors-allow-headers", "X-One, X-Two"),
            ("cors-expose-headers", "X-Three"),
            ("cors-max-age", "60"),
        ],
        requests: &[
            &["--header", "Origin: https://a.example"],
            &["--header", "Origin: https://c.b.example:8443"],
            &["--header", "Origin: https://c.b.example"],
            &["--header", "Origin: https://d.c.b.example:8443"],
            &["--header", "Origin: https://evil.example"],
            &["--request", "OPTIONS", "--header", "Origin: https://a.example"],
            &["--request", "OPTIONS", "--header", "Origin: https://evil.example"],
        ],
        ..ROOT
    },
    Case {
        name: "canary-header",
        canary: &[("canary", "true"), ("canary-by-header", "X-Canary")],
        requests: &[
            &[],
            &["--header", "X-Canary: always"],
            &["--header", "X-Canary: never"],
            &["--header", "X-Canary: perhaps"],
        ],
        ..ROOT
    },
    Case {
        name: "canary-header-value",
        canary: &[("canary", "true"), ("canary-by-header", "X-Canary"), ("canary-by-header-value", "blue")],
        requests: &[
            &["--header", "X-Canary: blue"],
            &["--header", "X-Canary: Blue"],
            &["--header", "X-Canary: always"],
            &[],
        ],
        ..ROOT
    },
    Case {
        name: "canary-header-pattern",
        canary: &[("canary", "true"), ("canary-by-header", "X-Canary"), ("canary-by-header-pattern", "^b[lu]+e$")],
        requests: &[&["--header", "X-Canary: blue"], &["--header", "X-Canary: green"]],
        ..ROOT
    },
    Case {
        name: "canary-cookie",
        canary: &[("canary", "true"), ("canary-by-cookie", "canary")],
        requests: &[&[], &["--cookie", "canary=always"], &["--cookie", "canary=never"], &["--cookie", "canary=x"]],
        ..ROOT
    },
    Case {
        name: "canary-all",
        canary: &[("canary", "true"), ("canary-weight", "100")],
        requests: &[&[], &["/other"]],
        ..ROOT
    },
    Case {
        name: "canary-none",
        canary: &[("canary", "true"), ("canary-weight", "0")],
        requests: &[&[], &["/other"]],
        ..ROOT
    },
    Case {
        name: "canary-total",
        canary: &[("canary", "true"), ("canary-weight", "1000"), ("canary-weight-total", "1000")],
        requests: &[&[]],
        ..ROOT
    },
    Case {
        name: "canary-order",
        canary: &[
            ("canary", "true"),
            ("canary-by-header", "X-Canary"),
            ("canary-by-cookie", "canary"),
            ("canary-weight", "0"),
        ],
        requests: &[
            &["--header", "X-Canary: never", "--cookie", "canary=always"],
            &["--header", "X-Canary: x", "--cookie", "canary=always"],
        ],
        ..ROOT
    },
    Case { name: "session", annotations: &[("affinity", "cookie")], requests: &[&[], &["/other"]], ..ROOT },
    Case {
        name: "session-named",
        annotations: &[
            ("affinity", "cookie"),
            ("session-cookie-name", "route"),
            ("session-cookie-max-age", "600"),
            ("session-cookie-path", "/shop"),
            ("session-cookie-samesite", "Lax"),
            ("session-cookie-secure", "true"),
        ],
        requests: &[&[]],
        ..ROOT
    },
    Case { name: "tls", has_tls: true, requests: &[&[], &["/a/b?c=d"], &["/a/"]], ..ROOT },
    Case {
        name: "tls-off",
        has_tls: true,
        annotations: &[("ssl-redirect", "false")],
        requests: &[&[], &["/a/b?c=d"]],
        ..ROOT
    },
    Case {
        name: "tls-forced",
        annotations: &[("force-ssl-redirect", "true")],
        requests: &[&[], &["/a/b?c=d"]],
        ..ROOT
    },
    Case {
        name: "rewritten",
        path: "/something(/|$)(.*)",
        requested: "/something",
        annotations: &[("rewrite-target", "/$2"), ("use-regex", "true")],
        requests: &[&["/something"], &["/something/"], &["/something/new?x=1"], &["/somethingnew"]],
        ..ROOT
    },
    Case {
        name: "moved",
        annotations: &[("permanent-redirect", "https://new.example/there")],
        requests: &[&[], &["/a?b=c"]],
        ..ROOT
    },
    Case {
        name: "moved-code",
        annotations: &[("permanent-redirect", "https://new.example/"), ("permanent-redirect-code", "308")],
        requests: &[&[]],
        ..ROOT
    },
    Case {
        name: "moved-away",
        annotations: &[("temporal-redirect", "https://new.example/there")],
        requests: &[&[]],
        ..ROOT
    },
    Case {
        name: "start-page",
        annotations: &[("app-root", "/app")],
        requests: &[&["/"], &["/app"], &["/other"]],
        ..ROOT
    },
    Case {
        name: "listed",
        annotations: &[("whitelist-source-range", "127.0.0.0/8")],
        requests: &[&[], &["--header", "X-Forwarded-For: 192.0.2.1"]],
        ..ROOT
    },
    Case {
        name: "unlisted",
        annotations: &[("whitelist-source-range", "192.0.2.0/24")],
        requests: &[&[], &["--header", "X-Forwarded-For: 192.0.2.1"]],
        ..ROOT
    },
];

/// Requests with different responses: the case, the index of the request, and why. The snippet with which ingress-nginx
/// adds CORS, and its code for redirects, are public; Portico does what they do.
pub(super) const DIFFERENCES: &[(&str, usize, &str)] = &[
    ("cors-any", 0, ALL_FIELDS),
    ("cors-any", 1, ALL_FIELDS),
    ("cors-any", 2, ANY_OPTIONS),
    ("cors-any", 3, ANY_OPTIONS),
    ("cors-list", 0, ALL_FIELDS),
    ("cors-list", 1, ALL_FIELDS),
    ("cors-list", 2, NO_FIELDS),
    ("cors-list", 3, NO_FIELDS),
    ("cors-list", 4, NO_FIELDS),
    ("cors-list", 5, ANY_OPTIONS),
    ("cors-list", 6, NO_FIELDS),
    ("tls", 0, SLASH),
    ("tls", 2, SLASH),
    ("tls-forced", 0, SLASH),
];

const ALL_FIELDS: &str = "ingress-nginx adds all fields to each response; Traefik only those that it needs";
const ANY_OPTIONS: &str = "ingress-nginx responds to OPTIONS itself, also without Access-Control-Request-Method";
const NO_FIELDS: &str = "ingress-nginx adds no field for other origins; Traefik adds those to expose";
const SLASH: &str = "ingress-nginx cuts a slash at the end, without preserve-trailing-slash";
