{{/* What the schema cannot see: values that do not fit each other. What does not fit the cluster is in _cluster.tpl. */}}

{{- define "portico.check" -}}
{{- include "portico.check.names" . }}
{{- include "portico.check.scaling" . }}
{{- include "portico.check.budget" . }}
{{- include "portico.check.values" . }}
{{- include "portico.check.flags" . }}
{{- include "portico.check.ports" . }}
{{- include "portico.check.network" . }}
{{- include "portico.check.cluster" . }}
{{- end }}

{{- define "portico.check.names" -}}
{{- $selecting := list "app.kubernetes.io/name" "app.kubernetes.io/instance" }}
{{- $metrics := .Values.metrics }}
{{- $given := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels "service.labels" .Values.service.labels }}
{{- $_ := set $given "gatewayClass.labels" .Values.gatewayClass.labels }}
{{- $_ := set $given "ingressClass.labels" .Values.ingressClass.labels }}
{{- range $name := list "service" "serviceMonitor" "podMonitor" "prometheusRule" "dashboard" }}
{{- $_ := set $given (printf "metrics.%s.labels" $name) (get $metrics $name).labels }}
{{- end }}
{{- range $value, $labels := $given }}
{{- range $label := $selecting }}
{{- if hasKey ($labels | default dict) $label }}
{{- fail (printf "%s: Pods are selected by the label %s, so the chart sets it itself; leave it out, or set nameOverride if it is the name" $value $label) }}
{{- end }}
{{- end }}
{{- /* What people say of everything they have may name others of ours, which win; what is said of one object would be lost. */}}
{{- if ne $value "commonLabels" }}
{{- range $label := ternary (list "app.kubernetes.io/part-of" "app.kubernetes.io/version") (list "app.kubernetes.io/part-of" "app.kubernetes.io/managed-by" "helm.sh/chart") (eq $value "podLabels") }}
{{- if hasKey ($labels | default dict) $label }}
{{- fail (printf "%s: the chart sets the label %s there itself, and its own would win; leave it out" $value $label) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "portico.check.scaling" -}}
{{- $scaling := .Values.autoscaling }}
{{- $resources := .Values.resources | default dict }}
{{- $sidecars := .Values.extraContainers | default list }}
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
{{- range $name, $target := dict "cpu" "targetCPUUtilizationPercentage" "memory" "targetMemoryUtilizationPercentage" }}
{{- if get $scaling $target }}
{{- range $index, $container := prepend $sidecars (dict "resources" $resources) }}
{{- $has := $container.resources | default dict }}
{{- $request := get ($has.requests | default dict) $name | default (get ($has.limits | default dict) $name) }}
{{- if not $request }}
{{- $where := ternary "resources" (printf "extraContainers[%d].resources" (sub $index 1)) (eq $index 0) }}
{{- fail (printf "autoscaling.%s: it is a share of what all containers request, and %s.requests.%s is not set; set it, or set the target to null" $target $where $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* A budget that lets no Pod go holds up every drain of a node. */}}
{{- define "portico.check.budget" -}}
{{- $budget := .Values.podDisruptionBudget }}
{{- if $budget.enabled }}
{{- $least := $budget.minAvailable }}
{{- $most := $budget.maxUnavailable }}
{{- if not (or (kindIs "invalid" $least) (kindIs "invalid" $most)) }}
{{- fail "podDisruptionBudget: minAvailable and maxUnavailable are both set, and Kubernetes takes one of them; set the other to null" }}
{{- end }}
{{- if eq .Values.kind "DaemonSet" }}
{{- /* 1 was a default once, and stands in the values of releases of that time: there is no budget for it, as for null. */}}
{{- if not (or (kindIs "invalid" $most) (eq (include "portico.text" $most) "1")) }}
{{- fail "podDisruptionBudget.maxUnavailable: Kubernetes does not count the Pods that a DaemonSet should have, and would let none go; leave it out, or set minAvailable to a number" }}
{{- end }}
{{- if kindIs "string" $least }}
{{- fail (printf "podDisruptionBudget.minAvailable: Kubernetes does not count the Pods that a DaemonSet should have, so it cannot know what %s is, and would let none go; write a number, or leave it out" $least) }}
{{- end }}
{{- else }}
{{- /* 0 if the number is not the chart's, and then nobody knows what is too many. */}}
{{- $pods := ternary .Values.autoscaling.minReplicas .Values.replicas .Values.autoscaling.enabled | int }}
{{- if and (not (kindIs "invalid" $most)) (eq (trimSuffix "%" (include "portico.text" $most) | atoi) 0) }}
{{- fail (printf "podDisruptionBudget.maxUnavailable: with %s no Pod may ever go, and drains of nodes never end; write 1 or more, or set podDisruptionBudget.enabled to false" (include "portico.text" $most)) }}
{{- end }}
{{- if not (kindIs "invalid" $least) }}
{{- $stay := trimSuffix "%" (include "portico.text" $least) | atoi }}
{{- if kindIs "string" $least }}{{ $stay = div (add (mul $stay $pods) 99) 100 }}{{ end }}
{{- if and (gt $pods 0) (ge (int $stay) $pods) }}
{{- fail (printf "podDisruptionBudget.minAvailable: %s of %d Pods are all of them, so none may ever go, and drains of nodes never end; write less, or have more Pods" (include "portico.text" $least) $pods) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "portico.check.values" -}}
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
{{- end }}

{{- /* Flags where the chart does not see them, though other objects follow them. */}}
{{- define "portico.check.flags" -}}
{{- range $flag := include "portico.followed" . | fromYamlArray }}
{{- range $.Values.extraArgs }}
{{- if regexMatch (printf "^--%s(=|$)" $flag) . }}
{{- fail (printf "extraArgs: %s is followed by other objects of the chart, which look for it among the flags in config; write config.%s instead" . $flag) }}
{{- end }}
{{- end }}
{{- $variable := printf "PORTICO_%s" ($flag | upper | replace "-" "_") }}
{{- range $.Values.extraEnv }}
{{- if eq .name $variable }}
{{- fail (printf "extraEnv: %s is followed by other objects of the chart, which look for it among the flags in config; write config.%s instead" $variable $flag) }}
{{- end }}
{{- end }}
{{- end }}
{{- $known := dict }}
{{- range .Values.extraEnv }}
{{- if has .name (list "POD_NAME" "POD_NAMESPACE") }}
{{- fail (printf "extraEnv: %s is set by the chart, for the election of a leader; leave it out" .name) }}
{{- end }}
{{- if hasKey $known .name }}
{{- fail (printf "extraEnv: %s is there twice; leave one out" .name) }}
{{- end }}
{{- $_ := set $known .name true }}
{{- end }}
{{- end }}

{{- define "portico.check.ports" -}}
{{- $config := .Values.config }}
{{- /* The schema takes what YAML makes of a bare `off`, which is false, and this is the other one. */}}
{{- range $flag, $value := $config }}
{{- if and (kindIs "bool" $value) $value (regexMatch "-(listen|log)$" $flag) }}
{{- fail (printf "config.%s: true says only that there is to be one; write where, or off" $flag) }}
{{- end }}
{{- end }}
{{- if and (eq (toString .Values.lowPorts) "node") (not .Values.hostNetwork) }}
{{- fail "lowPorts: what the nodes let programs do in their network says nothing of the Pods' own; write true, or set hostNetwork to true" }}
{{- end }}
{{- $taken := dict }}
{{- range $flag := include "portico.listens" . | fromYaml | keys | sortAlpha | reverse }}
{{- $port := include "portico.port" (dict "root" $ "flag" $flag) }}
{{- if ne $port "0" }}
{{- if gt (int $port) 65535 }}
{{- fail (printf "config.%s: there is no port %s; write 65535 or less" $flag $port) }}
{{- end }}
{{- with get $taken $port }}
{{- fail (printf "config.%s: port %s is that of %s, too, and the second could not be opened; choose another" $flag $port .) }}
{{- end }}
{{- $_ := set $taken $port (printf "config.%s" $flag) }}
{{- if and (not $.Values.lowPorts) (lt (int $port) (include "portico.unprivileged" $ | int)) }}
{{- $node := ternary ", or to node if net.ipv4.ip_unprivileged_port_start of the nodes lets it" "" $.Values.hostNetwork }}
{{- fail (printf "config.%s: a program without privileges cannot listen on port %s; set lowPorts to true%s, or choose a port above 1023" $flag $port $node) }}
{{- end }}
{{- end }}
{{- end }}
{{- $status := index $config "status-listen" }}
{{- if has $status (list "off" false) }}
{{- if not (kindIs "invalid" $status) }}
{{- fail "config.status-listen: probes ask there whether a Pod is ready, so it cannot be off; leave it out" }}
{{- end }}
{{- end }}
{{- $loopback := "^(localhost|127[.]|\\[::1\\])" }}
{{- if regexMatch $loopback (toString $status) }}
{{- fail (printf "config.status-listen: probes and Prometheus come from outside of the Pod and cannot reach %s; write 0.0.0.0 or [::] as the address, or leave it out" $status) }}
{{- end }}
{{- if .Values.service.enabled }}
{{- range $flag := list "ingress-http-listen" "ingress-https-listen" }}
{{- with index $config $flag }}
{{- if regexMatch $loopback (toString .) }}
{{- fail (printf "config.%s: the Service of Ingresses cannot reach %s; write 0.0.0.0 or [::] as the address, or set service.enabled to false" $flag .) }}
{{- end }}
{{- end }}
{{- end }}
{{- $service := .Values.service }}
{{- /* One that is off has no port in the Service. */}}
{{- if not (or (eq (include "portico.port" (dict "root" . "flag" "ingress-http-listen")) "0") (eq (include "portico.port" (dict "root" . "flag" "ingress-https-listen")) "0")) }}
{{- if eq (int $service.ports.http) (int $service.ports.https) }}
{{- fail (printf "service.ports: http and https are both %v; choose two" $service.ports.http) }}
{{- end }}
{{- $nodes := $service.nodePorts | default dict }}
{{- if and $nodes.http $nodes.https (eq (int $nodes.http) (int $nodes.https)) }}
{{- fail (printf "service.nodePorts: http and https are both %v; choose two, or leave them out" $nodes.http) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The first port that a program without privileges may listen on in the Pod, as far as the values say. On the host's network
Kubernetes takes no such setting. */}}
{{- define "portico.unprivileged" -}}
{{- $first := "1024" }}
{{- if not .Values.hostNetwork }}
{{- range dig "sysctls" list (.Values.podSecurityContext | default dict) }}
{{- if eq (toString .name) "net.ipv4.ip_unprivileged_port_start" }}{{ $first = toString .value }}{{ end }}
{{- end }}
{{- end }}
{{- $first }}
{{- end }}

{{- define "portico.check.network" -}}
{{- $config := .Values.config }}
{{- if and (index $config "gateway-address-pool") (index $config "gateway-service-type") }}
{{- fail "config: gateway-address-pool and gateway-service-type are both set, and a Gateway gets its address from one of them; leave one out" }}
{{- end }}
{{- if and .Values.hostNetwork .Values.gatewayClass.create (not (or (index $config "gateway-address-pool") (index $config "gateway-service-type"))) }}
{{- fail "hostNetwork: each Gateway would still wait for a Service of type LoadBalancer to have an address; set config.gateway-address-pool to [0.0.0.0] for the addresses of the nodes, config.gateway-service-type if a Service is meant, or gatewayClass.create to false if only Ingresses are to be served" }}
{{- end }}
{{- if and .Values.hostNetwork .Values.networkPolicy.enabled }}
{{- fail "networkPolicy.enabled: a NetworkPolicy has no effect on Pods of the host's network; set it to false and guard the nodes, or set hostNetwork to false" }}
{{- end }}
{{- $http := include "portico.port" (dict "root" . "flag" "ingress-http-listen") }}
{{- $https := include "portico.port" (dict "root" . "flag" "ingress-https-listen") }}
{{- if and .Values.service.enabled (eq $http "0") (eq $https "0") }}
{{- fail "service.enabled: with ingress-http-listen and ingress-https-listen off there is no port for the Service of Ingresses; set service.enabled to false" }}
{{- end }}
{{- end }}
