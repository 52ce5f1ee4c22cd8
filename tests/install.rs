//! manifests/install.yaml: the file matches its sources, and its objects fit each other and the program. Its roles
//! grant exactly the permissions that the program uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use portico::api::names::{GATEWAY_CONTROLLER, INGRESS_CONTROLLER};
use portico::k8s::permissions::{self, Permission};
use portico::limits::ProxyLimits;
use serde_json::{Value, json};

#[test]
fn install_file_matches_the_base() {
    let rendered = rendered();
    let file = folder().join("install.yaml");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, &rendered).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(written == rendered, "manifests/install.yaml differs from manifests/base; UPDATE=1 rewrites it");

    let listed: BTreeSet<String> = resources().into_iter().collect();
    let files =
        fs::read_dir(folder().join("base")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<String> = files.filter(|name| name != "kustomization.yaml").collect();
    assert_eq!(files, listed, "a file that is not listed in kustomization.yaml is not installed");
}

#[test]
fn roles_grant_exactly_the_used_permissions() {
    for (kind, expected) in [
        ("ClusterRole", permissions::watched_namespace_permissions()),
        ("Role", permissions::own_namespace_permissions()),
    ] {
        let role = only_object(kind);
        let granted = granted(&role);
        let missing: Vec<_> = expected.difference(&granted).collect();
        let unused: Vec<_> = granted.difference(&expected).collect();
        assert!(missing.is_empty() && unused.is_empty(), "{kind} lacks {missing:#?} and grants unused {unused:#?}");
        let count: usize = role["rules"].as_array().unwrap().iter().map(|rule| permissions_of(rule).count()).sum();
        assert_eq!(count, granted.len(), "{kind} grants something twice");
    }
}

/// The program uses a single Lease, that of the leader election, and a single Secret that no object refers to. A create
/// request has no name, so it cannot be restricted.
#[test]
fn permissions_for_own_objects_are_restricted_by_name() {
    let role = only_object("Role");
    let rules = role["rules"].as_array().unwrap().iter();
    let mut restricted = BTreeSet::new();
    for rule in rules {
        let name = match rule["resources"][0].as_str() {
            Some("leases") => permissions::LEASE,
            Some("secrets") => permissions::KEY_SECRET,
            _ => continue,
        };
        let names = rule["resourceNames"].as_array().cloned().unwrap_or_default();
        let expected = if rule["verbs"][0] == "create" { vec![] } else { vec![name] };
        assert_eq!(names, expected, "{rule}");
        restricted.extend(names.iter().map(ToString::to_string));
    }
    assert_eq!(restricted.len(), 2, "{restricted:?}");
}

#[test]
fn every_rbac_rule_has_a_comment() {
    for file in ["base/cluster-role.yaml", "base/role.yaml"] {
        let text = read(file);
        let lines: Vec<&str> = text.lines().collect();
        let rules = lines.iter().enumerate().filter(|(_, line)| line.starts_with("- apiGroups:"));
        for (index, line) in rules {
            assert!(lines[index - 1].starts_with("# "), "{file}:{}: {line}: add a comment above it", index + 1);
        }
    }
}

#[test]
fn objects_have_standard_labels_and_one_namespace() {
    for object in objects() {
        let (kind, metadata) = (&object["kind"], &object["metadata"]);
        assert_eq!(metadata["labels"]["app.kubernetes.io/name"], "portico", "{kind}");
        assert_eq!(metadata["labels"]["app.kubernetes.io/instance"], "portico", "{kind}");
        assert_eq!(metadata["labels"]["app.kubernetes.io/part-of"], "portico", "{kind}");
        // Objects with this label are managed by the program itself.
        assert!(metadata["labels"]["app.kubernetes.io/managed-by"].is_null(), "{kind}");
        match kind.as_str().unwrap() {
            "Namespace" => assert_eq!(metadata["name"], "portico-system"),
            "ClusterRole" | "ClusterRoleBinding" | "GatewayClass" | "IngressClass" => {
                assert!(metadata["namespace"].is_null(), "{kind}")
            }
            "Service" => assert_eq!(metadata["namespace"], "portico-system"),
            _ => assert_eq!((&metadata["name"], &metadata["namespace"]), (&json!("portico"), &json!("portico-system"))),
        }
    }
    assert_eq!(only_object("GatewayClass")["spec"]["controllerName"], GATEWAY_CONTROLLER);
    assert_eq!(only_object("IngressClass")["spec"]["controller"], INGRESS_CONTROLLER);
}

#[test]
fn roles_are_bound_to_the_service_account() {
    let account = json!({"kind": "ServiceAccount", "name": "portico", "namespace": "portico-system"});
    for (binding, role) in [("ClusterRoleBinding", "ClusterRole"), ("RoleBinding", "Role")] {
        let binding = only_object(binding);
        assert_eq!(binding["subjects"], json!([account]));
        let name = only_object(role)["metadata"]["name"].clone();
        let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name});
        assert_eq!(binding["roleRef"], reference);
    }
    assert_eq!(only_object("ServiceAccount")["metadata"]["name"], pod()["serviceAccountName"]);
}

/// After an upgrade that was rolled back, the log was gone with its Pod.
#[test]
fn descriptions_of_pods_have_the_error_that_ended_the_program() {
    assert_eq!(container()["terminationMessagePolicy"], "FallbackToLogsOnError");
    let chart = fs::read_to_string(folder().join("../charts/portico/templates/_pod.tpl")).unwrap();
    assert!(chart.contains("terminationMessagePolicy: FallbackToLogsOnError"), "the chart has the same");
}

#[test]
fn pods_are_unprivileged_and_have_time_to_drain() {
    let deployment = only_object("Deployment");
    let (pod, container) = (pod(), container());
    let selector = &deployment["spec"]["selector"]["matchLabels"];
    assert_eq!(only_object("PodDisruptionBudget")["spec"]["selector"]["matchLabels"], *selector);
    assert_eq!(pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"], *selector);
    assert_eq!(pod["enableServiceLinks"], false, "variables of Services could be parsed as flags");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    for (label, value) in deployment["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&labels[label], value);
    }
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["runAsUser"], 65532, "the user of the Dockerfile");
    assert!(fs::read_to_string(folder().join("../Dockerfile")).unwrap().contains("USER 65532:65532"));
    let context = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
    });
    assert_eq!(container["securityContext"], context);
    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": "status"}));
    }
    let ports: BTreeMap<&str, i64> = container["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| (port["name"].as_str().unwrap(), port["containerPort"].as_i64().unwrap()))
        .collect();
    assert_eq!(ports, BTreeMap::from([("status", 8100), ("http", 8000), ("https", 8443)]));
    assert!(
        container["resources"]["requests"]["cpu"].is_string() && container["resources"]["limits"]["memory"].is_string()
    );

    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(container["image"], format!("portico:{version}"));
    assert_eq!(
        (&labels["app.kubernetes.io/version"], &deployment["metadata"]["labels"]["app.kubernetes.io/version"]),
        (&json!(version), &json!(version))
    );
    let draining = portico::args::DRAIN_DELAY_IN_CLUSTER + ProxyLimits::DEFAULT.listener_grace_period;
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() >= draining.as_secs() + 5);
    let from_fields: Vec<_> = container["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| {
            (variable["name"].as_str().unwrap(), variable["valueFrom"]["fieldRef"]["fieldPath"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        from_fields,
        [("POD_NAME", "metadata.name"), ("POD_NAMESPACE", "metadata.namespace"), ("NODE_NAME", "spec.nodeName"),]
    );
}

/// One Service for Ingresses, whose address is published in their status, and one for metrics.
#[test]
fn services_select_ports_of_the_pods() {
    let services: Vec<Value> = objects().into_iter().filter(|object| object["kind"] == "Service").collect();
    let container = container();
    let selector = only_object("Deployment")["spec"]["selector"]["matchLabels"].clone();
    for service in &services {
        assert_eq!(service["spec"]["selector"], selector);
        for port in service["spec"]["ports"].as_array().unwrap() {
            let has_port =
                container["ports"].as_array().unwrap().iter().any(|pod_port| pod_port["name"] == port["targetPort"]);
            assert!(has_port, "{port}");
        }
    }
    let names: Vec<_> = services.iter().map(|service| service["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["portico", "portico-status"]);
    assert_eq!(services[0]["spec"]["type"], "LoadBalancer");
    assert_eq!(container["args"], json!(["run", "--publish-service=$(POD_NAMESPACE)/portico"]));
}

fn pod() -> Value {
    only_object("Deployment")["spec"]["template"]["spec"].clone()
}

fn container() -> Value {
    let containers = pod()["containers"].clone();
    assert_eq!(containers.as_array().unwrap().len(), 1);
    containers[0].clone()
}

fn granted(role: &Value) -> BTreeSet<Permission> {
    role["rules"].as_array().unwrap().iter().flat_map(permissions_of).collect()
}

fn permissions_of(rule: &Value) -> impl Iterator<Item = Permission> + '_ {
    let words = |field: &str| -> Vec<String> {
        let words = rule[field].as_array().unwrap_or_else(|| panic!("{rule} has no {field}"));
        words.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let (groups, resources, verbs) = (words("apiGroups"), words("resources"), words("verbs"));
    let has_names = !rule["resourceNames"].is_null();
    assert_eq!(rule.as_object().unwrap().len(), 3 + usize::from(has_names), "{rule}");
    groups.into_iter().flat_map(move |group| {
        let verbs = verbs.clone();
        resources.clone().into_iter().flat_map(move |resource| {
            let group = group.clone();
            verbs.clone().into_iter().map(move |verb| Permission {
                group: group.clone(),
                resource: resource.clone(),
                verb: known_verb(&verb),
            })
        })
    })
}

fn known_verb(verb: &str) -> &'static str {
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete"];
    verbs
        .into_iter()
        .find(|known| *known == verb)
        .unwrap_or_else(|| panic!("{verb} is not a verb that the program needs"))
}

/// The only object of a kind.
fn only_object(kind: &str) -> Value {
    let mut found: Vec<Value> = objects().into_iter().filter(|object| object["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind}");
    found.remove(0)
}

fn objects() -> Vec<Value> {
    serde_saphyr::from_multiple(&rendered()).unwrap()
}

/// The files of manifests/base in the order of kustomization.yaml.
fn rendered() -> String {
    let texts: Vec<String> = resources().iter().map(|name| read(&format!("base/{name}"))).collect();
    texts.join("---\n")
}

/// Names of the files in kustomization.yaml.
fn resources() -> Vec<String> {
    let kustomization: Value = serde_saphyr::from_str(&read("base/kustomization.yaml")).unwrap();
    serde_json::from_value(kustomization["resources"].clone()).unwrap()
}

fn read(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("manifests/{name}: {error}"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests")
}
