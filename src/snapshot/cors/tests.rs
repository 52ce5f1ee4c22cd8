//! Every sentence of `gateway-api.md` §3.7 as a line of a table.

use super::*;

#[test]
fn origins_compare_by_scheme_host_and_port() {
    // (allowed, origin, whether it fits)
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
    for (allowed, origin, fits) in cases {
        let headers = [(ORIGIN, HeaderValue::from_str(origin).unwrap())].into_iter().collect();
        let granted = cors(allowed).actual(&headers);
        assert_eq!(!granted.fields.is_empty(), fits, "{allowed} and {origin}");
    }
}

#[test]
fn what_is_no_origin_is_not_one() {
    for text in ["", "a.example", "ftp://a.example", "https://", "https://a*b.example", "https://*b", "https://a:99999"]
    {
        assert_eq!(Origin::parse(text), None, "{text:?}");
    }
}

struct Case {
    says: &'static str,
    filter: Cors,
    /// Method, then fields.
    request: &'static str,
    answer: &'static str,
    becomes: &'static str,
}

#[test]
fn answers() {
    let full = || Cors {
        credentials: true,
        methods: list("PUT, DELETE"),
        headers: list("x-one, x-two"),
        expose: list("x-three"),
        max_age: HeaderValue::from(3600),
        ..cors("https://a.example")
    };
    let wild =
        |credentials| Cors { credentials, methods: List::Any, headers: List::Any, expose: List::Any, ..cors("*") };
    let preflight = "OPTIONS\norigin: https://a.example\naccess-control-request-method: PUT";
    let cases = [
        Case {
            says: "a preflight is told everything, what is exposed and for how long included",
            filter: full(),
            request: preflight,
            answer: "",
            becomes: "access-control-allow-credentials: true\naccess-control-allow-headers: x-one, x-two\n\
                      access-control-allow-methods: PUT, DELETE\naccess-control-allow-origin: https://a.example\n\
                      access-control-expose-headers: x-three\naccess-control-max-age: 3600\nvary: Origin",
        },
        Case {
            says: "a preflight of another origin is told nothing",
            filter: full(),
            request: "OPTIONS\norigin: https://b.example\naccess-control-request-method: PUT",
            answer: "",
            becomes: "vary: Origin",
        },
        Case {
            says: "without credentials there is no such field; the age is 5 seconds; nothing is allowed that was not said",
            filter: cors("https://a.example"),
            request: preflight,
            answer: "",
            becomes: "access-control-allow-origin: https://a.example\naccess-control-max-age: 5\nvary: Origin",
        },
        Case {
            says: "with stars what was asked for is allowed",
            filter: wild(false),
            request: "OPTIONS\norigin: https://a.example\naccess-control-request-method: PUT\n\
                      access-control-request-headers: x-a, x-b",
            answer: "",
            becomes: "access-control-allow-headers: x-a, x-b\naccess-control-allow-methods: PUT\n\
                      access-control-allow-origin: https://a.example\naccess-control-expose-headers: *\n\
                      access-control-max-age: 5\nvary: Origin",
        },
        Case {
            says: "with credentials there is never a star, and what was not asked for is left out",
            filter: wild(true),
            request: preflight,
            answer: "",
            becomes: "access-control-allow-credentials: true\naccess-control-allow-methods: PUT\n\
                      access-control-allow-origin: https://a.example\naccess-control-max-age: 5\nvary: Origin",
        },
        Case {
            says: "an actual request gets origin, credentials and what is exposed",
            filter: full(),
            request: "GET\norigin: https://a.example",
            answer: "x-three: 3",
            becomes: "access-control-allow-credentials: true\naccess-control-allow-origin: https://a.example\n\
                      access-control-expose-headers: x-three\nvary: Origin\nx-three: 3",
        },
        Case {
            says: "what the endpoint says about CORS is replaced, and what it says about caches stays",
            filter: cors("https://a.example"),
            request: "GET\norigin: https://a.example",
            answer: "access-control-allow-origin: *\naccess-control-allow-credentials: true\n\
                     access-control-max-age: 1\nvary: Accept",
            becomes: "access-control-allow-origin: https://a.example\nvary: Accept\nvary: Origin",
        },
        Case {
            says: "also for an origin that is not allowed, whatever the endpoint thinks of it",
            filter: full(),
            request: "GET\norigin: https://b.example",
            answer: "access-control-allow-origin: https://b.example",
            becomes: "vary: Origin",
        },
        Case {
            says: "who is no page of an origin gets no fields",
            filter: wild(true),
            request: "GET",
            answer: "a: b",
            becomes: "a: b\nvary: Origin",
        },
        Case {
            says: "exposing everything to requests with credentials means naming it",
            filter: wild(true),
            request: "GET\norigin: https://a.example",
            answer: "a: b\nx-c: d",
            becomes: "a: b\naccess-control-allow-credentials: true\naccess-control-allow-origin: https://a.example\n\
                      access-control-expose-headers: a, x-c\nvary: Origin\nx-c: d",
        },
        Case {
            says: "OPTIONS that asks for no method is a request like all",
            filter: full(),
            request: "OPTIONS\norigin: https://a.example",
            answer: "allow: GET",
            becomes: "access-control-allow-credentials: true\naccess-control-allow-origin: https://a.example\n\
                      access-control-expose-headers: x-three\nallow: GET\nvary: Origin",
        },
        Case {
            says: "OPTIONS of nobody, too",
            filter: full(),
            request: "OPTIONS\naccess-control-request-method: PUT",
            answer: "allow: GET",
            becomes: "allow: GET\nvary: Origin",
        },
    ];
    for case in cases {
        let (method, fields) = case.request.split_once('\n').unwrap_or((case.request, ""));
        let request = headers(fields);
        let grant = if is_preflight(&method.parse().unwrap(), &request) {
            case.filter.preflight(&request)
        } else {
            case.filter.actual(&request)
        };
        let mut answer = headers(case.answer);
        grant.apply(&mut answer);
        assert_eq!(text(&answer), case.becomes, "{}", case.says);
    }
}

fn cors(origin: &str) -> Cors {
    let origins = match origin {
        "*" => Origins::Any,
        origin => Origins::These([Origin::parse(origin).unwrap()].into()),
    };
    Cors {
        origins,
        credentials: false,
        methods: List::None,
        headers: List::None,
        expose: List::None,
        max_age: HeaderValue::from(5),
    }
}

fn list(text: &'static str) -> List {
    List::of(text.split(", ")).unwrap()
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
    /// Put together of what could pass for something else.
    #[test]
    fn only_what_is_allowed_is_granted(
        scheme in "https|HTTPS|http|ftp|",
        label in "[a-z.@]{0,4}",
        end in "\\.a\\.example|\\.A\\.EXAMPLE|a\\.example|\\.a\\.example\\.evil",
        port in "|:443|:80|:|:x",
        rest in "|/|\\?|#|@b",
    ) {
        let origin = format!("{scheme}://{label}{end}{port}{rest}");
        let allowed = scheme.eq_ignore_ascii_case("https")
            && !label.is_empty()
            && !label.contains('@')
            && format!("{label}{end}").to_lowercase().ends_with(".a.example")
            && format!("{label}{end}").len() > ".a.example".len()
            && matches!(port.as_str(), "" | ":443")
            && rest.is_empty();
        let headers = [(ORIGIN, HeaderValue::from_str(&origin).unwrap())].into_iter().collect();
        let granted = cors("https://*.a.example").actual(&headers);
        proptest::prop_assert_eq!(!granted.fields.is_empty(), allowed, "{}", origin);
    }

    #[test]
    fn any_origin_may_come(origin in proptest::collection::vec(32..255_u8, 0..30)) {
        let Ok(origin) = HeaderValue::from_bytes(&origin) else { return Ok(()) };
        let headers = [(ORIGIN, origin)].into_iter().collect();
        proptest::prop_assert!(cors("https://a.example").actual(&headers).fields.is_empty());
    }
}
