//! What a Service says about near endpoints: `spec.trafficDistribution`, or the older annotation for topology aware
//! routing.

use crate::api::Object;
use crate::api::core::{EndpointSlice, Service};
use crate::api::names::{
    SLICE_CONTROLLER, SLICE_MANAGED_BY_LABEL, TOPOLOGY_HINTS_ANNOTATION, TOPOLOGY_MODE_ANNOTATION,
};
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::Diagnostic;

/// What a Service asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::compile) enum TrafficDistribution {
    SameZone,
    SameNode,
    /// No endpoint is near, whatever the hints of the EndpointSlices say.
    Anywhere,
}

impl TrafficDistribution {
    /// `None` if the Service asks for nothing, or for what only the hints in its EndpointSlices say. A field with a
    /// value of a newer Kubernetes replaces the annotation as well.
    pub(super) fn of(service: &Object<Service>, slices: &[&Object<EndpointSlice>]) -> Option<Self> {
        if let Some(distribution) = service.spec.traffic_distribution.as_deref() {
            return match distribution {
                "PreferSameZone" | "PreferClose" => Some(TrafficDistribution::SameZone),
                "PreferSameNode" => Some(TrafficDistribution::SameNode),
                _ => None,
            };
        }
        match topology_mode(service)? {
            (_, "Disabled" | "disabled") => Some(TrafficDistribution::Anywhere),
            // Kubernetes writes no hints if the zones cannot be used evenly, and then no zone is preferred.
            (_, "Auto" | "auto") if !slices.iter().any(|slice| is_written_by_kubernetes(slice)) => {
                Some(TrafficDistribution::SameZone)
            }
            _ => None,
        }
    }

    /// The problem with the annotation of a Service, if it has an effect.
    pub(in crate::compile) fn problem(service: &Object<Service>) -> Option<Diagnostic> {
        let (annotation, mode) = topology_mode(service).filter(|_| service.spec.traffic_distribution.is_none())?;
        let is_known = matches!(mode, "Auto" | "auto" | "Disabled" | "disabled" | "");
        (!is_known).then(|| {
            let message = format!("{mode:?} is not a mode that Portico knows, so the annotation has no effect");
            let remedy = "write Auto or Disabled, or use spec.trafficDistribution instead";
            Diagnostic::warning(annotation_field(annotation), message, remedy)
        })
    }
}

/// The annotation that counts, and its value.
fn topology_mode(service: &Object<Service>) -> Option<(&'static str, &str)> {
    // The order of Kubernetes.
    [TOPOLOGY_HINTS_ANNOTATION, TOPOLOGY_MODE_ANNOTATION]
        .into_iter()
        .find_map(|annotation| Some((annotation, &**service.meta.annotations.get(annotation)?)))
}

fn is_written_by_kubernetes(slice: &Object<EndpointSlice>) -> bool {
    slice.meta.labels.get(SLICE_MANAGED_BY_LABEL).is_some_and(|manager| **manager == *SLICE_CONTROLLER)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(distribution: Value, annotations: Value) -> Object<Service> {
        let metadata = json!({"namespace": "a", "name": "s", "annotations": annotations});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"trafficDistribution": distribution}})).unwrap()
    }

    fn slice(manager: &str) -> Object<EndpointSlice> {
        let metadata = json!({"namespace": "a", "name": "s-1", "labels": {SLICE_MANAGED_BY_LABEL: manager}});
        serde_json::from_value(json!({"metadata": metadata, "addressType": "IPv4"})).unwrap()
    }

    #[test]
    fn field_precedes_the_annotation() {
        for (value, expected) in [
            (json!("PreferClose"), Some(TrafficDistribution::SameZone)),
            (json!("PreferSameZone"), Some(TrafficDistribution::SameZone)),
            (json!("PreferSameNode"), Some(TrafficDistribution::SameNode)),
            (json!("PreferSamePlanet"), None),
            (json!(null), Some(TrafficDistribution::Anywhere)),
        ] {
            let service = service(value.clone(), json!({TOPOLOGY_MODE_ANNOTATION: "Disabled"}));
            assert_eq!(TrafficDistribution::of(&service, &[]), expected, "{value}");
        }
    }

    #[test]
    fn annotation_acts_through_hints_where_kubernetes_writes_them() {
        let (of_kubernetes, of_others) = (slice(SLICE_CONTROLLER), slice("example.com"));
        for (annotations, expected, expected_in_cluster) in [
            (json!({}), None, None),
            (json!({TOPOLOGY_MODE_ANNOTATION: "Auto"}), Some(TrafficDistribution::SameZone), None),
            (json!({TOPOLOGY_HINTS_ANNOTATION: "auto"}), Some(TrafficDistribution::SameZone), None),
            (json!({TOPOLOGY_MODE_ANNOTATION: "PreferZone"}), None, None),
            (
                json!({TOPOLOGY_MODE_ANNOTATION: "Auto", TOPOLOGY_HINTS_ANNOTATION: "disabled"}),
                Some(TrafficDistribution::Anywhere),
                Some(TrafficDistribution::Anywhere),
            ),
        ] {
            let service = service(Value::Null, annotations.clone());
            assert_eq!(TrafficDistribution::of(&service, &[&of_others]), expected, "{annotations}");
            let in_cluster = TrafficDistribution::of(&service, &[&of_others, &of_kubernetes]);
            assert_eq!(in_cluster, expected_in_cluster, "{annotations}");
        }
    }

    #[test]
    fn unknown_modes_are_reported_where_they_would_count() {
        let problem = |distribution, annotations| {
            TrafficDistribution::problem(&service(distribution, annotations)).map(|problem| problem.to_string())
        };
        let unknown = || json!({TOPOLOGY_MODE_ANNOTATION: "Zone"});
        assert_eq!(
            problem(Value::Null, unknown()).unwrap(),
            "metadata.annotations[service.kubernetes.io/topology-mode]: \"Zone\" is not a mode that Portico knows, so \
             the annotation has no effect; write Auto or Disabled, or use spec.trafficDistribution instead"
        );
        assert_eq!(problem(json!("PreferSameZone"), unknown()), None);
        assert_eq!(problem(Value::Null, json!({TOPOLOGY_HINTS_ANNOTATION: "Auto"})), None);
        assert_eq!(problem(Value::Null, json!({})), None);
    }
}
