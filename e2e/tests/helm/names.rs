//! Names and labels of objects, for all names of releases and additional labels.

use anyhow::{Context, Result, ensure};
use portico_e2e::helm::Helm;
use serde_json::Value;

use crate::helm::rendered::{name_of, objects, render};

/// Without cluster-wide objects that exist only once.
const FOR_SECOND: &str = "crds.install=false,gatewayClass.create=false,ingressClass.create=false";

pub(crate) fn releases_have_distinct_names(helm: &Helm) -> Result<()> {
    let names = |release: &str, namespace: &str| -> Result<Vec<String>> {
        Ok(render_release(helm, release, namespace, &["--set", FOR_SECOND])?.iter().map(name_of).collect())
    };
    let first = names("portico", "portico-system")?;
    for (release, namespace) in [("portico", "other"), ("edge", "portico-system")] {
        let second = names(release, namespace)?;
        let both: Vec<_> = first.iter().filter(|name| second.contains(name)).collect();
        ensure!(both.is_empty(), "{both:?}");
    }
    Ok(())
}

/// Names of releases may have dots, digits and 53 characters; names of Services must start with a letter and have no
/// dots and at most 63 characters.
pub(crate) fn all_release_names_are_valid(helm: &Helm) -> Result<()> {
    let long = format!("{}.z", "a".repeat(51));
    for release in ["a.b.c", "1st", "123", "2portico", "true", &long] {
        // Also in a namespace whose name has only digits.
        for object in render_release(helm, release, "123", &["--set", "crds.install=false"])? {
            let name = object["metadata"]["name"].as_str().with_context(|| format!("{release}: {object:#}"))?;
            if object["kind"] == "Service" {
                let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
                let first = name.starts_with(|first: char| first.is_ascii_lowercase());
                ensure!(first && name.len() <= 63 && name.bytes().all(inside), "{release}: {name}");
            }
            let metadata = [&object["metadata"], &object["spec"]["template"]["metadata"]];
            for labels in metadata.into_iter().filter_map(|metadata| metadata["labels"].as_object()) {
                ensure!(labels.values().all(Value::is_string), "{release}: {labels:?}");
                ensure!(labels["app.kubernetes.io/instance"] == *release, "{release}: {labels:?}");
            }
        }
    }
    Ok(())
}

/// A duplicate key would be invalid YAML. Labels of one object take precedence over common ones.
pub(crate) fn labels_are_unique(helm: &Helm) -> Result<()> {
    let rendered = render(helm, &["--set", "commonLabels.team=all,podLabels.team=pods,service.labels.team=front"])?;
    let team = |kind: &str, part: &str| -> Result<String> {
        let found = rendered.iter().find(|object| object["kind"] == kind).with_context(|| format!("no {kind}"))?;
        Ok(found
            .pointer(&format!("{part}/metadata/labels/team"))
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned())
    };
    let found = [team("Deployment", "")?, team("Deployment", "/spec/template")?, team("Service", "")?];
    ensure!(found == ["all", "pods", "front"], "{found:?}");

    // Common labels do not replace the chart's own labels.
    let common = ["part-of=platform", "managed-by=flux", "version=9"];
    let common = common.map(|label| format!(r"commonLabels.app\.kubernetes\.io/{label}")).join(",");
    let labels = |settings: &[&str]| -> Result<[Value; 5]> {
        let rendered = render(helm, settings)?;
        let workload = rendered.iter().find(|object| object["kind"] == "Deployment").context("no Deployment")?;
        let (own, of_pods) = (&workload["metadata"]["labels"], &workload["spec"]["template"]["metadata"]["labels"]);
        let label = |labels: &Value, name: &str| labels[format!("app.kubernetes.io/{name}")].clone();
        let [part, version] = ["part-of", "version"];
        let all = [(own, part), (own, version), (own, "managed-by"), (of_pods, part), (of_pods, version)];
        Ok(all.map(|(labels, name)| label(labels, name)))
    };
    let (plain, found) = (labels(&[])?, labels(&["--set-string", &common])?);
    ensure!(found == plain && plain[2] == "Helm", "found {found:?}, expected {plain:?}");
    Ok(())
}

fn render_release(helm: &Helm, release: &str, namespace: &str, settings: &[&str]) -> Result<Vec<Value>> {
    let chart = Helm::chart()?;
    objects(&helm.run_without_cluster(&[&["template", release, &chart, "--namespace", namespace], settings].concat())?)
}
