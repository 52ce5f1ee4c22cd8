//! Tests of costs, of the types that they need, and of what requests take.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::schema::FieldCost;
use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_api::scripted_server::{ScriptedServer, response};
use crate::plugin_api::state::PluginState;
use crate::plugin_chain::chain::Chain;
use crate::plugin_chain::testing::{TestRequest, build, chain, chain_with, noon, notes};

const KIND: &RegisteredKind<GraphqlRateLimiting> = &RegisteredKind::<GraphqlRateLimiting>::NEW;

/// A type with fields: the name, the type, and an argument with its default.
fn object(name: &str, possible: &[&str], fields: &[(&str, &str, &str)]) -> Value {
    let field = |(name, kind, argument): &(&str, &str, &str)| {
        let (argument, default) = argument.split_once('=').unwrap_or((argument, ""));
        let default = if default.is_empty() { Value::Null } else { default.into() };
        let args = if argument.is_empty() { json!([]) } else { json!([{"name": argument, "defaultValue": default}]) };
        json!({"name": name, "args": args, "type": {"name": null, "ofType": {"name": kind, "ofType": null}}})
    };
    let possible: Vec<_> = possible.iter().map(|name| json!({"name": name})).collect();
    json!({"name": name, "possibleTypes": possible, "fields": fields.iter().map(field).collect::<Vec<_>>()})
}

fn introspection() -> String {
    let types = [
        object("Query", &[], &[("allPeople", "People", "first"), ("node", "Node", ""), ("me", "Person", "")]),
        object("People", &[], &[("people", "Person", "")]),
        object("Person", &[], &[("name", "String", ""), ("vehicleConnection", "Vehicles", "first"), ("id", "ID", "")]),
        object("Vehicles", &[], &[("vehicles", "Vehicle", "")]),
        object(
            "Vehicle",
            &[],
            &[
                ("id", "ID", ""),
                ("name", "String", ""),
                ("cargoCapacity", "Int", ""),
                ("filmConnection", "Films", "first=4"),
            ],
        ),
        object("Films", &[], &[("films", "Film", "")]),
        object("Film", &[], &[("title", "String", ""), ("characterConnection", "Characters", "first")]),
        object("Characters", &[], &[("characters", "Person", "")]),
        object("Node", &["Person", "Vehicle"], &[("vehicleConnection", "Vehicles", "first"), ("id", "ID", "")]),
        json!({"name": "String", "possibleTypes": null, "fields": null}),
    ];
    json!({"data": {"__schema": {"queryType": {"name": "Query"}, "types": types}}}).to_string()
}

/// Costs as `PATH +ADD *MUL ARGUMENT…`, of which the arguments multiply.
fn costs(lines: &[&str]) -> Vec<FieldCost> {
    let parse = |line: &&str| {
        let mut words = line.split(' ');
        let (kind, field) = words.next().unwrap().split_once('.').unwrap();
        let (add, mul) = (words.next().unwrap()[1..].parse().unwrap(), words.next().unwrap()[1..].parse().unwrap());
        let mul_arguments = words.map(Box::from).collect();
        FieldCost { kind: kind.into(), field: field.into(), add, add_arguments: vec![], mul, mul_arguments }
    };
    lines.iter().map(parse).collect()
}

fn cost(query: &str, variables: Value, lines: &[&str], strategy: CostStrategy) -> Result<f64, String> {
    let schema = PricedSchema::parse(introspection().as_bytes(), &costs(lines)).unwrap();
    let document = CheckedDocument::parse(query, &DocumentLimits::USUAL).unwrap();
    let Value::Object(variables) = variables else { panic!("not an object") };
    let operation = document.operation(None).unwrap();
    cost_of(&document, operation, &variables, Some(&schema), strategy).map_err(|error| error.argument)
}

const CONNECTIONS: [&str; 2] = ["Query.allPeople +1 *1 first", "Person.vehicleConnection +1 *1 first"];
const NESTED: &str = "{ allPeople(first: 20) { people { name vehicleConnection(first: 10) { vehicles { id name \
    cargoCapacity } } } } }";

/// The examples of Kong's documentation of the plugin.
#[test]
fn costs_are_those_of_kong() {
    use CostStrategy::{Default, NodeQuantifier};
    let films = "{ allPeople(first: 100) { people { name vehicleConnection(first: 10) { vehicles { name \
        filmConnection(first: 5) { films { title characterConnection(first: 50) { characters { name } } } } } } } } }";
    let all = |vehicles: &'static str| {
        [
            "Query.allPeople +1 *1 first",
            vehicles,
            "Vehicle.filmConnection +1 *1 first",
            "Film.characterConnection +1 *1 first",
        ]
    };
    let weighted = ["Query.allPeople +2 *2 first", "Person.vehicleConnection +5 *1 first", "Vehicle.name +8 *1"];
    for (query, lines, strategy, expected) in [
        ("query { allPeople { people { name } } }", &[][..], Default, 4.0),
        (NESTED, &CONNECTIONS, Default, 862.0),
        (NESTED, &weighted, Default, 4683.0),
        (films, &all("Person.vehicleConnection +1 *1 first"), NodeQuantifier, 6101.0),
        (films, &all("Person.vehicleConnection +42 *1 first"), NodeQuantifier, 10201.0),
        (NESTED, &[], NodeQuantifier, 1.0),
    ] {
        assert_eq!(cost(query, json!({}), lines, strategy), Ok(expected), "{query} {lines:?}");
    }
}

/// GraphQL specification, section 3.7: interfaces may implement others.
#[test]
fn costs_of_an_interface_reach_the_interfaces_that_implement_it() {
    let fields = [("next", "Node", ""), ("title", "String", "")];
    let types = [
        object("Query", &[], &[("node", "Node", ""), ("resource", "Resource", ""), ("film", "Film", "")]),
        object("Node", &["Film", "Person"], &fields),
        // It implements Node, as all of its objects do.
        object("Resource", &["Film"], &fields),
        object("Film", &[], &fields),
        object("Person", &[], &fields),
        json!({"name": "String", "possibleTypes": null, "fields": null}),
    ];
    let introspection = json!({"data": {"__schema": {"queryType": {"name": "Query"}, "types": types}}}).to_string();
    let cost = |query: &str, line: &str| {
        let schema = PricedSchema::parse(introspection.as_bytes(), &costs(&[line])).unwrap();
        let document = CheckedDocument::parse(query, &DocumentLimits::USUAL).unwrap();
        let (operation, variables) = (document.operation(None).unwrap(), serde_json::Map::new());
        cost_of(&document, operation, &variables, Some(&schema), CostStrategy::NodeQuantifier).unwrap()
    };
    for (query, line, expected) in [
        ("{ resource { title } }", "Node.title +7 *1", 7.0),
        ("{ film { title } }", "Node.title +7 *1", 7.0),
        ("{ node { ... on Resource { title } } }", "Node.title +7 *1", 7.0),
        ("{ node { title } }", "Resource.title +7 *1", 7.0),
        ("{ node { ... on Person { title } } }", "Resource.title +7 *1", 1.0),
        ("{ resource { title } }", "Person.title +7 *1", 1.0),
    ] {
        assert_eq!(cost(query, line), expected, "{query} {line}");
    }
}

/// What a server says of its types takes a bounded time.
#[test]
fn schema_with_too_many_overlapping_types_is_refused() {
    let parse = |types: Vec<Value>, lines: &[&str]| {
        let introspection = json!({"data": {"__schema": {"queryType": {"name": "Query"}, "types": types}}});
        PricedSchema::parse(introspection.to_string().as_bytes(), &costs(lines)).map(drop)
    };
    let query = object("Query", &[], &[("node", "Node", "")]);
    let repeated = ["Film"; 100_000];
    let types = vec![query.clone(), object("Node", &repeated, &[]), object("Film", &[], &[("title", "String", "")])];
    assert_eq!(parse(types, &["Node.title +1 *1"]), Ok(()), "a repeated name counts once");
    let names: Vec<String> = (0..1_500).map(|number| format!("T{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut types: Vec<Value> = names.iter().map(|name| object(name, &names, &[])).collect();
    types.push(query);
    let refused = parse(types, &["T0.title +1 *1"]).unwrap_err();
    assert!(refused.starts_with("the types of the schema overlap too often"), "{refused}");
}

#[test]
fn costs_cannot_be_avoided() {
    use CostStrategy::NodeQuantifier;
    let costs =
        ["Query.allPeople +1 *1 first", "Person.vehicleConnection +1 *1 first", "Vehicle.filmConnection +1 *1 first"];
    let ask = |query: &str, variables: Value| cost(query, variables, &costs, NodeQuantifier);
    for (query, variables, expected) in [
        // By variables, their defaults, aliases and fragments.
        ("query ($n: Int) { allPeople(first: $n) { people { vehicleConnection { x } } } }", json!({"n": 30}), 31.0),
        ("query ($n: Int = 30) { allPeople(first: $n) { people { vehicleConnection { x } } } }", json!({}), 31.0),
        ("query ($n: Int) { allPeople(first: $n) { people { vehicleConnection { x } } } }", json!({"n": "30"}), 31.0),
        ("{ a: allPeople { x } b: allPeople { x } c: allPeople { x } }", json!({}), 3.0),
        (
            "{ ...f ...f } fragment f on Query { allPeople(first: 5) { ...g } } fragment g on People { people { ...h } } \
          fragment h on Person { vehicleConnection { x } }",
            json!({}),
            12.0,
        ),
        ("{ ... @skip(if: true) { allPeople { x } } ... on Query { allPeople { x } } }", json!({}), 2.0),
        // By the interface of a type.
        ("{ node { vehicleConnection(first: 3) { vehicles { filmConnection { x } } } } }", json!({}), 4.0),
        ("{ node { ... on Person { vehicleConnection { x } } } }", json!({}), 1.0),
        // By the default of the server.
        (
            "{ me { vehicleConnection { vehicles { filmConnection { films { characterConnection { x } } } } } } }",
            json!({}),
            2.0,
        ),
        ("{ allPeople(first: null) { x } }", json!({}), 1.0),
        ("{ allPeople(first: [1, 2, 3]) { people { vehicleConnection { x } } } }", json!({}), 4.0),
        ("{ allPeople(first: 1e300) { people { vehicleConnection { x } } } }", json!({}), 1e12),
    ] {
        assert_eq!(ask(query, variables), Ok(expected), "{query}");
    }
    for (query, variables) in [
        ("{ allPeople(first: -1) { x } }", json!({})),
        ("{ allPeople(first: \"-1\") { x } }", json!({})),
        ("{ allPeople(first: RED) { x } }", json!({})),
        ("{ allPeople(first: {n: 1}) { x } }", json!({})),
        ("query ($n: Int) { allPeople(first: $n) { x } }", json!({"n": -3})),
        ("query ($n: Int) { allPeople(first: $n) { x } }", json!({"n": true})),
    ] {
        assert_eq!(ask(query, variables), Err("first".to_owned()), "{query}");
    }
    // Each fragment spreads the next one twice, so that a walk through all would not end.
    let mut bomb = "{ ...f0 }".to_owned();
    for index in 0..60 {
        bomb += &format!(" fragment f{index} on Query {{ ...f{0} ...f{0} }}", index + 1);
    }
    bomb += " fragment f60 on Query { allPeople { x } }";
    assert_eq!(ask(&bomb, json!({})), Ok(1e12));
}

fn config(extra: Value) -> Value {
    let mut config = json!({"limit": [10], "window_size": [60], "window_type": "fixed", "sync_rate": -1});
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    config
}

async fn post(chain: &Chain, query: &str) -> (Option<u16>, BTreeMap<&'static str, String>) {
    let body = json!({"query": query}).to_string();
    let outcome = TestRequest::post("/graphql", "application/json", body).run(chain).await;
    let mut headers = BTreeMap::new();
    for name in ["x-ratelimit-remaining-minute", "retry-after"] {
        if let Some(value) = outcome.response_header(name) {
            headers.insert(name, value.to_owned());
        }
    }
    (outcome.reply_status().map(|status| status.as_u16()), headers)
}

#[tokio::test]
async fn requests_take_what_they_cost() {
    let chain = chain(&[(KIND, config(json!({"max_cost": 6})))]);
    let remaining = |value: &str| BTreeMap::from([("x-ratelimit-remaining-minute", value.to_owned())]);
    assert_eq!(post(&chain, "{ a { b } }").await, (None, remaining("7")));
    assert_eq!(post(&chain, "{ a b c d e }").await, (None, remaining("1")));
    // The window begins at noon, as the request does.
    let mut rejected = remaining("1");
    rejected.insert("retry-after", "60".to_owned());
    assert_eq!(post(&chain, "{ a }").await, (Some(429), rejected));
    assert_eq!(post(&chain, "{ a b c d e f }").await, (Some(400), BTreeMap::new()), "max_cost");
    assert_eq!(post(&chain, "{ a").await, (Some(400), BTreeMap::new()));
    let batch = TestRequest::post("/", "application/json", "[]").run(&chain).await;
    assert_eq!(batch.reply_status(), Some(StatusCode::BAD_REQUEST));
    let form = TestRequest::post("/", "application/x-www-form-urlencoded", "query={a}").run(&chain).await;
    assert_eq!(form.reply_status(), Some(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    let get = TestRequest::get("/graphql").run(&chain).await;
    assert_eq!(get.reply_status(), Some(StatusCode::BAD_REQUEST));
}

#[tokio::test]
async fn score_factor_changes_what_is_counted() {
    let chain = chain(&[(KIND, config(json!({"score_factor": 0.5, "limit": [2]})))]);
    assert_eq!(post(&chain, "{ a b c }").await.0, None, "4 × 0.5");
    assert_eq!(post(&chain, "{ a }").await.0, Some(429), "at least 1");
}

#[tokio::test]
async fn types_are_read_once_and_again_in_the_background() {
    let server = ScriptedServer::new(|request| {
        assert_eq!(request.headers["authorization"], "Bearer t");
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        CheckedDocument::parse(body["query"].as_str().unwrap(), &DocumentLimits::USUAL).unwrap();
        Ok(response(200, "", &introspection()))
    });
    let (state, services) = (PluginState::default(), server.services());
    let config = config(json!({
        "introspection_url": "http://films.shop/graphql", "introspection_headers": {"Authorization": "Bearer t"},
        "costs": [{"type_path": "Query.allPeople", "mul_arguments": ["first"]}], "limit": [100],
    }));
    let chain = chain_with(&[(KIND, config)], &state, &services);
    let query = "{ allPeople(first: 20) { people { name } } }";
    assert_eq!(post(&chain, query).await.1["x-ratelimit-remaining-minute"], "58", "20 × 2 + 1 + 1");
    assert_eq!(post(&chain, query).await.1["x-ratelimit-remaining-minute"], "16");
    assert_eq!(server.request_count(), 1);
    let mut later = TestRequest::post("/", "application/graphql", query);
    later.now = noon() + Duration::from_secs(301);
    later.run(&chain).await;
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.request_count(), 2);
}

/// A guard that cannot decide must not let requests through.
#[tokio::test]
async fn requests_are_rejected_while_types_are_unknown() {
    for reply in [
        Err("connection refused".to_owned()),
        Ok(response(500, "", "")),
        Ok(response(200, "", "<html>")),
        Ok(response(200, "", r#"{"errors": [{"message": "introspection is disabled"}]}"#)),
    ] {
        let server = ScriptedServer::new(move |_| reply.clone());
        let (state, services) = (PluginState::default(), server.services());
        let costs = json!([{"type_path": "Query.a"}]);
        let config = config(json!({"introspection_url": "http://films.shop/graphql", "costs": costs}));
        let chain = chain_with(&[(KIND, config)], &state, &services);
        assert_eq!(post(&chain, "{ a }").await.0, Some(503));
        assert_eq!(post(&chain, "{ a }").await.0, Some(503));
        assert_eq!(server.request_count(), 1, "the second request does not ask again at once");
        assert!(server.reports.lock().last().is_some_and(Option::is_some), "the condition has the reason");
    }
}

#[test]
fn wrong_configurations_are_refused_with_their_field() {
    let url = "http://films.shop/graphql";
    let with = |cost: Value| json!({"introspection_url": url, "costs": [cost]});
    for (extra, field) in [
        (json!({"strategy": "cluster"}), "config.strategy"),
        (json!({"strategy": "redis", "sync_rate": 0.001, "redis": {"host": "a"}}), "config.sync_rate"),
        (json!({"max_cost": -1}), "config.max_cost"),
        (json!({"score_factor": 0}), "config.score_factor"),
        (json!({"namespace": "a:b"}), "config.namespace"),
        (json!({"pass_all_downstream_headers": true}), "config.pass_all_downstream_headers"),
        (json!({"costs": [{"type_path": "Query.a"}]}), "config.introspection_url"),
        (json!({"introspection_url": "ftp://a"}), "config.introspection_url"),
        (
            json!({"introspection_url": url, "introspection_headers": {"Host": "a"}}),
            "config.introspection_headers[Host]",
        ),
        (with(json!({"type_path": "Query"})), "config.costs[0].type_path"),
        (with(json!({"type_path": "Query.a.b"})), "config.costs[0].type_path"),
        (with(json!({"type_path": "Query.a", "add_constant": -1})), "config.costs[0].add_constant"),
        (with(json!({"type_path": "Query.a", "mul_arguments": ["a b"]})), "config.costs[0].mul_arguments"),
        (
            json!({"introspection_url": url, "costs": [{"type_path": "Query.a"}, {"type_path": "Query.a"}]}),
            "config.costs[1].type_path",
        ),
    ] {
        let invalid = build(KIND, &config(extra.clone())).err().unwrap_or_default();
        let fields: Vec<_> = invalid.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, [field], "{extra}");
    }
    let noted = notes(KIND, &config(json!({"sync_rate": 10})));
    assert_eq!(noted[0].field, "config.sync_rate", "Kong requires the field");
}
