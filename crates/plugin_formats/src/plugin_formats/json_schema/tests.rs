//! Tests of validation. Each table has schemas, values, and the first error of each value.

use serde_json::{Value, json};

use super::*;

fn compile(schema: &Value, dialect: SchemaDialect, direction: Direction) -> Result<(SchemaSet, SchemaId), SchemaError> {
    let mut compiler = JsonSchemaCompiler::new(schema, dialect, direction);
    let id = compiler.add(schema, "")?;
    Ok((compiler.finish()?, id))
}

/// The first error as text, `too costly`, or nothing for a valid value.
fn validate(schema: &Value, dialect: SchemaDialect, value: &Value) -> String {
    let (set, id) = compile(schema, dialect, Direction::Any).unwrap_or_else(|error| panic!("{schema}: {error:?}"));
    describe(set.validate(id, value, &mut ValidationBudget::new(&mut RemainingRegexSteps::default())))
}

fn describe(outcome: Result<(), Violation>) -> String {
    match outcome {
        Ok(()) => String::new(),
        Err(Violation::Invalid(error)) => error.to_string(),
        Err(Violation::TooCostly) => "too costly".to_owned(),
    }
}

#[test]
fn errors_name_the_part_of_the_value() {
    let schema = json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "minLength": 2, "pattern": "^[a-z]+$"},
            "age": {"type": ["integer", "null"], "minimum": 0, "exclusiveMaximum": 150, "multipleOf": 0.5},
            "tags": {"type": "array", "items": {"enum": ["a", "b", 1]}, "maxItems": 3, "uniqueItems": true},
            "a/b": {"oneOf": [{"const": 1}, {"type": "integer"}]},
            "mail": {"format": "email"},
            "c": {"contains": {"const": 1}, "minContains": 2},
        },
        "patternProperties": {"^x-": {"not": {"type": "null"}}},
        "additionalProperties": false,
        "dependentRequired": {"age": ["mail"]},
    });
    for (value, expected) in [
        (json!({"name": "ab"}), ""),
        (json!([]), "must be an object"),
        (json!({}), "lacks the required member \"name\""),
        (json!({"name": "a"}), "/name: must have at least 2 characters"),
        (json!({"name": "éé"}), "/name: does not match the regular expression"),
        (json!({"name": "ab", "tags": ["a", "b", 1.0]}), ""),
        (json!({"name": "ab", "tags": ["a", "c"]}), "/tags/1: is not one of the allowed values"),
        (json!({"name": "ab", "tags": [1, 1.0]}), "/tags: has two equal items"),
        (json!({"name": "ab", "a/b": 1}), "/a~1b: matches more than one of the schemas in oneOf"),
        (json!({"name": "ab", "x-y": null}), "/x-y: matches the schema in not"),
        (json!({"name": "ab", "z": 1}), "has the member \"z\", which is not allowed"),
        (json!({"name": "ab", "mail": "a@"}), "/mail: is not a valid email"),
        (json!({"name": "ab", "c": [1, 2]}), "/c: has too few items that match contains: 1"),
        (json!({"name": "ab", "age": 1.5, "mail": "a@b.example"}), "/age: must be null or an integer"),
        (json!({"name": "ab", "age": 150, "mail": "a@b.example"}), "/age: must be below 150"),
        (json!({"name": "ab", "age": 15}), "lacks the required member \"mail\""),
    ] {
        assert_eq!(validate(&schema, SchemaDialect::Draft202012, &value), expected, "{value}");
    }
}

#[test]
fn versions_differ() {
    use SchemaDialect::{Draft4, Draft6, Draft7, Draft201909, Draft202012, OpenApi30};
    let exclusive = json!({"minimum": 1, "exclusiveMinimum": true});
    let tuple = json!({"items": [{"type": "string"}], "additionalItems": false});
    let nullable = json!({"type": "string", "nullable": true});
    let sibling = json!({"$ref": "#/definitions/a", "maxLength": 1, "definitions": {"a": {"type": "string"}}});
    for (dialect, schema, value, expected) in [
        (Draft4, &exclusive, json!(1), "must be above 1"),
        (OpenApi30, &exclusive, json!(1), "must be above 1"),
        (Draft4, &json!({"const": 1}), json!(2), ""),
        (Draft6, &json!({"const": 1}), json!(2), "is not the allowed value"),
        (Draft6, &json!({"if": true, "then": false}), json!(2), ""),
        (Draft7, &json!({"if": true, "then": false}), json!(2), "is not allowed"),
        (Draft7, &tuple, json!([1]), "/0: must be a string"),
        (Draft201909, &tuple, json!(["a", 1]), "/1: is not allowed"),
        (Draft202012, &json!({"prefixItems": [true], "items": false}), json!(["a", 1]), "/1: is not allowed"),
        (Draft7, &nullable, Value::Null, "must be a string"),
        (OpenApi30, &nullable, Value::Null, ""),
        (Draft7, &sibling, json!("ab"), ""),
        (Draft202012, &sibling, json!("ab"), "must have at most 1 characters"),
    ] {
        assert_eq!(validate(schema, dialect, &value), expected, "{dialect:?} {schema} {value}");
    }
}

#[test]
fn unevaluated_members_are_those_of_no_other_keyword() {
    let schema = json!({
        "anyOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": true}, "required": ["b"]}],
        "$ref": "#/$defs/c",
        "unevaluatedProperties": false,
        "$defs": {"c": {"properties": {"c": true}}},
    });
    for (value, expected) in [
        (json!({"a": 1, "c": 2}), ""),
        (json!({"a": 1, "b": 2, "c": 3}), ""),
        (json!({"a": 2}), "matches none of the schemas in anyOf"),
        (json!({"a": 1, "d": 2}), "/d: is not allowed"),
    ] {
        assert_eq!(validate(&schema, SchemaDialect::Draft202012, &value), expected, "{value}");
    }
}

#[test]
fn members_of_the_other_direction_may_be_absent() {
    let schema = json!({
        "required": ["id", "password", "name"],
        "properties": {"id": {"readOnly": true}, "password": {"writeOnly": true}, "name": {}},
    });
    for (direction, value, expected) in [
        (Direction::Request, json!({"name": 1, "password": 2}), ""),
        (Direction::Request, json!({"name": 1, "id": 2}), "lacks the required member \"password\""),
        (Direction::Response, json!({"name": 1, "id": 2}), ""),
        (Direction::Any, json!({"name": 1, "id": 2}), "lacks the required member \"password\""),
    ] {
        let (set, id) = compile(&schema, SchemaDialect::OpenApi30, direction).unwrap();
        let found = set.validate(id, &value, &mut ValidationBudget::new(&mut RemainingRegexSteps::default()));
        assert_eq!(describe(found), expected, "{direction:?} {value}");
    }
}

/// A worker serves all of its requests in turn, so no schema may keep it busy.
#[test]
fn work_is_limited() {
    // Each definition applies the next one twice: 2^40 evaluations.
    let mut definitions = serde_json::Map::new();
    for level in 0..40 {
        let next = format!("#/$defs/d{}", level + 1);
        definitions.insert(format!("d{level}"), json!({"allOf": [{"$ref": next}, {"$ref": next}]}));
    }
    definitions.insert("d40".to_owned(), json!(true));
    let doubling = json!({"$ref": "#/$defs/d0", "$defs": definitions});
    assert_eq!(validate(&doubling, SchemaDialect::Draft202012, &json!(1)), "too costly");

    // The steps of expressions are those of the request.
    let pattern = json!({"pattern": "^(?:[a-z]{0,50}[0-9]){0,50}$"});
    assert_eq!(validate(&pattern, SchemaDialect::Draft7, &json!("a".repeat(2_000_000))), "too costly");

    let unique = json!({"uniqueItems": true});
    let items: Vec<_> = (0..100_000).collect();
    assert_eq!(validate(&unique, SchemaDialect::Draft7, &json!(items)), "");
}

/// As deep as values can be. Test threads have the stack of workers.
#[test]
fn deep_values_are_valid_or_too_costly() {
    let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    let list = json!({"$ref": "#/$defs/list", "$defs": {"list": {"items": {"$ref": "#/$defs/list"}}}});
    assert_eq!(validate(&list, SchemaDialect::Draft202012, &nested(127)), "");
    let slow = json!({"$ref": "#/$defs/a", "$defs": {
        "a": {"items": {"$ref": "#/$defs/b"}}, "b": {"allOf": [{"anyOf": [{"$ref": "#/$defs/a"}]}]},
    }});
    assert_eq!(validate(&slow, SchemaDialect::Draft202012, &nested(127)), "too costly");
}

#[test]
fn invalid_schemas_are_rejected() {
    for (schema, pointer, message) in [
        (json!(1), "", "is not a schema"),
        (json!({"type": "strnig"}), "/type", "is not null, boolean, integer"),
        (json!({"properties": {"a/b": {"minimum": "1"}}}), "/properties/a~1b/minimum", "is not a number"),
        (json!({"items": {"maxLength": -1}}), "/items/maxLength", "is not an integer of at least 0"),
        (json!({"required": "a"}), "/required", "is not a list of names"),
        (json!({"allOf": []}), "/allOf", "is not a list of one or more schemas"),
        (json!({"anyOf": [true, 3]}), "/anyOf/1", "is not a schema"),
        (json!({"multipleOf": 0}), "/multipleOf", "is not a number above 0"),
        (json!({"pattern": "(?=a)"}), "/pattern", "is not a valid regular expression"),
        (json!({"$ref": "http://a.example/b"}), "/$ref", "is not a part of this document"),
        (json!({"$ref": "file:///etc/passwd"}), "/$ref", "is not a part of this document"),
        (json!({"$ref": "other.json#/a"}), "/$ref", "is not a part of this document"),
        (json!({"$ref": "#/$defs/none"}), "/$ref", "which does not exist"),
        (json!({"$ref": "#anchor"}), "/$ref", "which does not exist"),
        (json!({"$ref": "#"}), "", "applies itself to the same value again and again"),
        (json!({"$defs": {"a": {"not": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}), "#/$defs/a", "applies itself"),
    ] {
        let error = compile(&schema, SchemaDialect::Draft202012, Direction::Any).expect_err(&schema.to_string());
        assert!(error.pointer == pointer && error.message.contains(message), "{schema}: {error:?}");
    }
    let number = json!({"minimum": 1, "exclusiveMinimum": 1});
    assert!(compile(&number, SchemaDialect::Draft4, Direction::Any).unwrap_err().message.contains("true or false"));
}

#[test]
fn the_number_of_subschemas_is_limited() {
    let many: Vec<_> = (0..=compile::MAX_NODES).map(|index| json!({"const": index})).collect();
    let error = compile(&json!({"anyOf": many}), SchemaDialect::Draft7, Direction::Any).unwrap_err();
    assert!(error.message.contains("more than 50000"), "{error:?}");
}

#[test]
fn formats_are_checked() {
    for (format, text, is_valid) in [
        ("date", "2024-02-29", true),
        ("date", "2023-02-29", false),
        ("date-time", "1998-12-31T23:59:60Z", true),
        ("date-time", "1998-12-31T22:59:60Z", false),
        ("date-time", "1998-12-31 23:59:59Z", false),
        ("time", "12:00:00+01:00", true),
        ("time", "12:00:00", false),
        ("duration", "P1DT12H", true),
        ("duration", "P1D2Y", false),
        ("hostname", "a.example", true),
        ("hostname", "-a.example", false),
        ("ipv4", "1.2.3.04", false),
        ("ipv6", "::1", true),
        ("uri", "https://a.example/b?c#d", true),
        ("uri", "/b", false),
        ("uri-reference", "/b", true),
        ("uri-reference", "a b", false),
        ("uuid", "2eb8aa08-aa98-11ea-b4aa-73b441d16380", true),
        ("uuid", "2eb8aa08aa9811eab4aa73b441d16380", false),
        ("json-pointer", "/a~1b", true),
        ("json-pointer", "/a~2b", false),
        ("regex", "(", false),
        ("unknown", "anything", true),
    ] {
        let found = validate(&json!({"format": format}), SchemaDialect::Draft202012, &json!(text));
        assert_eq!(found.is_empty(), is_valid, "{format} {text}: {found}");
    }
    let int32 = json!({"type": "integer", "format": "int32"});
    assert_eq!(validate(&int32, SchemaDialect::OpenApi30, &json!(2_147_483_648_u32)), "is not a valid int32");
}
