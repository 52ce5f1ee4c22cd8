//! Compares the chart's files with their sources: flags, RBAC rules, CRDs and versions. e2e/tests/helm tests the
//! rendered chart. `UPDATE=1` rewrites generated files.

mod flags;
mod rules;
mod schema;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use portico::k8s::permissions;
use serde_json::Value;

use values::Values;

#[test]
fn every_flag_is_a_value() {
    same_file("values.yaml", &flags::written_into(&read("values.yaml")));
}

#[test]
fn schema_matches_the_values() {
    let values = Values::read(&read("values.yaml"));
    let mut schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let findings = schema::findings(&schema, &values);
    assert!(findings.is_empty(), "values.schema.json:\n{}", findings.join("\n"));
    schema::describe(&mut schema, &values);
    schema::require(&mut schema, &values);
    schema["properties"]["config"]["properties"] = flags::schemas();
    same_file("values.schema.json", &(serde_json::to_string_pretty(&schema).unwrap() + "\n"));
}

#[test]
fn the_readme_lists_every_value() {
    let values = Values::read(&read("values.yaml"));
    let introduction = read("README.md.in");
    same_file("README.md", &format!("{introduction}\n{}", values.tables()));
}

/// The template must know which flags are switches, since those have no value.
#[test]
fn switches_match_the_program() {
    let template = read("templates/_flags.tpl");
    let (before, rest) = template.split_once("$switches := list").unwrap();
    let (_, after) = rest.split_once(" }}").unwrap();
    let switches: String = flags::switches().iter().map(|name| format!(" \"{name}\"")).collect();
    same_file("templates/_flags.tpl", &format!("{before}$switches := list{switches} }}}}{after}"));
}

#[test]
fn rbac_rules_match_the_manifests() {
    let manifest = |name: &str| fs::read_to_string(root().join("manifests/base").join(name)).unwrap();
    let everywhere = rules::parse(&manifest("cluster-role.yaml"));
    let home = rules::parse(&manifest("role.yaml"));
    let parts = rules::split(&everywhere);
    same_file("files/rbac/everywhere.yaml", &rules::text(&everywhere));
    same_file("files/rbac/cluster.yaml", &rules::text(&parts.cluster));
    same_file("files/rbac/namespaced.yaml", &rules::text(&parts.namespaced));
    same_file("files/rbac/events.yaml", &rules::text(&parts.events));
    // The Lease may be in another namespace than the Pods.
    let (election, of_pods): (Vec<_>, Vec<_>) = home.iter().cloned().partition(rules::Rule::is_of_leases);
    same_file("files/rbac/election.yaml", &rules::text(&election));
    same_file("files/rbac/home.yaml", &rules::text(&of_pods));

    // The split roles grant exactly what the program needs.
    let granted = |rules: &[rules::Rule]| rules.iter().flat_map(rules::Rule::permissions).collect::<BTreeSet<_>>();
    let asked: BTreeSet<_> = permissions::watched_namespace_permissions().iter().map(rules::name).collect();
    let (cluster, namespaced) = (granted(&parts.cluster), granted(&parts.namespaced));
    assert!(cluster.is_disjoint(&namespaced), "{:?} is in both", cluster.intersection(&namespaced).next());
    assert_eq!(cluster.union(&namespaced).cloned().collect::<BTreeSet<_>>(), asked);
    assert!(granted(&parts.events).is_subset(&namespaced));
    assert_eq!(granted(&home), permissions::own_namespace_permissions().iter().map(rules::name).collect());
}

#[test]
fn crds_match_the_program() {
    let expected: BTreeMap<String, String> = portico::app::crds().into_iter().collect();
    for (name, text) in &expected {
        same_file(&format!("files/crds/{name}"), text);
    }
    let entries = fs::read_dir(folder().join("files/crds")).unwrap();
    let found: BTreeSet<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, expected.into_keys().collect());
}

#[test]
fn chart_version_matches_the_program() {
    let chart: Value = serde_saphyr::from_str(&read("Chart.yaml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!((chart["version"].as_str(), chart["appVersion"].as_str()), (Some(version), Some(version)));
}

/// The termination grace period follows from these defaults if the flags are not set.
#[test]
fn drain_defaults_match_the_program() {
    let template = read("templates/_flags.tpl");
    let default = |flag: &str| {
        let (_, rest) = template.split_once(&format!(".Values.config \"{flag}\" | default \"")).unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    assert_eq!(Some(default("drain-timeout")), flags::default("drain-timeout"));
    let delay = portico::args::DRAIN_DELAY_IN_CLUSTER.as_secs();
    assert_eq!(default("drain-delay"), format!("{delay}s"));
    assert!(flags::help("drain-delay").contains(&format!("or {delay}s in a cluster")));
}

/// Flags that a template reads must be set in the place that it reads, and nowhere else.
#[test]
fn flags_read_by_templates_are_restricted_to_config() {
    let template = read("templates/_flags.tpl");
    let list = |name: &str| {
        let (_, rest) = template.split_once(&format!("define \"{name}\" -}}}}\n")).unwrap();
        rest.split_once("{{- end }}").unwrap().0.lines()
    };
    let refused: BTreeSet<String> =
        list("portico.followed").map(|line| line.trim_start_matches("- ").to_owned()).collect();
    let listens = list("portico.listens").map(|line| line.split_once(':').unwrap().0.to_owned());
    let mut read_by_templates: BTreeSet<String> = listens.collect();
    for text in templates().values() {
        let quoted = text.split('"').skip(1).step_by(2);
        read_by_templates.extend(quoted.filter(|word| flags::variable(word).is_some()).map(str::to_owned));
    }
    for switch in flags::switches() {
        read_by_templates.remove(&switch);
    }
    assert_eq!(refused, read_by_templates, "templates/_flags.tpl, portico.followed");
    for flag in refused {
        let expected = format!("PORTICO_{}", flag.to_uppercase().replace('-', "_"));
        assert_eq!(flags::variable(&flag), Some(expected), "templates/_check.tpl looks for this name");
    }
}

/// The Pod spec is also in the manifests; e2e/tests/helm compares both completely.
#[test]
fn template_errors_name_value_and_fix() {
    let templates = templates();
    let lines = templates.values().flat_map(|text| text.lines());
    let messages: Vec<&str> = lines.filter_map(|line| line.split_once("fail ").map(|(_, rest)| rest)).collect();
    assert!(messages.len() > 30, "{messages:?}");
    for message in messages {
        let message = message.trim_start_matches("(printf ").trim_start_matches('"');
        let (value, rest) = message.split_once(' ').unwrap();
        assert!(value.ends_with(':') || value == "%s", "{message}: starts with the value");
        assert!(rest.contains("; "), "{message}: describes the error; and the fix");
    }
}

/// Template texts by file name.
fn templates() -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder().join("templates")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| (name.clone(), read(&format!("templates/{name}")))).collect()
}

/// Compares a file of the chart with its expected text, or rewrites it.
fn same_file(name: &str, expected: &str) {
    let path = folder().join(name);
    let found = fs::read_to_string(&path).unwrap_or_default();
    if std::env::var_os("UPDATE").is_some() && found != expected {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, expected).unwrap();
        return;
    }
    assert!(
        found == expected,
        "charts/portico/{name} is not up to date: UPDATE=1 cargo test --workspace --test library chart::"
    );
}

fn read(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("charts/portico/{name}: {error}"))
}

fn folder() -> PathBuf {
    root().join("charts/portico")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
