{{/* Checks that the schema cannot express: values that conflict with each other. _cluster.tpl compares values with the cluster. */}}

{{- define "portico.check" -}}
{{- include "portico.check.names" . }}
{{- include "portico.check.scaling" . }}
{{- include "portico.check.budget" . }}
{{- include "portico.check.values" . }}
{{- include "portico.check.flags" . }}
{{- include "portico.check.ports" . }}
{{- include "portico.check.network" . }}
{{- include "portico.check.tracing" . }}
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
{{- fail (printf "%s: Pods are selected by the label %s, so the chart sets it itself; leave it out, or set nameOverride to change the name" $value $label) }}
{{- end }}
{{- end }}
{{- /* commonLabels may contain other labels of the chart, which take precedence; in the labels of one object they would have no effect. */}}
{{- if ne $value "commonLabels" }}
{{- range $label := ternary (list "app.kubernetes.io/part-of" "app.kubernetes.io/version") (list "app.kubernetes.io/part-of" "app.kubernetes.io/managed-by" "helm.sh/chart") (eq $value "podLabels") }}
{{- if hasKey ($labels | default dict) $label }}
{{- fail (printf "%s: the chart sets the label %s itself, and its own would win; leave it out" $value $label) }}
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
{{- if not (or $scaling.targetCPU $scaling.targetCPUUtilizationPercentage $scaling.targetMemoryUtilizationPercentage $scaling.metrics) }}
{{- fail "autoscaling.enabled: no metric to scale by is set; set targetCPU, targetCPUUtilizationPercentage, targetMemoryUtilizationPercentage or metrics" }}
{{- end }}
{{- range $name, $target := dict "cpu" "targetCPUUtilizationPercentage" "memory" "targetMemoryUtilizationPercentage" }}
{{- if get $scaling $target }}
{{- $isZero := true }}
{{- range $index, $container := prepend $sidecars (dict "resources" $resources) }}
{{- $has := $container.resources | default dict }}
{{- $request := get ($has.requests | default dict) $name | default (get ($has.limits | default dict) $name) }}
{{- if not $request }}
{{- $where := ternary "resources" (printf "extraContainers[%d].resources" (sub $index 1)) (eq $index 0) }}
{{- fail (printf "autoscaling.%s: the target is a share of the requests of all containers, and %s.requests.%s is not set; set it, or set the target to null" $target $where $name) }}
{{- end }}
{{- if not (regexMatch "^[0.]+([a-zA-Z]|$)" (toString $request)) }}{{ $isZero = false }}{{ end }}
{{- end }}
{{- /* The autoscaler divides by the sum. */}}
{{- if $isZero }}
{{- fail (printf "autoscaling.%s: the target is a share of the requests of all containers, and their sum is 0; raise resources.requests.%s, or set the target to null" $target $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* A budget that permits no eviction blocks every node drain. */}}
{{- define "portico.check.budget" -}}
{{- $budget := .Values.podDisruptionBudget }}
{{- if $budget.enabled }}
{{- $least := $budget.minAvailable }}
{{- $most := $budget.maxUnavailable }}
{{- if not (or (kindIs "invalid" $least) (kindIs "invalid" $most)) }}
{{- fail "podDisruptionBudget: minAvailable and maxUnavailable are both set, but Kubernetes accepts only one of them; set the other to null" }}
{{- end }}
{{- if eq .Values.kind "DaemonSet" }}
{{- /* 1 was the default of older charts and is stored in the values of their releases: it creates no budget, like null. */}}
{{- if not (or (kindIs "invalid" $most) (eq (include "portico.text" $most) "1")) }}
{{- fail "podDisruptionBudget.maxUnavailable: Kubernetes does not compute the desired number of Pods of a DaemonSet, and would permit no eviction; leave it out, or set minAvailable to a number" }}
{{- end }}
{{- if kindIs "string" $least }}
{{- fail (printf "podDisruptionBudget.minAvailable: Kubernetes does not compute the desired number of Pods of a DaemonSet, so it cannot evaluate %s and would permit no eviction; write a number, or leave it out" $least) }}
{{- end }}
{{- else }}
{{- /* 0 if the chart does not set the number; then the limit cannot be checked. */}}
{{- $pods := ternary .Values.autoscaling.minReplicas .Values.replicas .Values.autoscaling.enabled | int }}
{{- if and (not (kindIs "invalid" $most)) (eq (trimSuffix "%" (include "portico.text" $most) | atoi) 0) }}
{{- fail (printf "podDisruptionBudget.maxUnavailable: with %s no Pod may ever be evicted, and node drains never end; write 1 or more, or set podDisruptionBudget.enabled to false" (include "portico.text" $most)) }}
{{- end }}
{{- if not (kindIs "invalid" $least) }}
{{- $stay := trimSuffix "%" (include "portico.text" $least) | atoi }}
{{- if kindIs "string" $least }}{{ $stay = div (add (mul $stay $pods) 99) 100 }}{{ end }}
{{- if and (gt $pods 0) (ge (int $stay) $pods) }}
{{- fail (printf "podDisruptionBudget.minAvailable: %s of %d Pods are all of them, so none may ever be evicted, and node drains never end; write less, or have more Pods" (include "portico.text" $least) $pods) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "portico.check.values" -}}
{{- if and .Values.rbac.namespaced (empty (include "portico.namespaces" . | fromYamlArray)) }}
{{- fail "rbac.namespaced: without a list of namespaces Portico watches all, and needs permissions in all; set config.watch-namespaces" }}
{{- end }}
{{- if and .Values.crds.takeOver (not .Values.crds.install) }}
{{- fail "crds.takeOver: the chart only takes over CRDs that it installs; set crds.install to true" }}
{{- end }}
{{- $crds := list }}
{{- range $path, $_ := .Files.Glob "files/crds/*.yaml" }}{{ $crds = append $crds ($.Files.Get $path | fromYaml).metadata.name }}{{ end }}
{{- range .Values.crds.exclude }}
{{- if not (has . $crds) }}
{{- fail (printf "crds.exclude: the chart has no CRD %s; write names of these: %s" . (join ", " $crds)) }}
{{- end }}
{{- end }}
{{- $needed := include "portico.ending" . | int }}
{{- with .Values.terminationGracePeriodSeconds }}
{{- if lt (int .) $needed }}
{{- fail (printf "terminationGracePeriodSeconds: with %v s requests would be aborted, because drain-delay, drain-timeout, a preStop sleep and a margin take %d s; raise it, or lower config.drain-timeout" . $needed) }}
{{- end }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled }}
{{- fail "metrics: with both serviceMonitor and podMonitor every Pod would be scraped twice; enable one of them" }}
{{- end }}
{{- end }}

{{- /* Flags that other objects depend on, in places that the chart does not read. */}}
{{- define "portico.check.flags" -}}
{{- range $flag := include "portico.followed" . | fromYamlArray }}
{{- range $.Values.extraArgs }}
{{- if regexMatch (printf "^--%s(=|$)" $flag) . }}
{{- fail (printf "extraArgs: %s sets a flag that other objects of the chart depend on and read only from config; write config.%s instead" . $flag) }}
{{- end }}
{{- end }}
{{- $variable := printf "PORTICO_%s" ($flag | upper | replace "-" "_") }}
{{- range $.Values.extraEnv }}
{{- if eq .name $variable }}
{{- fail (printf "extraEnv: %s sets a flag that other objects of the chart depend on and read only from config; write config.%s instead" $variable $flag) }}
{{- end }}
{{- end }}
{{- end }}
{{- $known := dict }}
{{- range .Values.extraEnv }}
{{- if has .name (list "POD_NAME" "POD_NAMESPACE" "NODE_NAME") }}
{{- fail (printf "extraEnv: %s is set by the chart, for leader election; leave it out" .name) }}
{{- end }}
{{- if hasKey $known .name }}
{{- fail (printf "extraEnv: %s is there twice; leave one out" .name) }}
{{- end }}
{{- $_ := set $known .name true }}
{{- end }}
{{- end }}

{{- define "portico.check.ports" -}}
{{- $config := .Values.config }}
{{- /* YAML parses a bare `off` as false, so the schema accepts booleans; true has no meaning. */}}
{{- range $flag, $value := $config }}
{{- if and (kindIs "bool" $value) $value (regexMatch "-(listen|log)$" $flag) }}
{{- fail (printf "config.%s: true does not name a destination or address; write where, or off" $flag) }}
{{- end }}
{{- end }}
{{- /* In backquotes, because the word is also the name of a flag, which is not read here. */}}
{{- if and (eq (toString .Values.lowPorts) `node`) (not .Values.hostNetwork) }}
{{- fail "lowPorts: node refers to the network of the nodes, but the Pods have their own; write true, or set hostNetwork to true" }}
{{- end }}
{{- $taken := dict }}
{{- range $flag := include "portico.listens" . | fromYaml | keys | sortAlpha | reverse }}
{{- $port := include "portico.port" (dict "root" $ "flag" $flag) }}
{{- if ne $port "0" }}
{{- if gt (int $port) 65535 }}
{{- fail (printf "config.%s: there is no port %s; write 65535 or less" $flag $port) }}
{{- end }}
{{- with get $taken $port }}
{{- fail (printf "config.%s: port %s is also the port of %s, and a process cannot open it twice; choose another" $flag $port .) }}
{{- end }}
{{- $_ := set $taken $port (printf "config.%s" $flag) }}
{{- if and (not $.Values.lowPorts) (lt (int $port) (include "portico.unprivileged" $ | int)) }}
{{- $node := ternary ", or to node if net.ipv4.ip_unprivileged_port_start of the nodes allows it" "" $.Values.hostNetwork }}
{{- fail (printf "config.%s: a process without privileges cannot listen on port %s; set lowPorts to true%s, or choose a port above 1023" $flag $port $node) }}
{{- end }}
{{- end }}
{{- end }}
{{- $status := index $config "status-listen" }}
{{- if has $status (list "off" false) }}
{{- if not (kindIs "invalid" $status) }}
{{- fail "config.status-listen: the probes of the Pods use it, so it cannot be off; leave it out" }}
{{- end }}
{{- end }}
{{- $loopback := "^(localhost|127[.]|\\[::1\\])" }}
{{- if regexMatch $loopback (toString $status) }}
{{- fail (printf "config.status-listen: probes and Prometheus connect from outside of the Pod and cannot reach %s; write 0.0.0.0 or [::] as the address, or leave it out" $status) }}
{{- end }}
{{- if .Values.service.enabled }}
{{- range $flag := list "ingress-http-listen" "ingress-https-listen" }}
{{- with index $config $flag }}
{{- if regexMatch $loopback (toString .) }}
{{- fail (printf "config.%s: the Service for Ingresses cannot reach %s; write 0.0.0.0 or [::] as the address, or set service.enabled to false" $flag .) }}
{{- end }}
{{- end }}
{{- end }}
{{- $service := .Values.service }}
{{- /* A listener that is off has no port in the Service. */}}
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

{{- /* The first port that a process without privileges may listen on in the Pod, according to the values. On the host's network,
Kubernetes does not accept this sysctl. */}}
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
{{- fail "config: gateway-address-pool and gateway-service-type are both set, but a Gateway gets its address from one of them; leave one out" }}
{{- end }}
{{- if and .Values.hostNetwork .Values.gatewayClass.create (not (or (index $config "gateway-address-pool") (index $config "gateway-service-type"))) }}
{{- fail "hostNetwork: each Gateway would still wait for the address of a Service of type LoadBalancer; set config.gateway-address-pool to [0.0.0.0] for the addresses of the nodes, config.gateway-service-type to use a Service, or gatewayClass.create to false to serve only Ingresses" }}
{{- end }}
{{- if and .Values.hostNetwork .Values.networkPolicy.enabled }}
{{- fail "networkPolicy.enabled: a NetworkPolicy has no effect on Pods on the host's network; set it to false and protect the nodes, or set hostNetwork to false" }}
{{- end }}
{{- $http := include "portico.port" (dict "root" . "flag" "ingress-http-listen") }}
{{- $https := include "portico.port" (dict "root" . "flag" "ingress-https-listen") }}
{{- if and .Values.service.enabled (eq $http "0") (eq $https "0") }}
{{- fail "service.enabled: with ingress-http-listen and ingress-https-listen off, the Service for Ingresses has no port; set service.enabled to false" }}
{{- end }}
{{- end }}
