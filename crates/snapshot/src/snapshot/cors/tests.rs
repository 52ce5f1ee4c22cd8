//! The CORS rules of the Gateway API (GEP-1767), one case of a table each.

use super::*;

#[test]
fn origins_match_by_scheme_host_and_port() {
    // (allowed, origin, whether it matches)
    let cases = [
        ("https://a.example", "https://a.example", true),
        ("https://a.example", "HTTPS://A.Example", true),
        ("https://a.example", "http://a.example", false),
        ("https://a.example", "https://b.example", false),
        ("https://a.example", "https://a.example.evil", false),
        ("https://a.example", "https://a.example:443", true),
        ("https://a.example:443", "https://a.example", true),
        ("https://a.example", "https://a.example:8443", false),
        ("http://a.example", "http://a.example:80", true),
        ("http://a.example:8080", "http://a.example:8080", true),
        ("http://a.example:8080", "http://a.example", false),
        ("https://*.a.example", "https://b.a.example", true),
        ("https://*.a.example", "https://c.b.a.example", true),
        ("https://*.a.example", "https://a.example", false),
        ("https://*.a.example", "https://.a.example", false),
        ("https://*.a.example", "https://evila.example", false),
        ("https://*.a.example", "https://B.A.EXAMPLE", true),
        ("https://*.a.example", "https://b.a.example:8443", false),
        ("https://*.a.example:8443", "https://b.a.example:8443", true),
        ("https://*", "https://any.example", true),
        ("https://*", "https://localhost", true),
        ("https://*", "http://any.example", false),
        ("https://*:8443", "https://any.example:8443", true),
        ("https://*", "https://any.example:8443", false),
        ("http://a.example", "http://[::1]", false),
        ("http://*", "http://[::1]", true),
        ("http://*:8080", "http://[::1]:8080", true),
        ("https://*", "null", false),
        ("https://*", "https://a.example/path", false),
        ("https://*", "https://user@a.example", false),
        ("https://*", "https://", false),
        ("https://*", "https://é", false),
        ("*", "null", true),
        ("*", "http://anything:1", true),
    ];
    for (allowed, origin, matches) in cases {
        let headers = [(ORIGIN, HeaderValue::from_str(origin).unwrap())].into_iter().collect();
        let cors_headers = cors(allowed).actual_request(&headers);
        assert_eq!(!cors_headers.fields.is_empty(), matches, "{allowed} and {origin}");
    }
}

#[test]
fn invalid_origins_are_rejected() {
    for text in ["", "a.example", "ftp://a.example", "https://", "https://a*b.example", "https://*b", "https://a:99999"]
    {
        assert_eq!(OriginPattern::parse(text), None, "{text:?}");
    }
}

struct CorsCase {
    name: &'static str,
    filter: CorsFilter,
    /// Method, then headers.
    request: &'static str,
    response: &'static str,
    expected: &'static str,
}

#[test]
fn response_headers() {
    let full = || CorsFilter {
        credentials: true,
        methods: list("PUT, DELETE"),
        headers: list("x-one, x-two"),
        expose: list("x-three"),
        max_age: HeaderValue::from(3600),
        ..cors("https://a.example")
    };
    let wild = || CorsFilter { methods: CorsList::Any, headers: CorsList::Any, expose: CorsList::Any, ..cors("*") };
    let wild_with_credentials = || CorsFilter { credentials: true, ..wild() };
    let preflight = "OPTIONS\norigin: https://a.example\naccess-control-request-method: PUT";
    let cases = [
        CorsCase {
            name: "a preflight gets all headers, including Expose-Headers and Max-Age",
            filter: full(),
            request: preflight,
            response: "",
            expected: "access-control-allow-credentials: true\naccess-control-allow-headers: x-one, x-two\n\
                      access-control-allow-methods: PUT, DELETE\naccess-control-allow-origin: https://a.example\n\
                      access-control-expose-headers: x-three\naccess-control-max-age: 3600\nvary: Origin",
        },
        CorsCase {
            name: "a preflight of another origin gets no CORS headers",
            filter: full(),
            request: "OPTIONS\norigin: https://b.example\naccess-control-request-method: PUT",
            response: "",
            expected: "vary: Origin",
        },
        CorsCase {
            name: "defaults: no credentials, a max age of 5 seconds, no methods or headers",
            filter: cors("https://a.example"),
            request: preflight,
            response: "",
            expected: "access-control-allow-origin: https://a.example\naccess-control-max-age: 5\nvary: Origin",
        },
        CorsCase {
            name: "wildcards allow the requested method and headers",
            filter: wild(),
            request: "OPTIONS\norigin: https://a.example\naccess-control-request-method: PUT\n\
                      access-control-request-headers: x-a, x-b",
            response: "",
            expected: "access-control-allow-headers: x-a, x-b\naccess-control-allow-methods: PUT\n\
                      access-control-allow-origin: https://a.example\naccess-control-expose-headers: *\n\
                      access-control-max-age: 5\nvary: Origin",
        },
        CorsCase {
            name: "with credentials, * is never sent, and the allowed headers are omitted if none were requested",
            filter: wild_with_credentials(),
            request: preflight,
            response: "",
            expected: "access-control-allow-credentials: true\naccess-control-allow-methods: PUT\n\
                      access-control-allow-origin: https://a.example\naccess-control-max-age: 5\nvary: Origin",
        },
        CorsCase {
            name: "an actual request gets origin, credentials and exposed headers",
            filter: full(),
            request: "GET\norigin: https://a.example",
            response: "x-three: 3",
            expected: "access-control-allow-credentials: true\naccess-control-allow-origin: https://a.example\n\
                      access-control-expose-headers: x-three\nvary: Origin\nx-three: 3",
        },
        CorsCase {
            name: "CORS headers of the upstream are replaced, its Vary is kept",
            filter: cors("https://a.example"),
            request: "GET\norigin: https://a.example",
            response: "access-control-allow-origin: *\naccess-control-allow-credentials: true\n\
                     access-control-max-age: 1\nvary: Accept",
            expected: "access-control-allow-origin: https://a.example\nvary: Accept\nvary: Origin",
        },
        CorsCase {
            name: "CORS headers of the upstream are removed for an origin that is not allowed",
            filter: full(),
            request: "GET\norigin: https://b.example",
            response: "access-control-allow-origin: https://b.example",
            expected: "vary: Origin",
        },
        CorsCase {
            name: "a request without Origin gets no CORS headers",
            filter: wild_with_credentials(),
            request: "GET",
            response: "a: b",
            expected: "a: b\nvary: Origin",
        },
        CorsCase {
            name: "with credentials, exposing all headers lists their names",
            filter: wild_with_credentials(),
            request: "GET\norigin: https://a.example",
            response: "a: b\nx-c: d",
            expected: "a: b\naccess-control-allow-credentials: true\naccess-control-allow-origin: https://a.example\n\
                      access-control-expose-headers: a, x-c\nvary: Origin\nx-c: d",
        },
        CorsCase {
            name: "OPTIONS without Access-Control-Request-Method is an actual request",
            filter: full(),
            request: "OPTIONS\norigin: https://a.example",
            response: "allow: GET",
            expected: "access-control-allow-credentials: true\naccess-control-allow-origin: https://a.example\n\
                      access-control-expose-headers: x-three\nallow: GET\nvary: Origin",
        },
        CorsCase {
            name: "OPTIONS without Origin is an actual request, and gets no CORS headers",
            filter: full(),
            request: "OPTIONS\naccess-control-request-method: PUT",
            response: "allow: GET",
            expected: "allow: GET\nvary: Origin",
        },
    ];
    for case in cases {
        let (method, fields) = case.request.split_once('\n').unwrap_or((case.request, ""));
        let request = headers(fields);
        let cors_headers = if is_preflight(&method.parse().unwrap(), &request) {
            case.filter.preflight(&request)
        } else {
            case.filter.actual_request(&request)
        };
        let mut response = headers(case.response);
        cors_headers.apply(&mut response);
        assert_eq!(text(&response), case.expected, "{}", case.name);
    }
}

fn cors(origin: &str) -> CorsFilter {
    let origins = match origin {
        "*" => AllowedOrigins::Any,
        origin => AllowedOrigins::Listed([OriginPattern::parse(origin).unwrap()].into()),
    };
    CorsFilter {
        origins,
        credentials: false,
        methods: CorsList::Empty,
        headers: CorsList::Empty,
        expose: CorsList::Empty,
        max_age: HeaderValue::from(5),
    }
}

fn list(text: &'static str) -> CorsList {
    CorsList::from_names(text.split(", ")).unwrap()
}

fn headers(text: &str) -> HeaderMap {
    let fields = text.lines().map(|line| line.split_once(": ").unwrap());
    fields.map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
}

fn text(headers: &HeaderMap) -> String {
    let mut lines: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))).collect();
    lines.sort();
    lines.join("\n")
}

proptest::proptest! {
    /// The origins consist of parts that could be mistaken for one another.
    #[test]
    fn only_allowed_origins_get_cors_headers(
        scheme in "https|HTTPS|http|ftp|",
        label in "[a-z.@]{0,4}",
        suffix in "\\.a\\.example|\\.A\\.EXAMPLE|a\\.example|\\.a\\.example\\.evil",
        port in "|:443|:80|:|:x",
        rest in "|/|\\?|#|@b",
    ) {
        let origin = format!("{scheme}://{label}{suffix}{port}{rest}");
        let allowed = scheme.eq_ignore_ascii_case("https")
            && !label.is_empty()
            && !label.contains('@')
            && format!("{label}{suffix}").to_lowercase().ends_with(".a.example")
            && format!("{label}{suffix}").len() > ".a.example".len()
            && matches!(port.as_str(), "" | ":443")
            && rest.is_empty();
        let headers = [(ORIGIN, HeaderValue::from_str(&origin).unwrap())].into_iter().collect();
        let cors_headers = cors("https://*.a.example").actual_request(&headers);
        proptest::prop_assert_eq!(!cors_headers.fields.is_empty(), allowed, "{}", origin);
    }

    #[test]
    fn arbitrary_origins_do_not_panic(origin in proptest::collection::vec(32..255_u8, 0..30)) {
        let Ok(origin) = HeaderValue::from_bytes(&origin) else { return Ok(()) };
        let headers = [(ORIGIN, origin)].into_iter().collect();
        proptest::prop_assert!(cors("https://a.example").actual_request(&headers).fields.is_empty());
    }
}
