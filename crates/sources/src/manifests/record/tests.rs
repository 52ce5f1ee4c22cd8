//! Tests of the objects of one file.

use super::*;

#[test]
fn lists_are_expanded_in_order() {
    let value = yaml::parse(
        "{kind: List, apiVersion: v1, items: [{kind: A}, {kind: HTTPRouteList, apiVersion: g/v1, items: [{}, \
                {kind: B}]}, {kind: EmptyList, items: null}, {kind: AllowList, spec: {}}]}",
    );
    let mut values = Vec::new();
    flatten(3, 17, value.expect("it is YAML"), &mut values);
    let found: Vec<_> = values.iter().map(|(at, value)| (at.trail.as_ref(), value["kind"].as_str().unwrap())).collect();
    assert_eq!(found, [(&[0][..], "A"), (&[1, 0], "HTTPRoute"), (&[1, 1], "B"), (&[3], "AllowList")]);
    assert_eq!((values[1].0.document, values[1].0.line, &values[1].1["apiVersion"]), (3, 17, &Value::from("g/v1")));
}
