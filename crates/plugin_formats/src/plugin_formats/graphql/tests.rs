//! Tests of the grammar, its limits, and of requests.

use std::fmt::Write;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use serde_json::json;

use super::document::GraphqlDocument;
use super::*;

fn parse(text: &str) -> Result<GraphqlDocument<'_>, DocumentError> {
    GraphqlDocument::parse(text, &DocumentLimits::USUAL)
}

fn checked(text: &str) -> Result<CheckedDocument<'_>, DocumentError> {
    CheckedDocument::parse(text, &DocumentLimits::USUAL)
}

// GraphQL specification, section 2
#[test]
fn documents_of_the_specification_are_parsed() {
    for text in [
        "{ field }",
        "query { field }",
        "\u{feff}{a,b,,c # comment }\n}",
        "query Named($a: Int = 3 @d, $b: [[String!]!]! = [[\"x\"]], $c: Input = {a: 1 b: {c: [RED, null]}}) { a }",
        "mutation { likeStory(storyID: 12345) { story { likeCount } } }",
        "subscription S @live(if: $x) { a }",
        "{ small: picture(size: 64) @include(if: $a) @skip(if: false) big: picture(size: -1.5e+3) }",
        "query q { user(id: 4) { ...f ... on User @x { id } ... @include(if: true) { a } ... { b } } } \
         fragment f on User @y { name }",
        "{ a(text: \"\\u00e9\\u{1F600}\\uD83D\\uDE00\\n\\/\" block: \"\"\"\n    one \\\"\"\"\n      two\n  \"\"\" e: \"\") }",
        "query query { query: query on fragment(on: true) null: true }",
    ] {
        assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
    }
    for text in [
        "",
        "# nothing",
        "{}",
        "{ a() }",
        "query ($a: Int, $a: Int) { a }",
        "query () { a }",
        "{ } a }",
        "query () $a: Int) { a }",
        "{ a() b: 1) }",
        "{ a } { b }",
        "query a { a } query a { b }",
        "query a { a } { b }",
        "fragment f on T { a }",
        "{ a } fragment on on T { a }",
        "{ a } fragment f on T { a } fragment f on T { a }",
        "{ a(b: 1, b: 2) }",
        "{ a(b: {c: 1, c: 2}) }",
        "query ($a: Int = $b) { a }",
        "{ a(b: 01) }",
        "{ a(b: 0x1) }",
        "{ a(b: 1.) }",
        "{ a(b: 1.5.2) }",
        "{ a(b: -) }",
        "{ a(b: \"x\n\") }",
        "{ a(b: \"\\x\") }",
        "{ a(b: \"\\uD800\") }",
        "{ a(b: \"\\u{110000}\") }",
        "{ a(b: \"\\u{}\") }",
        "{ a(b: \"\\u{é}\") }",
        "{ a(b: \"\u{1}\") }",
        "{ a(b: \"\"\"x\"\") }",
        "{ a .. b }",
        "{ a } }",
        "{ a",
        "{ a: }",
        "{ é }",
        "{ a(b: é) }",
        "type Query { a: Int }",
        "{ a } extend type Query { b: Int }",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn values_have_their_meaning() {
    let text = "{ a(i: -12, f: 1e3, s: \"\\u0041\\t\", e: RED, v: $v, b: \"\"\"\n    one\n\n      two\n    \"\"\") }";
    let document = parse(text).unwrap();
    let Selection::Field(field) = &document.operations[0].selections[0] else { panic!("{document:?}") };
    let values: Vec<_> = field.arguments.iter().map(|argument| argument.value.clone()).collect();
    let expected = [
        GraphqlValue::Int("-12"),
        GraphqlValue::Float("1e3"),
        GraphqlValue::Text("A\t".into()),
        GraphqlValue::Enum("RED"),
        GraphqlValue::Variable("v"),
        GraphqlValue::Text("one\n\n  two".into()),
    ];
    assert_eq!(values, expected);
    let error = parse("{\n a(b: ]) }").unwrap_err().to_string();
    assert_eq!(error, "line 2: \"]\" is in the place of a value");
}

#[test]
fn texts_beyond_a_limit_are_rejected() {
    let nested = |levels: usize| format!("{} b{}", "{a".repeat(levels), "}".repeat(levels));
    assert!(checked(&nested(64)).is_ok());
    let values = |levels: usize| format!("{{ a(b: {}1{}) }}", "[".repeat(levels), "]".repeat(levels));
    assert!(checked(&values(60)).is_ok());
    let aliases = |count: usize| (0..count).fold("{".to_owned(), |text, index| text + &format!(" a{index}: a")) + "}";
    assert!(checked(&aliases(1000)).is_ok());
    let chain = |count: usize| {
        let mut text = "{ ...f0 }".to_owned();
        for index in 0..count {
            write!(text, " fragment f{index} on T {{ ...f{} }}", index + 1).unwrap();
        }
        text + &format!(" fragment f{count} on T {{ a }}")
    };
    assert!(checked(&chain(50)).is_ok());
    for (text, message) in [
        (nested(65), "too deep"),
        (nested(5000), "too deep"),
        (values(5000), "too deep"),
        (format!("query ($a: {}Int) {{ a }}", "[".repeat(5000)), "too deep"),
        (aliases(1001), "too many aliases"),
        (chain(70), "too deep"),
        (chain(300), "too many fragments"),
        (format!("{{ {} }}", "a ".repeat(10_000)), "too many tokens"),
        (format!("{{ a #{}\n }}", "x".repeat(300_000)), "longer than 262144 bytes"),
    ] {
        let error = checked(&text).unwrap_err().to_string();
        assert!(error.contains(message), "{message}: {error}");
    }
}

#[test]
fn fragments_must_exist_and_end() {
    for (text, message) in [
        ("{ ...a } fragment a on T { ...a }", "a contains itself"),
        ("{ ...a } fragment a on T { x { ...b } } fragment b on T { ... on U { ...a } }", "contains itself"),
        ("{ x } fragment a on T { ...b } fragment b on T { ...a }", "contains itself"),
        ("{ ...a }", "the fragment a of a spread does not exist"),
    ] {
        assert!(checked(text).unwrap_err().to_string().contains(message), "{text}");
    }
    // Each fragment contains the next one twice: 2^50 fields, of which none is visited twice.
    let mut bomb = "{ ...f0 }".to_owned();
    for index in 0..50 {
        write!(bomb, " fragment f{index} on T {{ ...f{0} ...f{0} }}", index + 1).unwrap();
    }
    bomb += " fragment f50 on T { a }";
    assert!(checked(&bomb).is_ok());
}

#[test]
fn operations_are_found_by_name() {
    let document = checked("query a { x } mutation b { y }").unwrap();
    assert_eq!(document.operation(Some("b")).unwrap().kind, OperationKind::Mutation);
    assert!(document.operation(None).is_err());
    assert!(document.operation(Some("c")).is_err());
    let document = checked("{ x }").unwrap();
    assert_eq!(document.operation(None).unwrap().kind, OperationKind::Query);
    assert!(document.operation(Some("")).is_err());
}

#[test]
fn normalized_texts_keep_what_has_a_meaning() {
    let of = |text: &str| normalized(text, &DocumentLimits::USUAL).unwrap();
    assert_eq!(of("{ a,b # c\n\n(c:\"x  y\") }"), "{ a b ( c : \"x  y\" ) }");
    assert_eq!(of("{a b(c:\"x  y\")}"), of("{ a,b # c\n\n(c:\"x  y\") }"));
    assert_ne!(of("{a b}"), of("{ab}"));
}

fn read(method: &Method, target_query: Option<&str>, content_type: &str, body: &str) -> Result<GraphqlRequest, u16> {
    let mut headers = HeaderMap::new();
    if !content_type.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
    }
    GraphqlRequest::read(method, target_query, &headers, body.as_bytes()).map_err(|error| error.status.as_u16())
}

#[test]
fn requests_are_read_from_query_and_body() {
    let json = "application/json; charset=utf-8";
    let expected = GraphqlRequest {
        query: "{a}".to_owned(),
        operation_name: Some("n".to_owned()),
        variables: json!({"v": [1, {"w": null}]}).as_object().unwrap().clone(),
        has_other_members: false,
    };
    let body = r#"{"query": "{a}", "operationName": "n", "variables": {"v": [1, {"w": null}]}, "extensions": {}}"#;
    assert_eq!(read(&Method::POST, Some("x=1"), json, body).as_ref(), Ok(&expected));
    let query = "query=%7Ba%7D&operationName=n&variables=%7B%22v%22%3A[1,%7B%22w%22:null%7D]%7D&x=1";
    assert_eq!(read(&Method::GET, Some(query), "", "").as_ref(), Ok(&expected));
    let text = GraphqlRequest { operation_name: None, variables: serde_json::Map::new(), ..expected };
    assert_eq!(read(&Method::POST, None, "application/graphql", "{a}").as_ref(), Ok(&text));
    assert_eq!(read(&Method::POST, None, json, r#"{"query": "{a}", "variables": null}"#).as_ref(), Ok(&text));
    for member in [r#""documentId": "other""#, r#""extensions": {"persistedQuery": {}}"#] {
        let body = format!(r#"{{"query": "{{a}}", {member}}}"#);
        assert!(read(&Method::POST, None, json, &body).unwrap().has_other_members, "{member}");
    }
}

/// Servers disagree on what such requests ask for, so that a check of one reading could be avoided.
#[test]
fn ambiguous_requests_are_rejected() {
    let json = "application/json";
    let good = r#"{"query": "{a}"}"#;
    for (method, query, kind, body, status) in [
        (Method::POST, Some("query={b}"), json, good, 400),
        (Method::POST, Some("OperationName=b"), json, good, 400),
        (Method::POST, None, json, r#"[{"query": "{a}"}]"#, 400),
        (Method::POST, None, json, r#"{"query": "{a}", "query": "{b}"}"#, 400),
        (Method::POST, None, json, r#"{"query": "{a}", "Query": "{b}"}"#, 400),
        (Method::POST, None, json, r#"{"query": "{a}", "variables": {"n": 1, "n": 9}}"#, 400),
        (Method::POST, None, json, r#"{"query": "{a}", "variables": []}"#, 400),
        (Method::POST, None, json, r#"{"query": ["{a}"]}"#, 400),
        (Method::POST, None, json, r#"{"extensions": {"persistedQuery": {"sha256Hash": "x"}}}"#, 400),
        (Method::POST, None, json, "", 400),
        (Method::POST, None, json, "7", 400),
        (Method::POST, None, "application/json; charset=utf-16", good, 415),
        (Method::POST, None, "multipart/form-data; boundary=x", good, 415),
        (Method::POST, None, "", good, 415),
        (Method::GET, None, "", "", 400),
        (Method::GET, Some("query={a}&query={b}"), "", "", 400),
        (Method::GET, Some("query={a}&QUERY={b}"), "", "", 400),
        (Method::GET, Some("query=%ff"), "", "", 400),
        (Method::GET, Some("query={a}&variables=7"), "", "", 400),
        (Method::GET, Some("query={a}"), json, good, 400),
        (Method::PUT, None, json, good, 405),
    ] {
        assert_eq!(read(&method, query, kind, body), Err(status), "{method} {query:?} {kind} {body}");
    }
    let headers = [(CONTENT_TYPE, json), (CONTENT_ENCODING, "gzip")];
    let headers = headers.map(|(name, value): (HeaderName, _)| (name, HeaderValue::from_static(value)));
    let compressed = GraphqlRequest::read(&Method::POST, None, &headers.into_iter().collect(), good.as_bytes());
    assert_eq!(compressed.unwrap_err().status.as_u16(), 415);
}

proptest! {
    /// Any sequence of pieces of the language has a result, and the normalized form of an accepted document is accepted
    /// and stays the same.
    #[test]
    fn any_text_has_a_result(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..60)) {
        let text = pieces.concat();
        if let Ok(document) = checked(&text) {
            prop_assert!(!document.operations().is_empty());
            let short = normalized(&text, &DocumentLimits::USUAL).unwrap();
            prop_assert_eq!(&normalized(&short, &DocumentLimits::USUAL).unwrap(), &short);
            let again = checked(&short);
            prop_assert!(again.is_ok(), "{} {:?}", short, again);
        }
    }

    #[test]
    fn any_characters_have_a_result(text in "\\PC{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(checked(&text));
        let lossy = String::from_utf8_lossy(&bytes);
        drop(checked(&lossy));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        drop(GraphqlRequest::read(&Method::POST, None, &headers, &bytes));
        drop(GraphqlRequest::read(&Method::GET, Some(&text), &headers, &[]));
    }
}

const PIECES: &[&str] = &[
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ":",
    "$",
    "!",
    "=",
    "@",
    "...",
    " ",
    "\n",
    ",",
    "#c\n",
    "a",
    "b",
    "on",
    "query",
    "mutation",
    "fragment",
    "1",
    "-0.5e3",
    "\"",
    "\"\"\"",
    "\\u0041",
    "\\",
    "true",
    "null",
    "T",
    "é",
    "{ a }",
    "{ ...f }",
    "fragment f on T { a ...g }",
    "fragment g on T { b }",
    "(x: 1)",
    "query Q($v: [Int!]! = [1]) { a }",
];
