{{/* What the schema cannot see: values that do not fit each other, or the cluster. */}}

{{- define "portico.check" -}}
{{- include "portico.check.values" . }}
{{- include "portico.check.network" . }}
{{- include "portico.check.cluster" . }}
{{- end }}

{{- define "portico.check.values" -}}
{{- $config := .Values.config }}
{{- $scaling := .Values.autoscaling }}
{{- if $scaling.enabled }}
{{- if ne .Values.kind "Deployment" }}
{{- fail "autoscaling.enabled: a DaemonSet has one Pod on each node and cannot be scaled; set kind to Deployment, or autoscaling.enabled to false" }}
{{- end }}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) }}
{{- fail (printf "autoscaling.minReplicas: %v is more than autoscaling.maxReplicas, %v; lower one or raise the other" $scaling.minReplicas $scaling.maxReplicas) }}
{{- end }}
{{- if not (or $scaling.targetCPUUtilizationPercentage $scaling.targetMemoryUtilizationPercentage $scaling.metrics) }}
{{- fail "autoscaling.enabled: there is nothing to scale by; set targetCPUUtilizationPercentage, targetMemoryUtilizationPercentage or metrics" }}
{{- end }}
{{- end }}
{{- $budget := .Values.podDisruptionBudget }}
{{- if $budget.enabled }}
{{- if eq (kindIs "invalid" $budget.minAvailable) (kindIs "invalid" $budget.maxUnavailable) }}
{{- fail "podDisruptionBudget: exactly one of minAvailable and maxUnavailable has to be set; set the other to null" }}
{{- end }}
{{- end }}
{{- if and .Values.rbac.namespaced (empty (include "portico.namespaces" . | fromYamlArray)) }}
{{- fail "rbac.namespaced: without a list of namespaces all are watched, which takes rights in all; set config.watch-namespaces" }}
{{- end }}
{{- if and .Values.crds.takeOver (not .Values.crds.install) }}
{{- fail "crds.takeOver: nothing is taken over unless it is installed; set crds.install to true" }}
{{- end }}
{{- $needed := include "portico.ending" . | int }}
{{- with .Values.terminationGracePeriodSeconds }}
{{- if lt (int .) $needed }}
{{- fail (printf "terminationGracePeriodSeconds: with %v s requests would be cut off, since drain-delay, drain-timeout and a preStop sleep take %d s with a little to spare; raise it, or lower config.drain-timeout" . $needed) }}
{{- end }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled }}
{{- fail "metrics: with both serviceMonitor and podMonitor everything would be counted twice; enable one of them" }}
{{- end }}
{{- if has (index $config "status-listen") (list "off" false) }}
{{- if not (kindIs "invalid" (index $config "status-listen")) }}
{{- fail "config.status-listen: probes ask there whether a Pod is ready, so it cannot be off; leave it out" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "portico.check.network" -}}
{{- $config := .Values.config }}
{{- if and (index $config "gateway-address-pool") (index $config "gateway-service-type") }}
{{- fail "config: gateway-address-pool and gateway-service-type are both set, and a Gateway gets its address from one of them; leave one out" }}
{{- end }}
{{- if and .Values.hostNetwork .Values.networkPolicy.enabled }}
{{- fail "networkPolicy.enabled: a NetworkPolicy has no effect on Pods of the host's network; set it to false and guard the nodes, or set hostNetwork to false" }}
{{- end }}
{{- $http := include "portico.port" (dict "root" . "flag" "ingress-http-listen" "usual" 8000) }}
{{- $https := include "portico.port" (dict "root" . "flag" "ingress-https-listen" "usual" 8443) }}
{{- if and .Values.service.enabled (eq $http "0") (eq $https "0") }}
{{- fail "service.enabled: with ingress-http-listen and ingress-https-listen off there is no port for the Service of Ingresses; set service.enabled to false" }}
{{- end }}
{{- if not .Values.lowPorts }}
{{- range $flag, $port := dict "ingress-http-listen" $http "ingress-https-listen" $https }}
{{- if and (ne $port "0") (lt (int $port) 1024) }}
{{- fail (printf "config.%s: a program without privileges cannot listen on port %s; set lowPorts to true, or choose a port above 1023" $flag $port) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "portico.check.cluster" -}}
{{- $has := .Capabilities.APIVersions }}
{{- /* Every API server has this one, and Helm without a server does not know it. */}}
{{- if $has.Has "apiregistration.k8s.io/v1" }}
{{- if and .Values.gatewayClass.create (not ($has.Has "gateway.networking.k8s.io/v1/GatewayClass")) }}
{{- $old := ternary "; those that are installed are older than release 1.0" "" ($has.Has "gateway.networking.k8s.io/v1beta1") }}
{{- fail (printf "gatewayClass.create: this cluster has no kind GatewayClass of gateway.networking.k8s.io/v1%s; install the CRDs of Gateway API 1.7 first (https://gateway-api.sigs.k8s.io/guides/), or set gatewayClass.create to false if only Ingresses are to be served" $old) }}
{{- end }}
{{- $monitors := .Values.metrics }}
{{- range $name := list "serviceMonitor" "podMonitor" "prometheusRule" }}
{{- if and (get $monitors $name).enabled (not ($has.Has (printf "monitoring.coreos.com/v1/%s" (title $name)))) }}
{{- fail (printf "metrics.%s.enabled: this cluster has no kind %s; install the Prometheus operator first, or set it to false" $name (title $name)) }}
{{- end }}
{{- end }}
{{- end }}
{{- $release := .Release }}
{{- $name := include "portico.name" . }}
{{- range $kind := list "Deployment" "DaemonSet" }}
{{- range (lookup "apps/v1" $kind $release.Namespace "").items }}
{{- $labels := .metadata.labels | default dict }}
{{- if and (eq (get $labels "app.kubernetes.io/part-of") "portico") (ne (get $labels "app.kubernetes.io/instance") $release.Name) }}
{{- fail (printf "%s %s in namespace %s is a Portico already, and two in one namespace would take their Lease from each other; choose another namespace, or upgrade that one (release %s)" $kind .metadata.name $release.Namespace (get $labels "app.kubernetes.io/instance" | default "unknown")) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
