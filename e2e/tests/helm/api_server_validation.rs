//! Validates all objects that the chart renders, with many settings, on an API server.

use anyhow::{Context, Result, ensure};
use portico_e2e::cluster::Cluster;
use portico_e2e::helm::Helm;
use serde_json::{Value, json};

use crate::helm::rendered::{NAMESPACE, render};

/// The API version of objects of the Prometheus operator. Its CRDs are not installed, so the API server cannot validate
/// these objects.
const OPERATOR_VERSION: &str = "monitoring.coreos.com/v1";

/// Values files, as JSON.
const SETTINGS: &[&str] = &[
    r#"{}"#,
    r#"{ "kind": "DaemonSet" }"#,
    r#"{ "kind": "DaemonSet", "hostNetwork": true, "lowPorts": true, "service": { "enabled": false },
        "config": { "gateway-address-pool": ["0.0.0.0"], "ingress-http-listen": "0.0.0.0:81" } }"#,
    r#"{ "lowPorts": true, "updateStrategy": { "type": "Recreate" }, "replicas": 1, "minReadySeconds": 3,
        "progressDeadlineSeconds": 60, "revisionHistoryLimit": 2, "annotations": { "a": "b" } }"#,
    r#"{ "autoscaling": { "enabled": true, "targetMemoryUtilizationPercentage": 70,
        "behavior": { "scaleDown": { "stabilizationWindowSeconds": 600 } },
        "metrics": [{ "type": "Pods", "pods": { "metric": { "name": "requests" },
            "target": { "type": "AverageValue", "averageValue": "100" } } }] },
        "podDisruptionBudget": { "minAvailable": "50%", "maxUnavailable": null } }"#,
    r#"{ "service": { "type": "NodePort", "nodePorts": { "http": 30080, "https": 30443 }, "externalTrafficPolicy": "Local",
        "internalTrafficPolicy": "Local", "sessionAffinity": "ClientIP", "trafficDistribution": "PreferSameZone",
        "externalIPs": ["192.0.2.1"], "labels": { "a": "b" } }, "config": { "gateway-service-type": "NodePort" } }"#,
    r#"{ "service": { "ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack", "loadBalancerClass": "example.com/one",
        "loadBalancerSourceRanges": ["2001:db8::/32"], "allocateLoadBalancerNodePorts": false, "annotations": { "a": "b" },
        "externalTrafficPolicy": "Local", "healthCheckNodePort": 30099 } }"#,
    r#"{ "service": { "type": "ClusterIP", "clusterIP": "None", "ports": { "http": 8080, "https": 8443 } } }"#,
    r#"{ "rbac": { "namespaced": true }, "config": { "watch-namespaces": ["shop", "blog"], "leader-election-namespace": "shop" } }"#,
    r#"{ "kind": "DaemonSet", "podDisruptionBudget": { "minAvailable": 3 }, "networkPolicy": { "enabled": true },
        "config": { "gateway-address-pool": ["192.0.2.0/24"], "status-listen": "0.0.0.0:9100", "admin-listen": false } }"#,
    r#"{ "rbac": { "create": false }, "serviceAccount": { "create": false, "name": "somebody" },
        "gatewayClass": { "create": false }, "ingressClass": { "create": false }, "crds": { "install": false } }"#,
    r#"{ "gatewayClass": { "name": "edge", "description": "for \"all\"", "annotations": { "a": "b" } },
        "ingressClass": { "name": "edge", "default": true, "parameters": { "apiGroup": "configuration.konghq.com",
            "kind": "IngressClassParameters", "name": "kong", "namespace": "portico-system", "scope": "Namespace" } },
        "crds": { "keep": false, "annotations": { "a": "b" } }, "serviceAccount": { "annotations": { "a": "b" } } }"#,
    r#"{ "networkPolicy": { "enabled": true, "clients": [{ "ipBlock": { "cidr": "192.0.2.0/24" } }],
        "metrics": [{ "namespaceSelector": { "matchLabels": { "a": "b" } } }], "egress": [{}],
        "extraIngress": [{ "ports": [{ "port": 9000 }] }] } }"#,
    r#"{ "metrics": { "podAnnotations": false, "service": { "annotations": { "a": "b" }, "labels": { "c": "d" } },
        "serviceMonitor": { "enabled": true, "interval": "1s", "scrapeTimeout": "500ms", "labels": { "a": "b" },
            "namespace": "shop", "relabelings": [{ "action": "labeldrop", "regex": "x" }] },
        "prometheusRule": { "enabled": true, "additionalGroups": [{ "name": "mine", "rules": [] }] } } }"#,
    r#"{ "metrics": { "podMonitor": { "enabled": true, "metricRelabelings": [{ "action": "labeldrop", "regex": "x" }] } } }"#,
    r#"{ "nameOverride": "edge", "fullnameOverride": "the-edge", "commonLabels": { "team": "edge" },
        "podLabels": { "a": "b" }, "podAnnotations": { "c": "d" }, "image": { "registry": "registry.example",
        "digest": "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "pullPolicy": "Always" },
        "imagePullSecrets": [{ "name": "registry" }] }"#,
    r#"{ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": { "matchLabels": { "app.kubernetes.io/instance": "{{ .Release.Name }}" } } }] } },
        "topologySpreadConstraints": [], "nodeSelector": { "kubernetes.io/os": "linux" },
        "tolerations": [{ "operator": "Exists" }], "priorityClassName": "system-cluster-critical",
        "runtimeClassName": "gvisor", "schedulerName": "other", "dnsPolicy": "None",
        "dnsConfig": { "nameservers": ["192.0.2.53"] }, "hostAliases": [{ "ip": "192.0.2.2", "hostnames": ["a"] }],
        "startupProbe": { "httpGet": { "path": "/healthz", "port": "status" } }, "livenessProbe": null,
        "lifecycle": { "preStop": { "sleep": { "seconds": 3 } } }, "resources": {}, "enableServiceLinks": true }"#,
    r#"{ "extraArgs": ["--workers=1"], "extraEnv": [{ "name": "PORTICO_LOG_LEVEL", "value": "debug" }],
        "extraEnvFrom": [{ "configMapRef": { "name": "settings", "optional": true } }],
        "extraVolumes": [{ "name": "log", "emptyDir": {} }], "extraVolumeMounts": [{ "name": "log", "mountPath": "/log" }],
        "initContainers": [{ "name": "first", "image": "{{ .Values.image.repository }}" }],
        "extraContainers": [{ "name": "beside", "image": "b" }],
        "extraObjects": [{ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "{{ .Release.Name }}-more" } },
            "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: '{{ .Release.Name }}-text' }"] }"#,
];

pub(crate) async fn validate_many_settings(cluster: &Cluster, helm: &Helm) -> Result<()> {
    for namespace in [NAMESPACE, "shop", "blog"] {
        // The API server then warns of Pods that violate the Pod security standard `restricted`.
        let labels = json!({ "pod-security.kubernetes.io/warn": "restricted" });
        let object =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace, "labels": labels } });
        cluster.apply(&object.to_string()).await?;
    }
    let chart = Helm::chart()?;
    let mut flags: Vec<Vec<String>> = Vec::new();
    for (number, values) in SETTINGS.iter().enumerate() {
        let file = cluster.folder().join(format!("values-{number}.json"));
        std::fs::write(&file, values)?;
        flags.push(vec!["--values".to_owned(), file.to_str().context("a path is not UTF-8")?.to_owned()]);
    }
    for example in std::fs::read_dir(format!("{chart}/examples"))? {
        let path = example?.path();
        flags.push(vec!["--values".to_owned(), path.to_str().context("a path is not UTF-8")?.to_owned()]);
    }
    let mut operator_count = 0;
    for flags in flags {
        let arguments: Vec<&str> = flags.iter().map(String::as_str).collect();
        let objects = render(helm, &arguments).with_context(|| format!("{flags:?}"))?;
        let (operator_objects, objects): (Vec<Value>, Vec<Value>) =
            objects.into_iter().partition(|object| object["apiVersion"] == OPERATOR_VERSION);
        operator_count += operator_objects.len();
        for object in operator_objects {
            let spec = &object["spec"];
            let lists = [&spec["endpoints"], &spec["podMetricsEndpoints"], &spec["groups"]];
            ensure!(lists.iter().any(|list| list.is_array()), "{object}");
        }
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        let output = cluster.apply_dry_run(&list.to_string()).await.with_context(|| format!("{flags:?}"))?;
        ensure!(output.lines().count() >= objects.len(), "{output}");
    }
    ensure!(operator_count == 5, "{operator_count} objects of the Prometheus operator were rendered, expected 5");
    cluster.kubectl(&["delete", "namespaces", "shop", "blog", "--wait=false"]).await.map(drop)
}
