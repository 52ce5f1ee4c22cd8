{{/* Converts values to the arguments of `portico run`. */}}

{{/* Formats a number for the program: never as 1e+06. */}}
{{- define "portico.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* The set entries of .Values.config and the flags that other values imply, as YAML. An empty string counts as not set, because
tools write it for missing values. */}}
{{- define "portico.config" -}}
{{- $config := dict }}
{{- if eq (include "portico.ipv6" .) "true" }}
{{- $_ := set $config "status-listen" "[::]:8100" }}
{{- $_ := set $config "ingress-http-listen" "[::]:8000" }}
{{- $_ := set $config "ingress-https-listen" "[::]:8443" }}
{{- end }}
{{- if eq (include "portico.publishes" .) "true" }}
{{- $_ := set $config "publish-service" (printf "$(POD_NAMESPACE)/%s" (include "portico.fullname" .)) }}
{{- end }}
{{- $public := include "portico.publicPorts" . }}
{{- if ne $public "80,443" }}
{{- $_ := set $config "ingress-public-ports" $public }}
{{- end }}
{{- range $name, $value := include "portico.tracing.flags" . | fromYaml }}
{{- $_ := set $config $name $value }}
{{- end }}
{{- range $name, $value := .Values.config }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}
{{- $_ := set $config $name $value }}
{{- end }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* The arguments as a YAML list, sorted by name, so that another order does not cause a rollout. */}}
{{- define "portico.args" -}}
{{- $switches := list "access-log-mask-clients" "allow-address-annotation" "allow-aws-pod-credentials" "allow-gcp-pod-credentials" "allow-loopback-backends" "allow-port-sharing" "deny-external-names" "endpoint-metrics" "ignore-foreign-guards" "keep-header-case" "kong-compat-fail-open" "kong-metrics" "kubernetes" "limits-warn-only" "nginx-class-by-name" "nginx-disable-catch-all" "nginx-ssl-passthrough" "nginx-without-class" "trace-errors" }}
{{- $args := list "run" }}
{{- $config := include "portico.config" . | fromYaml }}
{{- range $name := keys $config | sortAlpha }}
{{- $value := get $config $name }}
{{- if has $name $switches }}
{{- if $value }}{{ $args = append $args (printf "--%s" $name) }}{{ end }}
{{- else if kindIs "bool" $value }}
{{- /* YAML parses a bare `off` as false. */}}
{{- $args = append $args (printf "--%s=%s" $name (ternary "on" "off" $value)) }}
{{- else if kindIs "slice" $value }}
{{- range $value }}{{ $args = append $args (printf "--%s=%s" $name (include "portico.text" .)) }}{{ end }}
{{- else }}
{{- $args = append $args (printf "--%s=%s" $name (include "portico.text" $value)) }}
{{- end }}
{{- end }}
{{- toYaml (concat $args (.Values.extraArgs | default list)) }}
{{- end }}

{{/* The namespace of the Lease. */}}
{{- define "portico.electionNamespace" -}}
{{- index .Values.config "leader-election-namespace" | default .Release.Namespace }}
{{- end }}

{{/* The watched namespaces as a YAML list; empty for all. */}}
{{- define "portico.namespaces" -}}
{{- $names := list }}
{{- range index .Values.config "watch-namespaces" | default list | join "," | splitList "," }}
{{- $names = append $names (trim .) }}
{{- end }}
{{- toYaml (without $names "" | uniq) }}
{{- end }}

{{/* Whether the status of Ingresses contains the address of the Service of this release. Portico has to watch that namespace. */}}
{{- define "portico.publishes" -}}
{{- $namespaces := include "portico.namespaces" . | fromYamlArray }}
{{- $config := .Values.config }}
{{- $watched := or (empty $namespaces) (has .Release.Namespace $namespaces) }}
{{- $configured := or (index $config "publish-service") (index $config "publish-status-address") }}
{{- and .Values.service.enabled $watched (not $configured) }}
{{- end }}

{{/* The HTTP and HTTPS ports that clients of Ingresses use: those of the Service, or, on the host's network without a Service, the
listen ports. A listener that is off gets no redirects, so any number is valid. */}}
{{- define "portico.publicPorts" -}}
{{- if .Values.service.enabled }}
{{- .Values.service.ports.http }},{{ .Values.service.ports.https }}
{{- else if .Values.hostNetwork }}
{{- $http := include "portico.port" (dict "root" . "flag" "ingress-http-listen") }}
{{- $https := include "portico.port" (dict "root" . "flag" "ingress-https-listen") }}
{{- ternary "80" $http (eq $http "0") }},{{ ternary "443" $https (eq $https "0") }}
{{- else -}}
80,443
{{- end }}
{{- end }}

{{/* The ports of TCPIngresses and UDPIngresses, with their names and protocols, from entries such as 9443/tls. */}}
{{- define "portico.streamPorts" -}}
{{- $ports := list }}
{{- range index .Values.config "ingress-stream-ports" | default list | join "," | splitList "," }}
{{- if trim . }}
{{- $parts := splitList "/" (trim .) }}
{{- $protocol := ternary "tcp" (last $parts) (eq (len $parts) 1) }}
{{- $port := dict "name" (printf "%s-%s" $protocol (first $parts)) "port" (first $parts | int) "protocol" (ternary "UDP" "TCP" (eq $protocol "udp")) }}
{{- $ports = append $ports $port }}
{{- end }}
{{- end }}
{{- toYaml $ports }}
{{- end }}

{{- define "portico.ipv6" -}}
{{- eq (first (.Values.service.ipFamilies | default list) | default "IPv4") "IPv6" }}
{{- end }}

{{/* Flags that other objects depend on. In extraArgs or extraEnv, the chart could not read them. */}}
{{- define "portico.followed" -}}
- admin-listen
- drain-delay
- drain-timeout
- echo
- gateway-address-pool
- gateway-controller-name
- gateway-service-type
- ingress-class
- ingress-controller-name
- ingress-http-listen
- ingress-https-listen
- ingress-public-ports
- ingress-stream-ports
- leader-election-namespace
- publish-service
- publish-status-address
- status-listen
- watch-namespaces
{{- end }}

{{/* Listeners by flag, with their default ports. */}}
{{- define "portico.listens" -}}
admin-listen: "8101"
echo: "0"
ingress-http-listen: "8000"
ingress-https-listen: "8443"
status-listen: "8100"
{{- end }}

{{/* Port of a listener: (dict "root" $ "flag" NAME); 0 if it is off. */}}
{{- define "portico.port" -}}
{{- $listen := index .root.Values.config .flag }}
{{- if or (kindIs "invalid" $listen) (eq (toString $listen) "") }}
{{- get (include "portico.listens" . | fromYaml) .flag }}
{{- else if has $listen (list false "off") }}
{{- 0 }}
{{- else }}
{{- regexFind "[0-9]+$" (toString $listen) | default "0" }}
{{- end }}
{{- end }}

{{/* Seconds of a duration such as 1m30s, rounded up. */}}
{{- define "portico.seconds" -}}
{{- $milliseconds := 0 }}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 }}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 }}
{{- $number := regexFind "^[0-9]+" . | int }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- $milliseconds = add $milliseconds (mul $number (get $units $unit)) }}
{{- end }}
{{- div (add $milliseconds 999) 1000 }}
{{- end }}

{{/* Minimum termination grace period: the time to drain, and a margin. */}}
{{- define "portico.ending" -}}
{{- $delay := index .Values.config "drain-delay" | default "5s" }}
{{- $timeout := index .Values.config "drain-timeout" | default "60s" }}
{{- $pause := dig "preStop" "sleep" "seconds" 0 (.Values.lifecycle | default dict) }}
{{- add (include "portico.seconds" $delay) (include "portico.seconds" $timeout) $pause 10 }}
{{- end }}
