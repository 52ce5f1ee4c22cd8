//! Values of wrong type, that do not exist, or that do not fit each other: what Helm says before it changes anything.

use anyhow::{Result, bail, ensure};
use portico_e2e::helm::Helm;

/// Settings, and words that have to be in the answer: the value, and what would be right.
const REFUSED: &[(&[&str], &[&str])] = &[
    (&["--set", "replicas=two"], &["'/replicas'", "want integer"]),
    (&["--set", "replica=2"], &["'replica' not allowed"]),
    (&["--set", "service.typ=NodePort"], &["'/service'", "'typ' not allowed"]),
    (&["--set", "service.type=Balancer"], &["'/service/type'", "'LoadBalancer', 'NodePort', 'ClusterIP'"]),
    (&["--set", "config.drain-time=1s"], &["'/config'", "'drain-time' not allowed"]),
    (&["--set", "config.drain-timeout=60"], &["'/config/drain-timeout'", "want"]),
    (&["--set-string", "config.drain-timeout=60"], &["'/config/drain-timeout'", "'60' does not match pattern"]),
    (&["--set", "config.log-format=xml"], &["'/config/log-format'", "'text', 'json'"]),
    (&["--set", "config.max-connections=0"], &["'/config/max-connections'", "minimum"]),
    (&["--set", "config.admin-listen=true"], &["'/config/admin-listen'"]),
    (&["--set", "image.tag=a b"], &["'/image/tag'"]),
    (&["--set", "resources=small"], &["'/resources'", "want object"]),
    (&["--set", "extraArgs=--echo"], &["'/extraArgs'", "want array"]),
    (&["--set", "podDisruptionBudget.maxUnavailable=some"], &["'/podDisruptionBudget/maxUnavailable'"]),
    (&["--set", "service.ipFamilyPolicy=RequireDualStack"], &["'/service/ipFamilyPolicy'", "'SingleStack'"]),
    (&["--set", "kind=DaemonSet,autoscaling.enabled=true"], &["autoscaling.enabled:", "set kind to Deployment"]),
    (&["--set", "autoscaling.enabled=true,autoscaling.minReplicas=20"], &["autoscaling.minReplicas: 20", "10"]),
    (
        &["--set", "autoscaling.enabled=true,autoscaling.targetCPUUtilizationPercentage=null"],
        &["autoscaling.enabled:", "set targetCPUUtilizationPercentage"],
    ),
    (&["--set", "podDisruptionBudget.minAvailable=1"], &["podDisruptionBudget:", "set the other to null"]),
    (&["--set", "rbac.namespaced=true"], &["rbac.namespaced:", "set config.watch-namespaces"]),
    (&["--set", "crds.takeOver=true,crds.install=false"], &["crds.takeOver:", "set crds.install to true"]),
    (&["--set", "terminationGracePeriodSeconds=74"], &["terminationGracePeriodSeconds: with 74 s", "75 s"]),
    (
        &["--set", "metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=true"],
        &["metrics:", "enable one of them"],
    ),
    (&["--set", "config.status-listen=off"], &["config.status-listen:", "leave it out"]),
    (
        &["--set", "config.gateway-address-pool=0.0.0.0,config.gateway-service-type=NodePort"],
        &["gateway-address-pool and gateway-service-type", "leave one out"],
    ),
    (&["--set", "hostNetwork=true,networkPolicy.enabled=true"], &["networkPolicy.enabled:", "set it to false"]),
    (
        &["--set", "config.ingress-http-listen=off,config.ingress-https-listen=off"],
        &["service.enabled:", "set service.enabled to false"],
    ),
    (&["--set", "config.ingress-http-listen=0.0.0.0:80"], &["config.ingress-http-listen:", "set lowPorts to true"]),
    (&["--kube-version", "1.25"], &["requires kubeVersion: >=1.31"]),
    // A cluster, as its list of API versions shows it.
    (&["--api-versions", "apiregistration.k8s.io/v1"], &["gatewayClass.create:", "install the CRDs of Gateway API"]),
    (
        &["--api-versions", "apiregistration.k8s.io/v1,gateway.networking.k8s.io/v1beta1"],
        &["gatewayClass.create:", "older than release 1.0"],
    ),
    (
        &[
            "--api-versions",
            "apiregistration.k8s.io/v1,gateway.networking.k8s.io/v1/GatewayClass",
            "--set",
            "metrics.serviceMonitor.enabled=true",
        ],
        &["metrics.serviceMonitor.enabled:", "install the Prometheus operator first"],
    ),
];

pub(crate) fn values_that_cannot_be(helm: &Helm) -> Result<()> {
    let chart = Helm::chart()?;
    for (settings, words) in REFUSED {
        let answer = match helm.alone(&[&["template", "portico", &chart], *settings].concat()) {
            Ok(_) => bail!("{settings:?} is taken"),
            Err(error) => error.to_string(),
        };
        for word in *words {
            ensure!(answer.contains(word), "{settings:?}: `{word}` is not in\n{answer}");
        }
    }
    Ok(())
}
