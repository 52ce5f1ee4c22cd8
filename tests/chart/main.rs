//! Compares the files of the chart with their sources: flags, RBAC rules, CRDs and versions. e2e/tests/helm tests the
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
    expect_file("values.yaml", &flags::values_with_flags(&read("values.yaml")));
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
    expect_file("values.schema.json", &(serde_json::to_string_pretty(&schema).unwrap() + "\n"));
}

#[test]
fn schema_permits_the_sizes_that_the_program_accepts() {
    let schema = &flags::schemas()["client-min-rate"];
    assert!(schema["type"].as_array().unwrap().contains(&"integer".into()), "{schema}");
    let pattern = regex::Regex::new(schema["pattern"].as_str().unwrap()).unwrap();
    let valid = ["0", "500", "500B", "16KiB", "16Ki", "1MiB", "1Gi"].map(|size| (size, true));
    let invalid = ["KiB", "16K", "16kB", "1.5MiB", "-1"].map(|size| (size, false));
    for (size, is_valid) in valid.into_iter().chain(invalid) {
        let arguments = ["portico", "run", "--kubernetes", &format!("--client-min-rate={size}")];
        let parsed = portico::args::command().try_get_matches_from(arguments);
        assert_eq!((parsed.is_ok(), pattern.is_match(size)), (is_valid, is_valid), "{size}");
    }
}

#[test]
fn the_readme_lists_every_value() {
    let values = Values::read(&read("values.yaml"));
    let introduction = read("README.md.in");
    expect_file("README.md", &format!("{introduction}\n{}", values.tables()));
}

/// The template must know which flags are switches, since those have no value.
#[test]
fn switches_match_the_program() {
    let template = read("templates/_flags.tpl");
    let (before, rest) = template.split_once("$switches := list").unwrap();
    let (_, after) = rest.split_once(" }}").unwrap();
    let switches: String = flags::switches().iter().map(|name| format!(" \"{name}\"")).collect();
    expect_file("templates/_flags.tpl", &format!("{before}$switches := list{switches} }}}}{after}"));
}

#[test]
fn rbac_rules_match_the_manifests() {
    let manifest = |name: &str| fs::read_to_string(root().join("manifests/base").join(name)).unwrap();
    let cluster_role = rules::parse(&manifest("cluster-role.yaml"));
    let own_namespace_role = rules::parse(&manifest("role.yaml"));
    let split_rules = rules::split(&cluster_role);
    expect_file("files/rbac/everywhere.yaml", &rules::to_yaml(&cluster_role));
    expect_file("files/rbac/cluster.yaml", &rules::to_yaml(&split_rules.cluster));
    expect_file("files/rbac/namespaced.yaml", &rules::to_yaml(&split_rules.namespaced));
    expect_file("files/rbac/events.yaml", &rules::to_yaml(&split_rules.events));
    // The Lease may be in another namespace than the Pods.
    let (election, without_leases): (Vec<_>, Vec<_>) =
        own_namespace_role.iter().cloned().partition(rules::Rule::is_of_leases);
    expect_file("files/rbac/election.yaml", &rules::to_yaml(&election));
    expect_file("files/rbac/home.yaml", &rules::to_yaml(&without_leases));

    // The split roles grant exactly what the program needs.
    let granted = |rules: &[rules::Rule]| rules.iter().flat_map(rules::Rule::permissions).collect::<BTreeSet<_>>();
    let needed: BTreeSet<_> = permissions::watched_namespace_permissions().iter().map(rules::permission_name).collect();
    let (cluster, namespaced) = (granted(&split_rules.cluster), granted(&split_rules.namespaced));
    assert!(cluster.is_disjoint(&namespaced), "{:?} is in both", cluster.intersection(&namespaced).next());
    assert_eq!(cluster.union(&namespaced).cloned().collect::<BTreeSet<_>>(), needed);
    assert!(granted(&split_rules.events).is_subset(&namespaced));
    assert_eq!(
        granted(&own_namespace_role),
        permissions::own_namespace_permissions().iter().map(rules::permission_name).collect()
    );
}

#[test]
fn crds_match_the_program() {
    let expected: BTreeMap<String, String> = portico::app::crds().into_iter().collect();
    for (name, text) in &expected {
        expect_file(&format!("files/crds/{name}"), text);
    }
    let entries = fs::read_dir(folder().join("files/crds")).unwrap();
    let files: BTreeSet<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files, expected.into_keys().collect());
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
    let template_default = |flag: &str| {
        let (_, rest) = template.split_once(&format!(".Values.config \"{flag}\" | default \"")).unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    assert_eq!(Some(template_default("drain-timeout")), flags::default("drain-timeout"));
    let delay = portico::args::DRAIN_DELAY_IN_CLUSTER.as_secs();
    assert_eq!(template_default("drain-delay"), format!("{delay}s"));
    assert!(flags::help("drain-delay").contains(&format!("or {delay}s in a cluster")));
}

/// Templates read some flags in `config`. The list `portico.followed` of flags that must not be set elsewhere has all
/// of them.
#[test]
fn flags_read_by_templates_are_restricted_to_config() {
    let template = read("templates/_flags.tpl");
    let list = |name: &str| {
        let (_, rest) = template.split_once(&format!("define \"{name}\" -}}}}\n")).unwrap();
        rest.split_once("{{- end }}").unwrap().0.lines()
    };
    let listed: BTreeSet<String> =
        list("portico.followed").map(|line| line.trim_start_matches("- ").to_owned()).collect();
    let listens = list("portico.listens").map(|line| line.split_once(':').unwrap().0.to_owned());
    let mut read_by_templates: BTreeSet<String> = listens.collect();
    for text in templates().values() {
        let quoted = text.split('"').skip(1).step_by(2);
        read_by_templates.extend(quoted.filter(|word| flags::environment_variable(word).is_some()).map(str::to_owned));
    }
    for switch in flags::switches() {
        read_by_templates.remove(&switch);
    }
    assert_eq!(listed, read_by_templates, "templates/_flags.tpl, portico.followed");
    for flag in listed {
        let expected = format!("PORTICO_{}", flag.to_uppercase().replace('-', "_"));
        assert_eq!(flags::environment_variable(&flag), Some(expected), "templates/_check.tpl looks for this name");
    }
}

/// Errors of templates have the form `VALUE: ERROR; FIX`.
#[test]
fn template_errors_name_value_and_fix() {
    let templates = templates();
    let lines = templates.values().flat_map(|text| text.lines());
    let messages: Vec<&str> = lines.filter_map(|line| line.split_once("fail ").map(|(_, rest)| rest)).collect();
    assert!(messages.len() > 30, "{messages:?}");
    for message in messages {
        let message = message.trim_start_matches("(printf ").trim_start_matches('"');
        let (value, rest) = message.split_once(' ').unwrap();
        assert!(value.ends_with(':') || value == "%s", "{message}: does not start with a value");
        assert!(rest.contains("; "), "{message}: has no fix after `; `");
    }
}

/// Template texts by file name.
fn templates() -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder().join("templates")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| (name.clone(), read(&format!("templates/{name}")))).collect()
}

/// Compares a file of the chart with its expected text, or rewrites it if `UPDATE` is set.
fn expect_file(name: &str, expected: &str) {
    let path = folder().join(name);
    let actual = fs::read_to_string(&path).unwrap_or_default();
    if std::env::var_os("UPDATE").is_some() && actual != expected {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, expected).unwrap();
        return;
    }
    assert!(
        actual == expected,
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
