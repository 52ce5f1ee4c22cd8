//! What Ingresses say, with the conditions in Kong's annotations.

use http::{HeaderName, HeaderValue, Method};

use super::expectation::{
    ANY_METHOD, Expectation, ExpectedAction, ExpectedBackend, RequestShape, RequiredProtocols, header,
    is_value_character, method, path_sample, paths_below,
};
use super::regex_sample;
use crate::api::kong::annotations::{
    HEADERS_PREFIX, HEADERS_SEPARATOR, HOST_ALIASES, METHODS, REGEX_PREFIX, SNIS, list,
};
use crate::api::networking::{Ingress, IngressBackend};
use crate::api::{Kind, Meta, Object, ObjectId};

/// An expectation for each path, and for the default backend. `literal_paths`: the paths are not regular expressions,
/// because the dialect of the Ingress has none.
pub(super) fn of_ingress(ingress: &Object<Ingress>, literal_paths: bool) -> Vec<Expectation> {
    let meta = &ingress.meta;
    let (conditions, protocols) = (conditions(meta), RequiredProtocols::of(meta));
    let expectation = |field: String, hosts: Vec<String>, paths: Result<Vec<String>, String>, backend| Expectation {
        object: ObjectId::new(Kind::Ingress, meta.key.clone()),
        rule: None,
        field,
        served_path: None,
        hosts,
        parents: Vec::new(),
        requires_https: protocols.https,
        requests: paths.and_then(|paths| Ok(RequestShape { paths, ..conditions.clone()? })),
        action: action(backend, meta),
    };
    let mut expectations = Vec::new();
    for (rule_index, rule) in ingress.spec.rules.iter().enumerate() {
        let host = rule.host.as_deref().filter(|host| !host.is_empty()).unwrap_or("*");
        let hosts: Vec<String> = std::iter::once(host).chain(aliases(meta)).map(str::to_owned).collect();
        for (path_index, entry) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
            let field = format!("spec.rules[{rule_index}].http.paths[{path_index}]");
            let paths = paths(entry.path.as_deref(), entry.path_type.as_deref(), meta, literal_paths);
            expectations.push(expectation(field, hosts.clone(), paths, &entry.backend));
        }
    }
    if let Some(backend) = &ingress.spec.default_backend {
        let hosts = std::iter::once("*").chain(aliases(meta)).map(str::to_owned).collect();
        expectations.push(expectation("spec.defaultBackend".to_owned(), hosts, Ok(paths_below("/")), backend));
    }
    expectations
}

fn aliases(meta: &Meta) -> impl Iterator<Item = &str> {
    meta.annotations.get(HOST_ALIASES).into_iter().flat_map(|aliases| list(aliases))
}

fn paths(path: Option<&str>, kind: Option<&str>, meta: &Meta, literal: bool) -> Result<Vec<String>, String> {
    let path = path.filter(|path| !path.is_empty()).unwrap_or("/");
    let regex_prefix = meta.annotations.get(REGEX_PREFIX).filter(|prefix| !prefix.is_empty());
    let regex_prefix = regex_prefix.map_or("/~", |prefix| &**prefix);
    match kind {
        None | Some("ImplementationSpecific") if !literal && path.starts_with(regex_prefix) => {
            Ok(vec![path_sample(&path[regex_prefix.len()..])?])
        }
        Some("Exact") => Ok(vec![path.to_owned()]),
        None | Some("Prefix" | "ImplementationSpecific") => Ok(paths_below(path)),
        Some(other) => Err(format!("{other} is not a known type of path")),
    }
}

/// The conditions in annotations, without paths.
fn conditions(meta: &Meta) -> Result<RequestShape, String> {
    if meta.annotations.contains_key(SNIS) {
        return Err(format!("{SNIS} depends on the TLS handshake; send a request by hand"));
    }
    let names = meta.annotations.get(METHODS).into_iter().flat_map(|names| list(names));
    let methods = names.map(|name| method(&name.to_ascii_uppercase())).collect::<Result<Vec<Method>, _>>()?;
    let is_grpc = RequiredProtocols::of(meta).grpc;
    let headers = meta.annotations.iter().filter_map(|(key, values)| Some((key.strip_prefix(HEADERS_PREFIX)?, values)));
    Ok(RequestShape {
        paths: Vec::new(),
        methods: match (is_grpc, methods.is_empty()) {
            (true, true) => vec![Method::POST],
            (false, true) => ANY_METHOD.to_vec(),
            (_, false) => methods,
        },
        query: String::new(),
        headers: headers.map(|(name, values)| header_of(name, values, meta)).collect::<Result<_, _>>()?,
        is_grpc,
    })
}

/// The field for the first of the values.
fn header_of(name: &str, values: &str, meta: &Meta) -> Result<(HeaderName, HeaderValue), String> {
    let separator = meta.annotations.get(HEADERS_SEPARATOR).filter(|separator| !separator.is_empty());
    let separator = separator.map_or(",", |separator| &**separator);
    let value = values.split(separator).map(str::trim).find(|value| !value.is_empty()).unwrap_or_default();
    match value.strip_prefix(REGEX_VALUE_PREFIX) {
        Some(pattern) => header(name, &regex_sample::sample(pattern, is_value_character)?),
        None => header(name, value),
    }
}

/// Begins the value of a header condition that is a regular expression, in Kong's annotation.
const REGEX_VALUE_PREFIX: &str = "~*";

fn action(backend: &IngressBackend, meta: &Meta) -> ExpectedAction {
    let Some(service) = &backend.service else { return ExpectedAction::NotCompared };
    let number = service.port.as_ref().and_then(|port| port.number).filter(|number| *number != 0);
    ExpectedAction::Forward(vec![ExpectedBackend {
        service: format!("{}/{}", meta.key.namespace, service.name),
        port: number.and_then(|number| u16::try_from(number).ok()),
    }])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ingress(annotations: serde_json::Value, spec: serde_json::Value) -> Object<Ingress> {
        let metadata = json!({ "name": "shop", "namespace": "default", "annotations": annotations });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    fn path(path: &str, kind: &str) -> serde_json::Value {
        let backend = json!({ "service": { "name": "shop", "port": { "number": 80 } } });
        json!({ "path": path, "pathType": kind, "backend": backend })
    }

    #[test]
    fn ingress_has_an_expectation_for_each_path_and_the_default_backend() {
        let object = ingress(
            json!({
                METHODS: "put, delete",
                REGEX_PREFIX: "",
                HOST_ALIASES: "b.example,*.c.example",
                "konghq.com/headers.x-canary": "1, 2",
                "konghq.com/headers.x-user": "~*^[a-f]+$",
            }),
            json!({
                "rules": [{ "host": "a.example", "http": { "paths": [
                    path("/a", "Prefix"), path("/b", "Exact"), path(r"/~/c/\d+", "ImplementationSpecific"),
                ] } }],
                "defaultBackend": { "service": { "name": "shop", "port": { "name": "http" } } },
            }),
        );
        let expectations = of_ingress(&object, false);
        let paths = expectations.iter().map(|expectation| expectation.requests.clone().unwrap().paths[0].clone());
        assert_eq!(paths.collect::<Vec<_>>(), ["/a", "/b", "/c/0", "/"]);
        let shape = expectations[0].requests.as_ref().unwrap();
        assert_eq!(shape.methods, [Method::PUT, Method::DELETE]);
        let headers = shape.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
        assert_eq!(headers.collect::<Vec<_>>(), [("x-canary", "1"), ("x-user", "a")]);
        assert_eq!(expectations[0].hosts, ["a.example", "b.example", "*.c.example"]);
        assert_eq!((&*expectations[3].field, &*expectations[3].hosts[0]), ("spec.defaultBackend", "*"));
        let service = |port| ExpectedBackend { service: "default/shop".to_owned(), port };
        assert_eq!(expectations[0].action, ExpectedAction::Forward(vec![service(Some(80))]));
        assert_eq!(expectations[3].action, ExpectedAction::Forward(vec![service(None)]));
    }

    #[test]
    fn dialect_without_regular_expressions_has_literal_paths() {
        let object =
            ingress(json!({}), json!({ "rules": [{ "http": { "paths": [path("/~/c", "ImplementationSpecific")] } }] }));
        let paths = |literal| of_ingress(&object, literal)[0].requests.clone().unwrap().paths;
        assert_eq!(paths(false), ["/c"]);
        assert_eq!(paths(true), ["/~/c", "/~/c/portico-verify"]);
    }

    #[test]
    fn conditions_that_no_request_can_meet_are_reasons() {
        let spec = json!({ "rules": [{ "http": { "paths": [path("/", "Prefix")] } }] });
        for (annotations, expected) in [
            (json!({ SNIS: "a.example" }), "depends on the TLS handshake"),
            (json!({ METHODS: "CONNECT" }), "CONNECT"),
            (json!({ "konghq.com/headers.x": "~*(" }), "not a valid regular expression"),
        ] {
            let error = of_ingress(&ingress(annotations, spec.clone()), false)[0].requests.clone().unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
