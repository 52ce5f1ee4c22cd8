//! `crds/` matches the types, and uses the names of Kong's definitions for its kinds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use portico::api::Kind;
use portico::api::definitions;
use portico::api::kind::KindFamily;
use serde_json::{Value, json};

#[test]
fn crd_files_match_the_types() {
    let expected: BTreeMap<String, String> = portico::app::crds().into_iter().collect();
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(folder()).unwrap();
        for (name, text) in &expected {
            fs::write(folder().join(name), text).unwrap();
        }
    }
    let written: BTreeMap<String, String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap())
        })
        .collect();
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&written), names(&expected));
    for (name, text) in &expected {
        let parsed: Value = serde_saphyr::from_str(text).unwrap();
        let kind = definitions::kinds().find(|kind| format!("{}.yaml", kind.plural()) == *name).unwrap();
        assert_eq!(Some(parsed), definitions::definition(kind), "{name} round-trips through YAML");
        assert!(written[name] == *text, "crds/{name} differs from crates/objects/src/api; UPDATE=1 rewrites it");
    }
}

#[test]
fn command_prints_all_definitions() {
    let output = Command::new(env!("CARGO_BIN_EXE_portico")).arg("crds").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let printed: Vec<Value> = serde_saphyr::from_multiple(std::str::from_utf8(&output.stdout).unwrap()).unwrap();
    let expected: Vec<Value> = definitions::kinds().filter_map(definitions::definition).collect();
    assert_eq!(printed, expected);
}

/// Scripts and commands of users depend on these names, which are those of Kong's CustomResourceDefinitions.
// docs/kong-compatibility.md, 1.1
#[test]
fn names_and_columns_match_kong() {
    // (kind, version, plural, short name, whether namespaced, columns; in brackets those of `--output wide` only)
    let plugins = "Plugin-Type=.plugin Age=. [Disabled=.disabled] [Config=.config] Programmed=Programmed";
    let vaults = "Backend Type=.spec.backend Prefix=.spec.prefix Age=. [Description=.spec.description] \
                  Programmed=Programmed";
    let cases = [
        (Kind::KongPlugin, "v1", "kongplugins", "kp", true, plugins),
        (Kind::KongClusterPlugin, "v1", "kongclusterplugins", "kcp", false, plugins),
        (Kind::KongConsumer, "v1", "kongconsumers", "kc", true, "Username=.username Age=. Programmed=Programmed"),
        (Kind::KongConsumerGroup, "v1beta1", "kongconsumergroups", "kcg", true, "Age=. Programmed=Programmed"),
        (Kind::KongUpstreamPolicy, "v1beta1", "kongupstreampolicies", "kup", true, ""),
        (Kind::KongIngress, "v1", "kongingresses", "ki", true, "Age=."),
        (Kind::KongVault, "v1alpha1", "kongvaults", "kv", false, vaults),
        (Kind::KongLicense, "v1alpha1", "konglicenses", "kl", false, "Age=. Enabled=.enabled"),
        (
            Kind::KongCustomEntity,
            "v1alpha1",
            "kongcustomentities",
            "kce",
            true,
            "Entity Type=.spec.type Age=. Programmed=Programmed",
        ),
        (Kind::IngressClassParameters, "v1alpha1", "ingressclassparameterses", "", true, ""),
        (Kind::TcpIngress, "v1beta1", "tcpingresses", "", true, "Address=.status.loadBalancer.ingress[*].ip Age=."),
        (Kind::UdpIngress, "v1beta1", "udpingresses", "", true, "Address=.status.loadBalancer.ingress[*].ip Age=."),
        (Kind::KongServiceFacade, "v1alpha1", "kongservicefacades", "", true, ""),
    ];
    assert_eq!(cases.len(), definitions::kinds().filter(|kind| kind.family() == KindFamily::Kong).count());
    for (kind, version, plural, short_name, is_namespaced, columns) in cases {
        let definition = definitions::definition(kind).unwrap();
        let spec = &definition["spec"];
        let is_parameters = kind == Kind::IngressClassParameters;
        let group = match kind {
            Kind::KongServiceFacade => "incubator.ingress-controller.konghq.com",
            _ => "configuration.konghq.com",
        };
        assert_eq!((&spec["group"], &spec["names"]["plural"]), (&json!(group), &json!(plural)), "{kind}");
        assert_eq!(spec["scope"], if is_namespaced { "Namespaced" } else { "Cluster" }, "{kind}");
        assert_eq!(spec["versions"][0]["name"], version, "{kind}");
        assert_eq!(spec["names"]["shortNames"][0].as_str().unwrap_or_default(), short_name, "{kind}");
        let categories = if is_parameters { Value::Null } else { json!(["kong", "kong-ingress-controller"]) };
        assert_eq!(spec["names"]["categories"], categories, "{kind}");
        assert_eq!(spec["versions"][0]["subresources"].is_null(), is_parameters, "{kind}");
        let printed = spec["versions"][0]["additionalPrinterColumns"].as_array().into_iter().flatten();
        let printed: Vec<String> = printed.map(column).collect();
        assert_eq!(printed.join(" "), columns, "{kind}");
    }
    let policy = &definitions::definition(Kind::KongUpstreamPolicy).unwrap()["metadata"]["labels"];
    assert_eq!(policy["gateway.networking.k8s.io/policy"], "direct");
}

/// Portico's own kinds are in its own group.
#[test]
fn own_kinds_have_names_and_columns() {
    let definition = definitions::definition(Kind::GatewayParameters).unwrap();
    let spec = &definition["spec"];
    assert_eq!((&spec["group"], &spec["scope"]), (&json!("portico.dev"), &json!("Namespaced")));
    assert_eq!(spec["names"]["plural"], "gatewayparameters");
    assert_eq!(spec["names"]["shortNames"], json!(["gwparams"]));
    assert_eq!(spec["names"]["categories"], json!(["portico"]));
    let columns: Vec<String> =
        spec["versions"][0]["additionalPrinterColumns"].as_array().unwrap().iter().map(column).collect();
    let expected = "Type=.spec.service.type External-Policy=.spec.service.externalTrafficPolicy \
                    Class=.spec.service.loadBalancerClass Age=.";
    assert_eq!(columns.join(" "), expected);
}

#[test]
fn backend_policies_have_names_and_columns() {
    let definition = definitions::definition(Kind::BackendPolicy).unwrap();
    let spec = &definition["spec"];
    assert_eq!((&spec["group"], &spec["scope"]), (&json!("portico.dev"), &json!("Namespaced")));
    assert_eq!((&spec["names"]["plural"], &spec["names"]["shortNames"]), (&json!("backendpolicies"), &json!(["bkp"])));
    assert_eq!(spec["names"]["categories"], json!(["portico"]));
    assert_eq!(definition["metadata"]["labels"]["gateway.networking.k8s.io/policy"], "Direct");
    assert_eq!(spec["versions"][0]["subresources"], json!({"status": {}}));
    let columns: Vec<String> =
        spec["versions"][0]["additionalPrinterColumns"].as_array().unwrap().iter().map(column).collect();
    let expected = "Targets=.spec.targetRefs[*].name Algorithm=.spec.loadBalancing.algorithm Mode=.spec.mode \
                    Accepted=.status.ancestors[*].conditions[?(@.type==\"Accepted\")].status Age=. \
                    [Programmed=.status.ancestors[*].conditions[?(@.type==\"Programmed\")].status]";
    assert_eq!(columns.join(" "), expected);
}

/// The API server estimates the cost of rules from the bounds of strings and lists, and refuses a definition whose
/// rules may cost too much.
#[test]
fn strings_and_lists_of_backend_policies_have_bounds() {
    fn visit(schema: &Value, path: &str, unbounded: &mut Vec<String>) {
        let bound = match schema["type"].as_str() {
            Some("string") if schema.get("enum").is_none() => Some("maxLength"),
            Some("array") => Some("maxItems"),
            _ => None,
        };
        unbounded.extend(bound.filter(|bound| schema.get(bound).is_none()).map(|bound| format!("{path}: {bound}")));
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            visit(field, &format!("{path}.{name}"), unbounded);
        }
        visit_if_present(&schema["items"], &format!("{path}[]"), unbounded);
        visit_if_present(&schema["additionalProperties"], &format!("{path}{{}}"), unbounded);
    }
    fn visit_if_present(schema: &Value, path: &str, unbounded: &mut Vec<String>) {
        if schema.is_object() {
            visit(schema, path, unbounded);
        }
    }
    let schema = definitions::structural(Kind::BackendPolicy).unwrap();
    let mut unbounded = Vec::new();
    visit(&schema["properties"]["spec"], "spec", &mut unbounded);
    // The type is that of XBackendTrafficPolicies, whose definition has no bound.
    unbounded.retain(|field| field != "spec.retryBudget.minRetryRate.interval: maxLength");
    assert!(unbounded.is_empty(), "{unbounded:#?}");
}

/// A column as `NAME=PATH`, in brackets if only `--output wide` shows it.
fn column(column: &Value) -> String {
    let path = match column["jsonPath"].as_str().unwrap() {
        ".metadata.creationTimestamp" => ".",
        ".status.conditions[?(@.type==\"Programmed\")].status" => "Programmed",
        path => path,
    };
    let column = (column["name"].as_str().unwrap(), column["priority"].as_i64().unwrap_or_default());
    match column {
        (name, 0) => format!("{name}={path}"),
        (name, _) => format!("[{name}={path}]"),
    }
}

/// Kong's plugin kinds have no `spec`.
// docs/kong-compatibility.md, 7.15
#[test]
fn plugin_fields_are_at_the_top_level() {
    for kind in [Kind::KongPlugin, Kind::KongClusterPlugin] {
        let properties = &schema(kind)["properties"];
        assert!(properties["spec"].is_null(), "{kind}");
        for field in ["plugin", "config", "configFrom", "configPatches", "disabled", "protocols", "instance_name"] {
            assert!(!properties[field].is_null(), "{kind} {field}");
        }
    }
}

/// Until a controller writes the condition `Programmed`, the default of the definition applies, as in Kong's.
#[test]
fn new_objects_have_a_pending_condition() {
    let pending = json!([{
        "type": "Programmed", "status": "Unknown", "reason": "Pending", "message": "Waiting for controller",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }]);
    for kind in definitions::kinds() {
        let schema = schema(kind);
        let status = &schema["properties"]["status"];
        let (all_conditions, conditions) = (&status["default"]["conditions"], &status["properties"]["conditions"]);
        match kind {
            Kind::KongConsumer | Kind::KongConsumerGroup => assert_eq!(*all_conditions, pending, "{kind}"),
            Kind::KongPlugin | Kind::KongClusterPlugin | Kind::KongVault | Kind::KongCustomEntity => {
                assert_eq!(conditions["default"], pending, "{kind}");
            }
            _ => {}
        }
        if !conditions.is_null() {
            assert_eq!(
                (&conditions["maxItems"], &conditions["x-kubernetes-list-map-keys"]),
                (&json!(8), &json!(["type"]))
            );
        }
    }
}

/// `kubectl explain` shows these descriptions.
#[test]
fn every_writable_field_is_described() {
    fn visit(node: &Value, path: &str, undescribed: &mut Vec<String>) {
        for (name, field) in node["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if !field["description"].as_str().is_some_and(|text| text.ends_with('.') && !text.contains('\n')) {
                undescribed.push(path.clone());
            }
            visit(field, &path, undescribed);
            visit(&field["items"], &format!("{path}[]"), undescribed);
        }
    }
    let mut undescribed = Vec::new();
    for kind in definitions::kinds() {
        let mut schema = schema(kind);
        assert!(schema["description"].is_string(), "{kind}");
        for name in ["apiVersion", "kind", "metadata", "status"] {
            schema["properties"].as_object_mut().unwrap().shift_remove(name);
        }
        visit(&schema, kind.name(), &mut undescribed);
    }
    assert!(undescribed.is_empty(), "fields without a description: {undescribed:#?}");
}

fn schema(kind: Kind) -> Value {
    definitions::definition(kind).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crds")
}
