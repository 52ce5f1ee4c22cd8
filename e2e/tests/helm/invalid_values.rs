//! Tests that Helm rejects values with wrong types, unknown names or conflicts, before anything changes.

use anyhow::{Result, bail, ensure};
use portico_e2e::helm::Helm;

/// Flags of Helm with an invalid value, and parts of the error: the value, and what would be right.
const REJECTED: &[(&[&str], &[&str])] = &[
    (&["--set", "replicas=two"], &["'/replicas'", "want null or integer"]),
    (&["--set", "replica=2"], &["'replica' not allowed"]),
    (&["--set", "service.typ=NodePort"], &["'/service'", "'typ' not allowed"]),
    (&["--set", "service.type=Balancer"], &["'/service/type'", "'LoadBalancer', 'NodePort', 'ClusterIP'"]),
    (&["--set", "config.drain-time=1s"], &["'/config'", "'drain-time' not allowed"]),
    (&["--set", "config.drain-timeout=60"], &["'/config/drain-timeout'", "want"]),
    (&["--set-string", "config.drain-timeout=60"], &["'/config/drain-timeout'", "'60' does not match pattern"]),
    (&["--set", "config.log-format=xml"], &["'/config/log-format'", "'text', 'json'"]),
    (&["--set", "config.max-connections=0"], &["'/config/max-connections'", "minimum"]),
    (&["--set", "config.admin-listen=true"], &["config.admin-listen: true", "write where, or off"]),
    (&["--set", "config.access-log=true"], &["config.access-log: true", "write where, or off"]),
    (&["--set", "config.drain-timeout=9999999999h"], &["'/config/drain-timeout'", "does not match pattern"]),
    (&["--set-json", r#"config.gateway-address-pool=[""]"#], &["'/config/gateway-address-pool/0'", "minLength"]),
    (&["--set", "config.echo=off"], &["'/config/echo'", "'off' does not match pattern"]),
    (&["--set", "image.repository=portico:5000"], &["'/image/repository'", "does not match pattern"]),
    (&["--set", "image.registry=https://registry.example"], &["'/image/registry'", "does not match pattern"]),
    (&["--set", "gatewayClass.name=a..b"], &["'/gatewayClass/name'", "does not match pattern"]),
    (&["--set", "podLabels.team=ä"], &["'/podLabels/team'", "'ä' does not match pattern"]),
    (&["--set", "extraObjects={text}"], &["'/extraObjects/0'", "'text' does not match pattern 'kind'"]),
    (&["--set-json", r#"extraObjects=[{"metadata":{}}]"#], &["'/extraObjects/0'", "'apiVersion', 'kind'"]),
    (&["--set", "extraEnv[0].name=A,extraEnv[0].value=5"], &["'/extraEnv/0/value'", "got number, want string"]),
    (&["--set", "extraEnv[0].name=A,extraEnv[1].name=A"], &["extraEnv: A is there twice", "leave one out"]),
    (&["--set", "lifecycle.preStop=x"], &["'/lifecycle/preStop'", "got string, want object"]),
    (&["--set", "image.tag=a b"], &["'/image/tag'"]),
    (&["--set", "resources=small"], &["'/resources'", "want object"]),
    (&["--set", "extraArgs=--echo"], &["'/extraArgs'", "want array"]),
    (
        &["--set", "podDisruptionBudget.maxUnavailable=some"],
        &["'/podDisruptionBudget/maxUnavailable'", "'some' does not match"],
    ),
    (&["--set", "service.ipFamilyPolicy=RequireDualStack"], &["'/service/ipFamilyPolicy'", "'SingleStack'"]),
    (&["--set", "kind=DaemonSet,autoscaling.enabled=true"], &["autoscaling.enabled:", "set kind to Deployment"]),
    (&["--set", "autoscaling.enabled=true,autoscaling.minReplicas=20"], &["autoscaling.minReplicas: 20", "10"]),
    (
        &["--set", "autoscaling.enabled=true,autoscaling.targetCPU=null"],
        &["autoscaling.enabled:", "set targetCPU, targetCPUUtilizationPercentage"],
    ),
    (&["--set", "autoscaling.targetCPU=half"], &["'/autoscaling/targetCPU'", "'half' does not match"]),
    // The API server accepts only targets above zero.
    (&["--set", "autoscaling.targetCPU=0"], &["'/autoscaling/targetCPU'", "minimum"]),
    (&["--set-string", "autoscaling.targetCPU=0"], &["'/autoscaling/targetCPU'", "'0' does not match"]),
    (&["--set", "autoscaling.targetCPU=0m"], &["'/autoscaling/targetCPU'", "'0m' does not match"]),
    (&["--set-string", "autoscaling.targetCPU=0.000"], &["'/autoscaling/targetCPU'", "'0.000' does not match"]),
    (
        &["--set", "autoscaling.enabled=true,autoscaling.targetCPUUtilizationPercentage=80,resources.requests=null"],
        &["autoscaling.targetCPUUtilizationPercentage:", "resources.requests.cpu is not set"],
    ),
    (
        &["--set", "autoscaling.enabled=true,autoscaling.targetCPUUtilizationPercentage=80,resources.requests.cpu=0m"],
        &["autoscaling.targetCPUUtilizationPercentage:", "their sum is 0; raise resources.requests.cpu"],
    ),
    (
        &[
            "--set",
            "autoscaling.enabled=true,autoscaling.targetCPUUtilizationPercentage=80,extraContainers[0].name=beside",
        ],
        &["autoscaling.targetCPUUtilizationPercentage:", "extraContainers[0].resources.requests.cpu is not set"],
    ),
    (
        &["--set", "podDisruptionBudget.minAvailable=1,podDisruptionBudget.maxUnavailable=1"],
        &["podDisruptionBudget:", "set the other to null"],
    ),
    (&["--set", "podDisruptionBudget.maxUnavailable=0"], &["podDisruptionBudget.maxUnavailable: with 0", "write 1"]),
    (&["--set", "podDisruptionBudget.maxUnavailable=0%"], &["podDisruptionBudget.maxUnavailable: with 0%", "write 1"]),
    (
        &["--set", "podDisruptionBudget.minAvailable=2"],
        &["podDisruptionBudget.minAvailable: 2 of 2 Pods", "write less"],
    ),
    (&["--set", "podDisruptionBudget.minAvailable=60%"], &["podDisruptionBudget.minAvailable: 60% of 2 Pods"]),
    (
        &["--set", "autoscaling.enabled=true,autoscaling.minReplicas=4,podDisruptionBudget.minAvailable=4"],
        &["podDisruptionBudget.minAvailable: 4 of 4 Pods", "have more Pods"],
    ),
    (
        &["--set", "kind=DaemonSet,podDisruptionBudget.minAvailable=50%"],
        &["podDisruptionBudget.minAvailable:", "50%", "write a number"],
    ),
    (
        &["--set", "kind=DaemonSet,podDisruptionBudget.maxUnavailable=2"],
        &["podDisruptionBudget.maxUnavailable:", "set minAvailable to a number"],
    ),
    (&["--set", "rbac.namespaced=true"], &["rbac.namespaced:", "set config.watch-namespaces"]),
    (&["--set", "crds.exclude={kongplugins}"], &["crds.exclude: the chart has no CRD kongplugins", "kongplugins.con"]),
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
    (&["--set", "config.status-listen=127.0.0.1:8100"], &["config.status-listen:", "cannot reach", "write 0.0.0.0"]),
    (&["--set", "config.status-listen=[::1]:8100"], &["config.status-listen:", "cannot reach [::1]:8100"]),
    (
        &["--set", "config.ingress-http-listen=localhost:8000"],
        &["config.ingress-http-listen:", "write 0.0.0.0 or [::]"],
    ),
    (&["--set", "config.status-listen=0.0.0.0:0"], &["'/config/status-listen'", "'0.0.0.0:0' does not match pattern"]),
    (&["--set", "config.status-listen=0.0.0.0:70000"], &["config.status-listen: there is no port 70000"]),
    (
        &["--set", "config.ingress-http-listen=0.0.0.0:8443"],
        &["config.ingress-http-listen: port 8443", "config.ingress-https-listen", "choose another"],
    ),
    (&["--set", "config.admin-listen=127.0.0.1:8100"], &["config.admin-listen: port 8100", "config.status-listen"]),
    (&["--set", "service.ports.http=443"], &["service.ports: http and https are both 443", "choose two"]),
    (
        &["--set", "service.nodePorts.http=30080,service.nodePorts.https=30080"],
        &["service.nodePorts: http and https are both 30080", "choose two"],
    ),
    (
        &["--set", "hostNetwork=true"],
        &["hostNetwork:", "set config.gateway-address-pool to [0.0.0.0]", "or gatewayClass.create to false"],
    ),
    (
        &["--set", "hostNetwork=true,networkPolicy.enabled=true,gatewayClass.create=false"],
        &["networkPolicy.enabled:", "set it to false"],
    ),
    (&["--set", "extraArgs={--drain-timeout=5s}"], &["extraArgs: --drain-timeout=5s", "write config.drain-timeout"]),
    (&["--set", "extraArgs={--watch-namespaces,shop}"], &["extraArgs:", "write config.watch-namespaces instead"]),
    (
        &["--set", "extraEnv[0].name=PORTICO_STATUS_LISTEN,extraEnv[0].value=0.0.0.0:1"],
        &["extraEnv: PORTICO_STATUS_LISTEN", "write config.status-listen instead"],
    ),
    (&["--set", "extraEnv[0].name=POD_NAME"], &["extraEnv: POD_NAME is set by the chart", "leave it out"]),
    (&["--set", "extraEnv[0].value=x"], &["'/extraEnv/0'", "missing property 'name'"]),
    (&["--set", r"podLabels.app\.kubernetes\.io/name=x"], &["podLabels:", "app.kubernetes.io/name", "leave it out"]),
    (
        &["--set", r"commonLabels.app\.kubernetes\.io/instance=x"],
        &["commonLabels:", "Pods are selected", "leave it out"],
    ),
    (&["--set", r"podLabels.app\.kubernetes\.io/version=x"], &["podLabels:", "its own would win", "leave it out"]),
    (&["--set", r"service.labels.helm\.sh/chart=x"], &["service.labels:", "helm.sh/chart", "leave it out"]),
    (&["--set", "fullnameOverride=1st"], &["'/fullnameOverride'", "'1st' does not match pattern"]),
    (
        &["--set", "config.ingress-http-listen=off,config.ingress-https-listen=off"],
        &["service.enabled:", "set service.enabled to false"],
    ),
    (
        &["--set", "config.ingress-http-listen=0.0.0.0:80"],
        &["config.ingress-http-listen:", "set lowPorts to true, or choose"],
    ),
    (&["--set", "lowPorts=node"], &["lowPorts:", "write true, or set hostNetwork to true"]),
    // With the host's network, a Pod cannot set this sysctl.
    (
        &[
            "--set",
            "hostNetwork=true,gatewayClass.create=false,config.ingress-http-listen=0.0.0.0:80",
            "--set-json",
            r#"podSecurityContext.sysctls=[{"name":"net.ipv4.ip_unprivileged_port_start","value":"80"}]"#,
        ],
        &["config.ingress-http-listen:", "set lowPorts to true, or to node if"],
    ),
    (
        &[
            "--set",
            "config.ingress-http-listen=0.0.0.0:80",
            "--set-json",
            r#"podSecurityContext.sysctls=[{"name":"net.ipv4.ip_unprivileged_port_start","value":"81"}]"#,
        ],
        &["config.ingress-http-listen:", "port 80;"],
    ),
    (&["--set-json", "tracing.sampling=0.5"], &["tracing: the values for --trace-sampling", "set tracing.endpoint"]),
    (&["--set", "tracing.caSecret.name=ca"], &["tracing: the values for --otlp-ca-file", "set tracing.endpoint"]),
    (
        &["--set", "tracing.endpoint=http://a,config.trace-otlp-endpoint=http://b"],
        &["tracing: config.trace-otlp-endpoint sets the same flag", "leave one of both out"],
    ),
    (
        &["--set", "tracing.endpoint=http://a,tracing.header.limit=5"],
        &["tracing: the values for --trace-header-limit", "set tracing.header.name"],
    ),
    (&["--set", "tracing.endpoint=collector:4318"], &["'/tracing/endpoint'", "does not match pattern"]),
    (&["--kube-version", "1.25"], &["requires kubeVersion: >=1.31"]),
    // With --api-versions, the chart behaves as on a cluster.
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

pub(crate) fn invalid_values_are_rejected(helm: &Helm) -> Result<()> {
    let chart = Helm::chart()?;
    for (settings, words) in REJECTED {
        let error = match helm.run_without_cluster(&[&["template", "portico", &chart], *settings].concat()) {
            Ok(_) => bail!("{settings:?} was accepted"),
            Err(error) => error.to_string(),
        };
        for word in *words {
            ensure!(error.contains(word), "{settings:?}: `{word}` is missing in\n{error}");
        }
    }
    Ok(())
}
