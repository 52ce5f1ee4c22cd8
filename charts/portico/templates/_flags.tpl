{{/* From values to the arguments of `portico run`. */}}

{{/* A number as the program reads it: never 1e+06. */}}
{{- define "portico.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* What is set of .Values.config, and what follows from other values, as YAML. */}}
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
{{- $ports := .Values.service.ports }}
{{- if and .Values.service.enabled (ne (printf "%v,%v" $ports.http $ports.https) "80,443") }}
{{- $_ := set $config "ingress-public-ports" (printf "%v,%v" $ports.http $ports.https) }}
{{- end }}
{{- range $name, $value := .Values.config }}
{{- if not (kindIs "invalid" $value) }}
{{- $_ := set $config $name $value }}
{{- end }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* The arguments, as a list in YAML. In order of their names, so that nothing is rolled out for another order. */}}
{{- define "portico.args" -}}
{{- $switches := list "allow-loopback-backends" "allow-port-sharing" "kong-compat-fail-open" "kong-metrics" "kubernetes" }}
{{- $args := list "run" }}
{{- $config := include "portico.config" . | fromYaml }}
{{- range $name := keys $config | sortAlpha }}
{{- $value := get $config $name }}
{{- if has $name $switches }}
{{- if $value }}{{ $args = append $args (printf "--%s" $name) }}{{ end }}
{{- else if kindIs "bool" $value }}
{{- /* YAML reads a bare `off` as false. */}}
{{- $args = append $args (printf "--%s=%s" $name (ternary "on" "off" $value)) }}
{{- else if kindIs "slice" $value }}
{{- range $value }}{{ $args = append $args (printf "--%s=%s" $name (include "portico.text" .)) }}{{ end }}
{{- else }}
{{- $args = append $args (printf "--%s=%s" $name (include "portico.text" $value)) }}
{{- end }}
{{- end }}
{{- toYaml (concat $args .Values.extraArgs) }}
{{- end }}

{{/* The namespaces that are watched, as a list in YAML; empty for all. */}}
{{- define "portico.namespaces" -}}
{{- $namespaces := index .Values.config "watch-namespaces" | default list }}
{{- if kindIs "string" $namespaces }}{{ $namespaces = splitList "," $namespaces }}{{ end }}
{{- toYaml (uniq $namespaces) }}
{{- end }}

{{/* Whether the status of Ingresses says the address of the Service of this release, which has to be among what is watched. */}}
{{- define "portico.publishes" -}}
{{- $namespaces := include "portico.namespaces" . | fromYamlArray }}
{{- $config := .Values.config }}
{{- $watched := or (empty $namespaces) (has .Release.Namespace $namespaces) }}
{{- $told := or (index $config "publish-service") (index $config "publish-status-address") }}
{{- and .Values.service.enabled $watched (not $told) }}
{{- end }}

{{- define "portico.ipv6" -}}
{{- eq (first .Values.service.ipFamilies | default "IPv4") "IPv6" }}
{{- end }}

{{/* Port of a listener: (dict "root" $ "flag" NAME "usual" NUMBER); 0 if it is off. */}}
{{- define "portico.port" -}}
{{- $config := include "portico.config" .root | fromYaml }}
{{- $listen := index $config .flag }}
{{- if kindIs "invalid" $listen }}
{{- .usual }}
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

{{/* How long a Pod may take to end at the least: the time to drain, and a little for the last words. */}}
{{- define "portico.ending" -}}
{{- $delay := index .Values.config "drain-delay" | default "5s" }}
{{- $timeout := index .Values.config "drain-timeout" | default "60s" }}
{{- $pause := dig "preStop" "sleep" "seconds" 0 .Values.lifecycle }}
{{- add (include "portico.seconds" $delay) (include "portico.seconds" $timeout) $pause 10 }}
{{- end }}
