//! Validation against small schemas, with one or two keywords each.

use serde_json::json;

use super::*;

/// Validates `object` and returns it with its defaults, and each violation as `field: message; remedy`.
fn check(schema: &Value, object: &Value) -> (Value, Vec<String>) {
    let tree = SchemaNode::compile(schema).unwrap();
    let mut object = object.clone();
    let mut report = ViolationReport::new();
    let cx = ValidationCx { kind: Kind::ConfigMap, channel: Channel::Experimental, version: "v1" };
    validate(&tree, &mut object, &cx, &mut report);
    let lines = report.finish().into_iter().map(|it| format!("{}: {}; {}", it.field, it.message, it.remedy));
    (object, lines.collect())
}

/// A mapping whose only field `a` has this schema.
fn field(schema: &Value) -> Value {
    json!({"type": "object", "properties": {"a": schema}})
}

#[test]
fn violations_have_message_and_remedy() {
    let hostname = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    let duration = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";
    for (schema, value, expected) in [
        (
            json!({"type": "integer"}),
            json!("80"),
            r#"a: is the string "80", must be an integer; write it without quotes: `a: 80`"#,
        ),
        (
            json!({"type": "integer"}),
            json!("http"),
            r#"a: is the string "http", must be an integer; write an integer, for example `a: 80`"#,
        ),
        (json!({"type": "integer"}), json!(1.5), "a: is the number 1.5, must be an integer; use a whole number"),
        (
            json!({"type": "boolean"}),
            json!("true"),
            r#"a: is the string "true", must be a boolean; write it without quotes: `a: true`"#,
        ),
        (
            json!({"type": "boolean"}),
            json!("yes"),
            r#"a: is the string "yes", must be a boolean; write a boolean, for example `a: true`"#,
        ),
        (
            json!({"type": "number"}),
            json!("0.5"),
            r#"a: is the string "0.5", must be a number; write it without quotes: `a: 0.5`"#,
        ),
        (
            json!({"type": "string"}),
            json!(80),
            "a: is the number 80, must be a string; put what is written there in quotes",
        ),
        (
            json!({"type": "string"}),
            json!(true),
            "a: is the boolean true, must be a string; put what is written there in quotes",
        ),
        (
            json!({"type": "string"}),
            json!({}),
            "a: is a mapping, must be a string; write a string, for example `a: text`",
        ),
        (
            json!({"type": "object", "properties": {"type": {"type": "string"}, "value": {"type": "string"}}}),
            json!("/api"),
            r#"a: is the string "/api", must be a mapping; write a mapping; its fields are `type`, `value`"#,
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!({"b": 1}),
            "a: is a mapping, must be a list; make it a list: put `- ` before its first field",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!("x"),
            r#"a: is the string "x", must be a list; make it a list: `a: […]`, or one `- ` line per item"#,
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!([null]),
            "a[0]: is null, must be a string; write a string, or leave the entry out",
        ),
        (
            json!({"type": "object", "properties": {}}),
            json!([1]),
            "a: is a list, must be a mapping; make it one mapping: remove the `- `",
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!([]),
            "a: is a list, must be an integer or a string; write an integer or a string, for example `a: text`",
        ),
        (
            json!({"type": "string", "enum": ["Exact", "PathPrefix"]}),
            json!("Prefix"),
            r#"a: "Prefix" is not allowed here; did you mean `PathPrefix`? Allowed are `Exact`, `PathPrefix`"#,
        ),
        (
            json!({"type": "string", "enum": ["Exact", "PathPrefix"]}),
            json!("Glob"),
            r#"a: "Glob" is not allowed here; use one of `Exact`, `PathPrefix`"#,
        ),
        (
            json!({"type": "integer", "enum": [301, 302]}),
            json!(300),
            "a: 300 is not allowed here; use one of `301`, `302`",
        ),
        (json!({"type": "string", "enum": ["X"]}), json!("Q"), r#"a: "Q" is not allowed here; use `X`"#),
        (
            json!({"type": "integer", "minimum": 1, "maximum": 65535}),
            json!(70000),
            "a: is 70000, the greatest allowed is 65535; use a number from 1 to 65535",
        ),
        (json!({"type": "integer", "minimum": 1}), json!(0), "a: is 0, the least allowed is 1; use 1 or more"),
        (json!({"type": "number", "maximum": 1.5}), json!(2), "a: is 2, the greatest allowed is 1.5; use 1.5 or less"),
        (
            json!({"type": "number", "minimum": 0, "exclusiveMinimum": true}),
            json!(0),
            "a: is 0, must be above 0; use a number above 0",
        ),
        (json!({"type": "integer", "multipleOf": 5}), json!(7), "a: is 7, not a multiple of 5; use a multiple of 5"),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(3_000_000_000_i64),
            "a: 3000000000 does not fit into a whole number of 32 bits; use a number from -2147483648 to 2147483647",
        ),
        (
            json!({"type": "integer", "format": "int64"}),
            json!(u64::MAX),
            "a: 18446744073709551615 does not fit into a whole number of 64 bits; use a number from \
                -9223372036854775808 to 9223372036854775807",
        ),
        (
            json!({"type": "string", "maxLength": 3}),
            json!("äöüß"),
            "a: has 4 characters, at most 3 are allowed; shorten it by 1",
        ),
        (
            json!({"type": "string", "minLength": 1}),
            json!(""),
            "a: is empty; write at least one character, or leave the field out if it may be absent",
        ),
        (
            json!({"type": "string", "minLength": 1, "pattern": hostname}),
            json!(""),
            "a: is empty; write something like `www.example.com`, or leave the field out if it may be absent",
        ),
        (
            json!({"type": "string", "minLength": 3}),
            json!("ab"),
            "a: has 2 characters, at least 3 are needed; write at least 3 characters",
        ),
        (
            json!({"type": "string", "pattern": hostname}),
            json!("Foo.com"),
            r#"a: "Foo.com" is not a host name; write it in lower case: `foo.com`"#,
        ),
        (
            json!({"type": "string", "pattern": duration}),
            json!("10 seconds"),
            "a: \"10 seconds\" is not a duration; use one to four numbers of at most five digits, each with its \
                unit h, m, s or ms, for example `1m30s`",
        ),
        (
            json!({"type": "string", "pattern": "^x+$"}),
            json!("y"),
            r#"a: "y" does not match the pattern of this field; it must match `^x+$`"#,
        ),
        (
            json!({"type": "string", "format": "ipv4"}),
            json!("::1"),
            r#"a: "::1" is not an IPv4 address; write an IPv4 address, for example `192.0.2.1`"#,
        ),
        (
            json!({"type": "string", "format": "byte"}),
            json!("not base64!"),
            r#"a: "not base64!" is not base64; encode it as base64; a Secret takes plain text under `stringData`"#,
        ),
        (
            json!({"type": "array", "items": {"type": "integer"}, "maxItems": 2}),
            json!([1, 2, 3]),
            "a: has 3 items, at most 2 are allowed; remove 1, or divide them among several objects",
        ),
        (
            json!({"type": "array", "items": {"type": "integer"}, "minItems": 1}),
            json!([]),
            "a: has 0 items, at least 1 is needed; add 1 item",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 1}),
            json!({"x": "1", "y": "2"}),
            "a: has 2 entries, at most 1 are allowed; remove 1, or divide them among several objects",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            json!({"x.y/z": 2}),
            "a[x.y/z]: is the number 2, must be a string; put what is written there in quotes",
        ),
        (
            json!({"type": "object", "properties": {"backendRefs": {"type": "string"}, "matches": {"type": "string"}}}),
            json!({"backendRef": "x"}),
            "a.backendRef: unknown field `backendRef`; did you mean `backendRefs`?",
        ),
        (
            json!({"type": "object", "properties": {"backendRefs": {"type": "string"}, "matches": {"type": "string"}}}),
            json!({"weight": 1}),
            "a.weight: unknown field `weight`; known fields are `backendRefs`, `matches`",
        ),
        (json!({"type": "object"}), json!({"x": 1}), "a.x: unknown field `x`; no fields are allowed here; remove it"),
        (
            json!({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}),
            json!({}),
            "a.name: is missing; add `name`, a string",
        ),
        (
            json!({"type": "object", "properties": {"type": {"type": "string", "enum": ["B", "A"]}},
                "required": ["type"]}),
            json!({}),
            "a.type: is missing; add `type`: one of `A`, `B`",
        ),
        (
            json!({"type": "object", "required": ["ref"], "properties": {
                "ref": {"type": "object", "required": ["kind", "name"], "properties": {"kind": {"type": "string"},
                    "name": {"type": "string"}}}}}),
            json!({}),
            "a.ref: is missing; add `ref` with `kind`, `name`",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
            json!(["x", "y", "x"]),
            r#"a[2]: duplicate value: "x"; a[0] is the same; remove one"#,
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items":
                {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}}),
            json!([{"name": "http", "port": 1}, {"name": "https"}, {"name": "http", "port": 2}]),
            r#"a[2]: duplicate value: {"name":"http"}; a[0] has the same `name`; change one or remove it"#,
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port",
                "protocol"], "items":
                {"type": "object", "properties": {"port": {"type": "integer"}, "protocol": {"type": "string",
                    "default": "TCP"}}}}),
            json!([{"port": 53}, {"port": 53, "protocol": "UDP"}, {"protocol": "TCP", "port": 53.0}]),
            "a[2]: duplicate value: {\"port\":53,\"protocol\":\"TCP\"}; a[0] has the same `port` and `protocol`; \
                change one or remove it",
        ),
    ] {
        let (_, lines) = check(&field(&schema), &json!({"a": value}));
        assert_eq!(lines, [expected], "{schema} {value}");
    }
}

#[test]
fn valid_values_pass() {
    for (schema, value) in [
        (json!({"type": "integer"}), json!(80.0)),
        (json!({"type": "string", "maxLength": 4, "minLength": 4}), json!("äöüß")),
        (json!({"type": "string", "pattern": "b"}), json!("abc")),
        (json!({"type": "string", "nullable": true}), json!(null)),
        (json!({"type": "string", "format": "made-up"}), json!("x")),
        (json!({"x-kubernetes-int-or-string": true, "format": "int32"}), json!("50%")),
        (json!({"x-kubernetes-int-or-string": true}), json!(5)),
        (json!({"x-kubernetes-preserve-unknown-fields": true}), json!([{"x": null}])),
        (json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}), json!({"x": {"y": null}})),
        (json!({"type": "object", "additionalProperties": true}), json!({"x": 1})),
        (json!({"type": "array", "items": {"type": "integer"}, "x-kubernetes-list-type": "atomic"}), json!([1, 1])),
        (
            json!({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}},
                "x-kubernetes-list-type": "set"}),
            json!([{"a": "1"}, {"a": "2"}, {}]),
        ),
    ] {
        assert_eq!(check(&field(&schema), &json!({"a": value})).1, Vec::<String>::new(), "{schema} {value}");
    }
}

#[test]
fn defaults_are_applied_and_nulls_dropped() {
    let with_default =
        |default: Value| json!({"type": "object", "properties": {"b": {"type": "integer", "default": default}}});
    for (schema, before, after) in [
        (with_default(json!(1)), json!({"a": {}}), json!({"a": {"b": 1}})),
        (with_default(json!(1)), json!({"a": {"b": 2}}), json!({"a": {"b": 2}})),
        (with_default(json!(1)), json!({"a": {"b": null}}), json!({"a": {"b": 1}})),
        // A default inside an absent field does not create the field.
        (with_default(json!(1)), json!({}), json!({})),
        (json!({"type": "string"}), json!({"a": null}), json!({})),
        (json!({"type": "string", "nullable": true, "default": "x"}), json!({"a": null}), json!({"a": null})),
        // Defaults are applied inside a default, too.
        (
            json!({"type": "object", "default": {}, "properties": {"b": {"type": "array", "default": [{}], "items":
                {"type": "object", "properties": {"c": {"type": "string", "default": "/"}}}}}}),
            json!({}),
            json!({"a": {"b": [{"c": "/"}]}}),
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer", "default": 7}}),
            json!({"a": {"x": null, "y": 1}}),
            json!({"a": {"x": 7, "y": 1}}),
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            json!({"a": {"x": null}}),
            json!({"a": {}}),
        ),
        (json!({"type": "integer"}), json!({"a": 80.0}), json!({"a": 80})),
    ] {
        let (object, lines) = check(&field(&schema), &before);
        assert_eq!((object, lines), (after, Vec::new()), "{schema} {before}");
    }
}

#[test]
fn combinators_report_the_violations_of_their_branches() {
    let address = json!({"type": "object", "properties": {"type": {"type": "string", "default": "IPAddress"},
        "value": {"type": "string"}},
    "oneOf": [
        {"properties": {"type": {"enum": ["IPAddress"]}, "value": {"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}}},
        {"properties": {"type": {"not": {"enum": ["IPAddress"]}}}}
    ]});
    for (value, expected) in [
        (json!({"value": "10.0.0.1"}), None),
        (json!({"value": "::1"}), None),
        (json!({"type": "Hostname", "value": "x"}), None),
        (
            json!({"value": "x"}),
            Some(
                "a.value: \"x\" is not an IPv4 address, and \"x\" is not an IPv6 address; write an IPv4 address, \
                    for example `192.0.2.1`, or write an IPv6 address, for example `2001:db8::1`",
            ),
        ),
    ] {
        assert_eq!(check(&field(&address), &json!({"a": value})).1, Vec::from_iter(expected), "{value}");
    }
    let all = json!({"type": "integer", "allOf": [{"minimum": 1}, {"maximum": 5}]});
    assert_eq!(check(&field(&all), &json!({"a": 9})).1, ["a: is 9, the greatest allowed is 5; use 5 or less"]);
    let one = json!({"type": "object", "properties": {"x": {"type": "string"}, "y": {"type": "string"}},
        "oneOf": [{"required": ["x"]}, {"required": ["y"]}]});
    assert_eq!(
        check(&field(&one), &json!({"a": {"x": "", "y": ""}})).1,
        ["a: satisfies 2 alternatives that exclude each other; keep the fields of exactly one of them"]
    );
    assert_eq!(check(&field(&one), &json!({"a": {}})).1, ["a: is missing; add `x`, or add `y`"]);
}

#[test]
fn an_object_must_be_a_mapping_of_bounded_depth() {
    let lines = |object: &Value| {
        let mut report = ViolationReport::new();
        let is_valid = is_object_of_bounded_depth(object, &mut report);
        assert_eq!(is_valid, report.is_empty());
        report.finish().into_iter().map(|it| it.message).collect::<Vec<_>>()
    };
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({"a": inner}));
    assert_eq!(lines(&json!([])), ["is a list, must be a mapping"]);
    assert_eq!(lines(&nested(MAX_DEPTH)), Vec::<String>::new());
    assert_eq!(lines(&nested(MAX_DEPTH + 1)), ["is nested deeper than 64 levels"]);
}

#[test]
fn violations_above_the_limit_are_counted() {
    let schema = field(&json!({"type": "array", "items": {"type": "string"}}));
    let (_, lines) = check(&schema, &json!({"a": vec![0; 1000]}));
    assert_eq!(lines.len(), 51);
    assert_eq!(lines[50], ": 950 more violations are not shown; correct the ones above first");
}
