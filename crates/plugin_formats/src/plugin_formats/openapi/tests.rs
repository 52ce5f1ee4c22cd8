//! Tests of documents, of the precedence of paths, and of the styles of parameters.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::parameter::{ParameterForm, Style, cookie_fields, query_fields};
use super::shape::Shape;
use super::*;

const YAML: &str = "openapi: 3.1.0\npaths:\n  /a:\n    parameters: [{name: p, in: query}]\n    get:\n      parameters: \
                    [{$ref: '#/components/parameters/q'}]\n      responses: {200: {description: ok}}\n    post: \
                    {responses: {default: {description: ok}}}\ncomponents:\n  parameters:\n    q: \
                    {name: q, in: query}\n";

#[test]
fn documents_are_json_or_yaml() {
    let encoded: String = YAML.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for (text, is_encoded) in [(YAML, true), (YAML, false), (encoded.as_str(), true)] {
        let document = ApiDocument::parse("api_spec", text, is_encoded).unwrap();
        assert_eq!(document.version, OpenApiVersion::V31);
        let operations = operations("api_spec", &document).unwrap();
        let found: Vec<_> = operations
            .iter()
            .map(|operation| {
                let names = operation.parameters.iter().map(|parameter| parameter["name"].as_str().unwrap());
                (operation.method.as_str(), operation.path, names.collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(found, [("GET", "/a", vec!["q", "p"]), ("POST", "/a", vec!["p"])]);
        assert!(operations[0].value.pointer("/responses/200").is_some(), "a number is a key");
    }
}

/// YAML 1.2, section 10.3.2: the country code of Norway and the name of a coordinate are no booleans.
#[test]
fn only_true_and_false_are_booleans() {
    let text = "openapi: 3.1.0\npaths: {/a: {get: {x-words: [NO, on, yes, n, true], x-names: {x: 1, y: 2, off: 3}}}}";
    let document = ApiDocument::parse("api_spec", text, false).unwrap();
    let operations = operations("api_spec", &document).unwrap();
    assert_eq!(operations[0].value["x-words"], serde_json::json!(["NO", "on", "yes", "n", true]));
    assert_eq!(operations[0].value["x-names"], serde_json::json!({"x": 1, "y": 2, "off": 3}));
}

#[test]
fn invalid_documents_are_rejected() {
    for (text, message) in [
        ("", "is missing"),
        ("openapi: [", "is neither valid JSON nor valid YAML"),
        ("{\"a\": 1}", "is no OpenAPI document"),
        ("openapi: 4.0.0\npaths: {}", "has the version \"4.0.0\""),
        ("swagger: '1.2'\npaths: {}", "has the version \"1.2\""),
        ("openapi: 3.0.0\npaths: []", "has paths that are no object"),
        ("openapi: 3.0.0\npaths: {}", "has no operations"),
        ("openapi: 3.0.0\npaths: {a: {get: {}}}", "#/paths/a does not begin with a slash"),
        ("openapi: 3.0.0\npaths: {/a: {$ref: 'other.yaml'}}", "other documents are never fetched"),
        ("openapi: 3.0.0\npaths: {/a: {get: {parameters: [{$ref: '#/b'}]}}}", "which does not exist"),
        ("openapi: 3.0.0\npaths: {/a: {get: {parameters: [{in: query}]}}}", "without in or name"),
        ("openapi: 3.0.0\npaths: {/a: {get: {parameters: [{$ref: '#/paths/~1a/get/parameters/0'}]}}}", "itself"),
    ] {
        let found = match ApiDocument::parse("api_spec", text, false) {
            Ok(document) => operations("api_spec", &document).map(|_| ()).map_err(|mut errors| errors.remove(0)),
            Err(error) => Err(error),
        };
        let error = found.expect_err(text);
        assert!(error.field == "config.api_spec" && error.message.contains(message), "{text}: {error:?}");
    }
    // Aliases count as what they stand for.
    let mut bomb = "openapi: 3.0.0\na0: &a0 [x]\n".to_owned();
    for level in 1..24 {
        let before = level - 1;
        bomb += &format!("a{level}: &a{level} [*a{before}, *a{before}]\n");
    }
    assert!(ApiDocument::parse("api_spec", &bomb, false).is_err());
}

#[test]
fn base_paths_are_those_of_servers() {
    for (document, expected) in [
        ("openapi: 3.0.0\npaths: {}", vec![""]),
        ("openapi: 3.0.0\nservers: [{url: 'https://a.example/v1/'}, {url: /v2}]\npaths: {}", vec!["/v1", "/v2"]),
        (
            "openapi: 3.0.0\nservers: [{url: 'https://{h}/{v}', variables: {v: {default: v3}, h: {default: a}}}]",
            vec!["/v3"],
        ),
        ("openapi: 3.0.0\nservers: [{url: 'https://a.example'}]", vec![""]),
        ("swagger: '2.0'\nbasePath: /api", vec!["/api"]),
    ] {
        assert_eq!(base_paths(&ApiDocument::parse("a", document, false).unwrap()), expected, "{document}");
    }
}

#[test]
fn concrete_paths_take_precedence() {
    let paths = [
        "/pets/{id}",
        "/pets/mine",
        "/pets/{id}/toys/{toy}",
        "/pets/mine/toys/ball",
        "/files/{name}.json",
        "/files/{name}",
        "/files/{a}-{b}.json",
        "/",
        "/{any}/b",
    ];
    let paths = paths.map(str::to_owned);
    let (index, names) = ApiPathIndex::build("api_spec", &paths).unwrap();
    assert_eq!(names[2], ["id", "toy"]);
    for (path, expected) in [
        ("/pets/mine", Some((1, vec![]))),
        ("/pets/7", Some((0, vec!["7"]))),
        ("/pets/mine/toys/ball", Some((3, vec![]))),
        // A concrete segment that leads to no path is not a dead end.
        ("/pets/mine/toys/bone", Some((2, vec!["mine", "bone"]))),
        ("/pets/b", Some((0, vec!["b"]))),
        ("/files/a.json", Some((4, vec!["a"]))),
        ("/files/a-b-c.json", Some((6, vec!["a", "b-c"]))),
        ("/files/.json", Some((5, vec![".json"]))),
        ("/files/a", Some((5, vec!["a"]))),
        ("/", Some((7, vec![]))),
        ("/x/b", Some((8, vec!["x"]))),
        ("/pets/", None),
        ("/pets", None),
        ("/pets/7/", None),
        ("", None),
    ] {
        let found = index.find(path).into_iter().next().map(|found| (found.path, found.values));
        assert_eq!(found, expected, "{path}");
    }
    for path in ["/{a}{b}", "/{", "/a}", "/{}", "/{a}/{a}"] {
        assert!(ApiPathIndex::build("api_spec", &[path.to_owned()]).is_err(), "{path}");
    }
}

fn form(style: Style, explode: bool, schema: &Value) -> ParameterForm {
    let document = ApiDocument { version: OpenApiVersion::V31, root: Value::Null };
    ParameterForm { name: "color".to_owned(), style, explode, shape: Shape::of(&document, schema) }
}

/// The table of `OpenAPI` 3.1, section 4.8.12.4.
#[test]
fn styles_write_arrays_and_objects() {
    use Style::{DeepObject, Form, Label, Matrix, PipeDelimited, Simple, SpaceDelimited};
    let text = json!({"type": "string"});
    let list = json!({"type": "array", "items": {"type": "string"}});
    let map = json!({"type": "object", "properties": {"R": {"type": "integer"}, "G": {"type": "integer"}}});
    let (blue, colors, rgb) = (json!("blue"), json!(["blue", "black"]), json!({"R": 100, "G": 200}));
    for (style, explode, schema, input, expected) in [
        (Matrix, false, &text, ";color=blue", &blue),
        (Matrix, false, &list, ";color=blue,black", &colors),
        (Matrix, false, &map, ";color=R,100,G,200", &rgb),
        (Matrix, true, &list, ";color=blue;color=black", &colors),
        (Matrix, true, &map, ";R=100;G=200", &rgb),
        (Label, false, &text, ".blue", &blue),
        (Label, false, &list, ".blue,black", &colors),
        (Label, true, &list, ".blue.black", &colors),
        (Label, false, &map, ".R,100,G,200", &rgb),
        (Label, true, &map, ".R=100.G=200", &rgb),
        (Simple, false, &text, "blue", &blue),
        (Simple, false, &list, "blue,black", &colors),
        (Simple, false, &map, "R,100,G,200", &rgb),
        (Simple, true, &map, "R=100,G=200", &rgb),
    ] {
        assert_eq!(form(style, explode, schema).values_of_text(input, true).first(), Some(expected), "{input}");
    }
    for (style, explode, schema, input, expected) in [
        (Form, false, &text, "color=blue", &blue),
        (Form, false, &list, "color=blue,black", &colors),
        (Form, true, &list, "color=blue&color=black", &colors),
        (Form, false, &map, "color=R,100,G,200", &rgb),
        (Form, true, &map, "R=100&G=200", &rgb),
        (SpaceDelimited, false, &list, "color=blue%20black", &colors),
        (PipeDelimited, false, &list, "color=blue%7Cblack", &colors),
        (DeepObject, true, &map, "color[R]=100&color%5BG%5D=200", &rgb),
    ] {
        let fields = query_fields(input).unwrap();
        let found = form(style, explode, schema).values_of_fields(&fields, &|_| false);
        assert_eq!(found.as_deref().and_then(<[_]>::first), Some(expected), "{input}");
    }
    for input in ["blue", ";size=blue"] {
        assert_eq!(form(Matrix, false, &text).values_of_text(input, true), Vec::<Value>::new(), "{input}");
    }
    let absent = form(Form, true, &text).values_of_fields(&query_fields("a=b").unwrap(), &|_| false);
    assert_eq!(absent, None);
    assert_eq!(query_fields("a=%ff"), None);
    assert_eq!(query_fields(&"a&".repeat(1001)), None);
}

/// A client could write what an endpoint reads after the parts that are checked.
#[test]
fn values_with_too_many_parts_are_not_read_in_part() {
    use Style::{DeepObject, Form, Label, Matrix, PipeDelimited, Simple, SpaceDelimited};
    let list = json!({"type": "array", "items": {"type": "string"}});
    let map = json!({"type": "object", "properties": {"R": {"type": "integer"}}});
    for (count, is_read) in [(1000, true), (1002, false)] {
        let parts = |delimiter: &str| vec!["7"; count].join(delimiter);
        let pairs = |delimiter: &str| vec!["a=7"; count].join(delimiter);
        for (style, explode, schema, input) in [
            (Simple, false, &list, parts(",")),
            (Simple, false, &map, parts(",")),
            (Simple, true, &map, pairs(",")),
            (Label, true, &list, format!(".{}", parts("."))),
            (Matrix, false, &list, format!(";color={}", parts(","))),
            (Matrix, false, &map, format!(";color={}", parts(","))),
            (Matrix, true, &list, format!(";{}", vec!["color=7"; count].join(";"))),
            (Matrix, true, &map, format!(";{}", pairs(";"))),
        ] {
            let values = form(style, explode, schema).values_of_text(&input, true);
            assert_eq!(values.len(), usize::from(is_read), "{style:?} {explode} {schema}");
        }
        for (style, schema, delimiter) in
            [(Form, &list, ","), (Form, &map, ","), (SpaceDelimited, &list, "%20"), (PipeDelimited, &list, "|")]
        {
            let query = format!("color={}", parts(delimiter));
            let values = form(style, false, schema).values_of_fields(&query_fields(&query).unwrap(), &|_| false);
            assert_eq!(values.unwrap().len(), usize::from(is_read), "{style:?} {schema}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, vec!["a=b"; count].join("; ").parse().unwrap());
        assert_eq!(cookie_fields(&headers).is_some(), is_read);
    }
    // A field of another style next to those of an object.
    let closed = json!({"type": "object", "properties": {"R": {"type": "integer"}}, "additionalProperties": false});
    let values = |style, query| {
        let fields = query_fields(query).unwrap();
        form(style, true, &closed).values_of_fields(&fields, &|name| name == "color")
    };
    assert_eq!(values(DeepObject, "color[R]=1&color=x"), Some(vec![]));
    assert_eq!(values(Form, "R=1&color=x"), Some(vec![json!({"R": 1, "color": "x"})]));
}

#[test]
fn cookies_are_read_as_endpoints_do() {
    let fields = |line: &[u8]| {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_bytes(line).unwrap());
        let fields = cookie_fields(&headers)?;
        Some(fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<Vec<_>>())
    };
    let pairs = |pairs: &[(&str, &str)]| {
        Some(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>())
    };
    assert_eq!(fields(b"a=1;b = 2 ; c;d=\"x\""), pairs(&[("a", "1"), ("b", "2"), ("d", "\"x\"")]));
    assert_eq!(fields("a=1; b=Zoë".as_bytes()), pairs(&[("a", "1"), ("b", "Zoë")]));
    assert_eq!(fields("a\u{a0}=1".as_bytes()), pairs(&[("a\u{a0}", "1")]), "another name");
    assert_eq!(fields(b"a=1; b=\xff"), None);
}

#[test]
fn texts_get_the_types_of_schemas() {
    for (schema, input, expected) in [
        (json!({"type": "integer"}), "7", vec![json!(7)]),
        (json!({"type": "integer"}), "7.5", vec![json!(7.5)]),
        (json!({"type": "integer"}), "x", vec![json!("x")]),
        (json!({"type": "number"}), " 7", vec![json!(" 7")]),
        (json!({"type": "boolean"}), "true", vec![json!(true)]),
        (json!({"type": ["integer", "string"]}), "7", vec![json!(7), json!("7")]),
        (json!({"anyOf": [{"type": "boolean"}, {"type": "string"}]}), "true", vec![json!(true), json!("true")]),
        (json!({"type": "string", "nullable": true}), "", vec![Value::Null, json!("")]),
        (json!({"type": "string"}), "7", vec![json!("7")]),
        (json!({"type": "string"}), "a%20b", vec![json!("a b")]),
    ] {
        assert_eq!(form(Style::Simple, false, &schema).values_of_text(input, true), expected, "{schema} {input}");
    }
}
