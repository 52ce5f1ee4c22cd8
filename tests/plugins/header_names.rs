//! Fields of plugins that name header fields: what a plugin writes must not change the meaning of a message.

use portico::plugin_chain::testing::{build, notes};
use portico::plugins::REGISTRY;
use serde_json::json;

use crate::plugins::contract::{minimal_config, with_value};
use crate::plugins::fields;

/// What a field contains.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Name,
    Names,
    /// `name:value`.
    Entries,
    /// Old and new names.
    Renames,
    Map,
}

/// What is written into the named fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Configured,
    Generated,
    Identifier,
    User,
    Token,
}

/// The fields that name header fields to write: the plugin, the path, the shape, and what is written.
const WRITTEN: &[(&str, &str, Shape, Written)] = &[
    ("aggregate", "calls[].headers", Shape::Map, Written::Configured),
    ("aggregate", "calls[].forward_headers", Shape::Names, Written::Configured),
    ("api-version", "upstream_header", Shape::Name, Written::Generated),
    ("correlation-id", "header_name", Shape::Name, Written::Identifier),
    ("forward-auth", "client_response_headers", Shape::Names, Written::Configured),
    ("forward-auth", "response_headers", Shape::Names, Written::Configured),
    ("graphql-rate-limiting-advanced", "introspection_headers", Shape::Map, Written::Configured),
    ("http-log", "headers", Shape::Map, Written::Configured),
    ("internal-identity", "groups_header", Shape::Name, Written::User),
    ("internal-identity", "header", Shape::Name, Written::Token),
    ("internal-identity", "user_header", Shape::Name, Written::User),
    ("jwt-signer", "access_token_upstream_header", Shape::Name, Written::Token),
    ("jwt-signer", "channel_token_upstream_header", Shape::Name, Written::Token),
    ("oauth2-introspection", "custom_introspection_headers", Shape::Map, Written::Configured),
    ("openid-connect", "upstream_access_token_header", Shape::Name, Written::Token),
    ("openid-connect", "upstream_headers_names", Shape::Names, Written::User),
    ("openid-connect", "upstream_id_token_header", Shape::Name, Written::Token),
    ("openid-connect", "upstream_introspection_header", Shape::Name, Written::Token),
    ("opentelemetry", "headers", Shape::Map, Written::Configured),
    ("opentelemetry", "http_response_header_for_traceid", Shape::Name, Written::Identifier),
    ("request-transformer", "add.headers", Shape::Entries, Written::Configured),
    ("request-transformer", "append.headers", Shape::Entries, Written::Configured),
    ("request-transformer", "rename.headers", Shape::Renames, Written::Configured),
    ("request-transformer", "replace.headers", Shape::Entries, Written::Configured),
    ("request-transformer-advanced", "add.headers", Shape::Entries, Written::Configured),
    ("request-transformer-advanced", "append.headers", Shape::Entries, Written::Configured),
    ("request-transformer-advanced", "rename.headers", Shape::Renames, Written::Configured),
    ("request-transformer-advanced", "replace.headers", Shape::Entries, Written::Configured),
    ("response-transformer", "add.headers", Shape::Entries, Written::Configured),
    ("response-transformer", "append.headers", Shape::Entries, Written::Configured),
    ("response-transformer", "rename.headers", Shape::Renames, Written::Configured),
    ("response-transformer", "replace.headers", Shape::Entries, Written::Configured),
    ("response-transformer-advanced", "add.headers", Shape::Entries, Written::Configured),
    ("response-transformer-advanced", "append.headers", Shape::Entries, Written::Configured),
    ("response-transformer-advanced", "rename.headers", Shape::Renames, Written::Configured),
    ("response-transformer-advanced", "replace.headers", Shape::Entries, Written::Configured),
    ("upstream-oauth", "behavior.upstream_access_token_header_name", Shape::Name, Written::Token),
    ("upstream-oauth", "oauth.token_headers", Shape::Map, Written::Configured),
    ("zipkin", "http_response_header_for_traceid", Shape::Name, Written::Identifier),
];

/// The other fields with `header` in their path: names of header fields that a plugin reads, lists or removes, and
/// values and texts.
const NOT_WRITTEN: &[(&str, &[&str])] = &[
    ("api-version", &["header"]),
    ("canary", &["canary_by_header_name", "hash_header"]),
    ("cors", &["exposed_headers", "headers"]),
    ("forward-auth", &["groups_header", "request_headers", "user_header"]),
    ("graphql-proxy-cache-advanced", &["vary_headers"]),
    ("grpc-web", &["allow_origin_header"]),
    ("header-cert-auth", &["certificate_header_name"]),
    ("hmac-auth", &["enforce_headers"]),
    ("internal-identity", &["remove_headers"]),
    ("jwt", &["header_names"]),
    ("jwt-signer", &["access_token_request_header", "channel_token_request_header"]),
    ("ldap-auth", &["header_type"]),
    ("ldap-auth-advanced", &["header_type"]),
    ("mask", &["log.headers"]),
    ("oas-validation", &["allowed_header_parameters"]),
    ("oauth2", &["auth_header_name"]),
    ("openid-connect", &["upstream_headers_claims"]),
    ("post-function", &["header_filter"]),
    ("pre-function", &["header_filter"]),
    ("proxy-cache", &["vary_headers"]),
    ("proxy-cache-advanced", &["vary_headers"]),
    ("rate-limiting", &["header_name"]),
    ("rate-limiting-advanced", &["header_name"]),
    ("request-transformer", &["remove.headers"]),
    ("request-transformer-advanced", &["remove.headers"]),
    ("response-ratelimiting", &["header_name"]),
    ("response-transformer", &["remove.headers"]),
    ("response-transformer-advanced", &["remove.headers"]),
    ("soap", &["header_template"]),
    ("usage-plan", &["header_name"]),
    ("zipkin", &["tags_header"]),
];

#[test]
fn each_field_that_names_a_header_is_in_one_of_the_tables() {
    let mut unknown = Vec::new();
    for kind in REGISTRY.iter() {
        let fields = fields::list(kind).into_iter();
        let texts = fields.filter(|field| ["string", "map", "list of string"].contains(&&*field.type_name));
        for field in texts.filter(|field| field.path.contains("header")) {
            let written =
                WRITTEN.iter().filter(|(name, path, ..)| (*name, *path) == (kind.name(), &*field.path)).count();
            let others = NOT_WRITTEN.iter().filter(|(name, _)| *name == kind.name());
            let others = others.flat_map(|(_, paths)| *paths).filter(|path| **path == field.path).count();
            if written + others != 1 {
                unknown.push(format!("{} {}", kind.name(), field.path));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// The problems of the configuration with this name, or its notes.
fn problems(plugin: &str, path: &str, shape: Shape, name: &str) -> Vec<String> {
    let kind = REGISTRY.find(plugin).unwrap();
    let value = match shape {
        Shape::Name => json!(name),
        Shape::Names => json!([name]),
        Shape::Entries => json!([format!("{name}:1")]),
        Shape::Renames => json!([format!("x-old:{name}")]),
        Shape::Map => json!({name: "1"}),
    };
    let mut config = minimal_config(kind);
    // Fields that the named one needs.
    match (plugin, path) {
        ("openid-connect", "upstream_headers_names") => config["upstream_headers_claims"] = json!(["sub"]),
        ("jwt-signer", "channel_token_upstream_header") => {
            config["channel_token_request_header"] = json!("x-channel");
            config["channel_token_jwks_uri"] = json!("https://issuer.example/keys");
            config["channel_token_signing_keys"] = config["access_token_signing_keys"].clone();
        }
        ("graphql-rate-limiting-advanced", _) => {
            config["introspection_url"] = json!("https://graphql.example/");
            config["costs"] = json!([{"type_path": "Query.a", "add_constant": 1}]);
        }
        _ => {}
    }
    let config = match path.strip_prefix("calls[].") {
        Some(field) => {
            config["calls"][0][field] = value;
            config
        }
        None => with_value(&config, path, value),
    };
    match build(kind, &config) {
        Ok(_) => notes(kind, &config).iter().map(ToString::to_string).collect(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn what_plugins_write_has_no_name_with_another_meaning() {
    for (plugin, path, shape, written) in WRITTEN {
        let found = |name: &str| problems(plugin, path, *shape, name);
        let usual = found("x-name");
        let mut refused = vec!["connection", "content-length", "te", "trailer", "transfer-encoding", "upgrade"];
        let mut accepted = vec!["x-other"];
        let by_meaning: [(&str, &[Written]); 4] = [
            ("authorization", &[Written::Token]),
            ("x-consumer-custom-id", &[Written::User, Written::Token]),
            ("x-request-id", &[Written::Identifier]),
            ("x-forwarded-for", &[]),
        ];
        if *written != Written::Configured {
            for (name, permitted) in by_meaning {
                if permitted.contains(written) { accepted.push(name) } else { refused.push(name) }
            }
        }
        for name in refused {
            let problems = found(name);
            let is_refused = problems.iter().any(|problem| problem.contains(name) && !usual.contains(problem));
            assert!(is_refused, "{plugin} {path} writes {name}: {problems:?}");
        }
        for name in accepted {
            let problems = found(name);
            let is_accepted = problems.iter().all(|problem| !problem.contains(name) || usual.contains(problem));
            assert!(is_accepted, "{plugin} {path} writes {name}: {problems:?}");
        }
    }
}
