//! Names and labels, whatever releases are called and whatever others add.

use anyhow::{Context, Result, ensure};
use portico_e2e::helm::Helm;
use serde_json::Value;

use crate::rendered::{name_of, objects, render};

/// Without what there can be one of.
const FOR_SECOND: &str = "crds.install=false,gatewayClass.create=false,ingressClass.create=false";

pub(crate) fn releases_do_not_meet(helm: &Helm) -> Result<()> {
    let names = |release: &str, namespace: &str| -> Result<Vec<String>> {
        Ok(of_release(helm, release, namespace, &["--set", FOR_SECOND])?.iter().map(name_of).collect())
    };
    let first = names("portico", "portico-system")?;
    for (release, namespace) in [("portico", "other"), ("edge", "portico-system")] {
        let second = names(release, namespace)?;
        let both: Vec<_> = first.iter().filter(|name| second.contains(name)).collect();
        ensure!(both.is_empty(), "{both:?}");
    }
    Ok(())
}

/// Helm takes dots, digits and 53 characters in a release's name; a Service takes a letter first, no dots, and 63.
pub(crate) fn every_name_of_a_release_will_do(helm: &Helm) -> Result<()> {
    let long = format!("{}.z", "a".repeat(51));
    for release in ["a.b.c", "1st", "123", "2portico", "true", &long] {
        // In a namespace of digits, too.
        for object in of_release(helm, release, "123", &["--set", "crds.install=false"])? {
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

/// Once each, or YAML would have a key twice: what is said of one object wins over what is said of all.
pub(crate) fn every_label_is_there_once(helm: &Helm) -> Result<()> {
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

    // Those of everything somebody has do not take the place of the chart's own.
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
    ensure!(found == plain && plain[2] == "Helm", "{found:?} are not {plain:?}");
    Ok(())
}

fn of_release(helm: &Helm, release: &str, namespace: &str, settings: &[&str]) -> Result<Vec<Value>> {
    let chart = Helm::chart()?;
    objects(&helm.alone(&[&["template", release, &chart, "--namespace", namespace], settings].concat())?)
}
