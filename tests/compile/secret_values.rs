//! No diagnostic contains what a Secret or a vault contributes to the configuration of a plugin: for every field of
//! every plugin, and every way in which a value gets there.

use portico::api::{Kind, ObjectId, ObjectKey};
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::plugin_api::AnyPluginKind;
use portico::plugins::REGISTRY;
use portico::store::{AnyObject, Batch};
use serde_json::{Map, Value, json};

use super::case::CompilerHarness;
use super::edits::parse;
use super::plugin_edits::initial_objects;
use crate::plugins::contract::minimal_config;
use crate::plugins::fields;

/// The word that no diagnostic may contain, in any case of its letters.
const CANARY: &str = "kanarienvogel";

/// Texts that pass different checks, so that different ones fail.
const TEXTS: [&str; 5] = [
    "Kanarienvogel 4711",
    "kanarienvogel",
    "kanarienvogel.a.80.svc",
    "http://kanarienvogel:kanarienvogel@/ x$(",
    "/kanarienvogel/(",
];

/// How the value gets into the configuration.
#[derive(Clone, Copy, Debug)]
enum Way {
    Reference,
    Patch,
    ConfigFrom,
    Vault,
}

/// A plugin object with the text in one field, and the Secret of the text.
fn objects(name: &str, kind: &dyn AnyPluginKind, path: &str, way: Way, text: &str) -> [AnyObject; 2] {
    let steps: Vec<&str> = path.split('.').collect();
    let minimal = minimal_config(kind);
    let mut plugin = json!({"metadata": {"namespace": "a", "name": name}, "plugin": kind.name()});
    let reference = json!({"secretKeyRef": {"name": name, "key": "value"}});
    let data = match way {
        Way::Reference => {
            plugin["config"] = with_value(minimal, &steps, reference);
            text.to_owned()
        }
        Way::Vault => {
            plugin["config"] = with_value(minimal, &steps, json!(format!("{{vault://shared/{name}/value}}")));
            text.to_owned()
        }
        Way::Patch => {
            let first = steps[0].trim_end_matches("[]");
            let patched = with_value(minimal.clone(), &steps, json!(text));
            plugin["config"] = minimal;
            plugin["configPatches"] = json!([{"path": format!("/{first}"), "valueFrom": reference}]);
            patched[first].to_string()
        }
        Way::ConfigFrom => {
            plugin["configFrom"] = reference;
            with_value(minimal, &steps, json!(text)).to_string()
        }
    };
    let metadata = json!({"namespace": "a", "name": name});
    [parse(Kind::Secret, json!({"metadata": metadata, "stringData": {"value": data}})), parse(Kind::KongPlugin, plugin)]
}

/// Puts a value at a path such as `pages[].bodies[].template`, into the first elements of lists.
fn with_value(mut config: Value, steps: &[&str], value: Value) -> Value {
    let mut target = &mut config;
    for step in steps {
        let name = step.trim_end_matches("[]");
        if !target.is_object() {
            *target = Value::Object(Map::new());
        }
        target = &mut target[name];
        for _ in step.matches("[]") {
            if target.as_array().is_none_or(Vec::is_empty) {
                *target = json!([null]);
            }
            target = &mut target[0];
        }
    }
    *target = value;
    config
}

/// The paths of all values in the configuration of a plugin, also those of the elements of lists and maps.
fn paths(kind: &dyn AnyPluginKind) -> Vec<String> {
    let values = fields::list(kind).into_iter().filter(|field| !field.has_fields);
    let path = |field: fields::Field| match field.type_name.as_str() {
        name if name.starts_with("list of list") => format!("{}[][]", field.path),
        name if name.starts_with("list") => format!("{}[]", field.path),
        "map" => format!("{}.x", field.path),
        _ => field.path,
    };
    values.map(path).collect()
}

#[test]
fn diagnostics_contain_no_value_of_a_secret_or_vault() {
    let (mut rejected, mut named, mut number) = (0, 0, 0);
    let mut leaks = Vec::new();
    for kind in REGISTRY.iter() {
        let address_pool = GatewayAddressPool::loopback(vec![]);
        let mut harness = CompilerHarness::new(AddressProvider::Pool(address_pool), AddressState::default());
        let mut plugins = Vec::new();
        for path in paths(kind) {
            let references = TEXTS.map(|text| (Way::Reference, text));
            let others = [Way::Patch, Way::ConfigFrom, Way::Vault].map(|way| (way, TEXTS[plugins.len() % TEXTS.len()]));
            for (way, text) in references.into_iter().chain(others) {
                number += 1;
                let name = format!("p{number}");
                plugins.push((name.clone(), path.clone(), way, objects(&name, kind, &path, way, text)));
            }
        }
        let secrets: Vec<&str> = plugins.iter().map(|(name, ..)| &**name).collect();
        let config = json!({"namespace": "a", "secrets": secrets});
        let vault = json!({
            "metadata": {"name": "shared", "annotations": {"kubernetes.io/ingress.class": "portico"}},
            "spec": {"backend": "kubernetes", "prefix": "shared", "config": config},
        });
        let mut upserts = initial_objects();
        upserts.push(parse(Kind::KongVault, vault));
        upserts.extend(plugins.iter().flat_map(|(.., objects)| objects.clone()));
        // Each of them on a rule of its own, which reports Services that plugins choose.
        upserts.extend(secrets.iter().map(|name| {
            let metadata = json!({"namespace": "a", "name": name, "annotations": {"konghq.com/plugins": name}});
            let backend = json!({"name": "s", "port": 80});
            let spec = json!({"parentRefs": [{"name": "g"}], "rules": [{"backendRefs": [backend]}]});
            parse(Kind::HttpRoute, json!({"metadata": metadata, "spec": spec}))
        }));
        harness.apply(Batch { upserts, removes: vec![] });
        for (name, path, way, _) in &plugins {
            for of in [Kind::KongPlugin, Kind::HttpRoute] {
                let verdict = &harness.compiler.verdicts()[&ObjectId::new(of, ObjectKey::new("a", name))];
                let shown = format!("{verdict:?}");
                if let Some(start) = shown.to_lowercase().find(CANARY) {
                    let before: String = shown.chars().take(start).collect();
                    let message = before.rfind("Diagnostic {").map_or(&*before, |at| &before[at..]);
                    leaks.push(format!("{} {path}, {way:?}, {of}: {message}", kind.name()));
                }
                rejected += usize::from(of == Kind::KongPlugin && shown.contains("ObjectInvalid"));
                named += usize::from(shown.contains(&format!("Secret {name}")) || shown.contains("{vault://"));
            }
        }
    }
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
    assert!(rejected > 500 && named > 100, "{rejected} plugins were rejected, {named} messages named a reference");
}
