{{/* Rules for metrics.prometheusRule.objectives: the same groups that `portico slo` prints. */}}

{{- /* A number as `portico slo` writes it: a decimal without trailing zeros. */}}
{{- define "portico.decimal" -}}
{{- regexReplaceAll "[.]?0+$" (printf "%.9f" .) "" }}
{{- end }}

{{- /* Fails unless the value, a percentage, is an objective. Prints it as a number. */}}
{{- define "portico.objective.target" -}}
{{- $text := trimSuffix "%" (toString .value) }}
{{- if not (regexMatch "^9[5-9]([.][0-9]{1,3})?$" $text) }}
{{- fail (printf "metrics.prometheusRule.objectives: %s: %v is not in range; write a percentage from 95 to 99.999, such as 99.9" .name .value) }}
{{- end }}
{{- include "portico.decimal" (float64 $text) }}
{{- end }}

{{- /* The bound of a latency objective such as 500ms=99 in seconds. */}}
{{- define "portico.objective.bound" -}}
{{- $text := first (splitList "=" .) }}
{{- if not (and (contains "=" .) (regexMatch "^[0-9]+(ms|s)$" $text)) }}
{{- fail (printf "metrics.prometheusRule.objectives: latency: %s is no objective; write a duration and a percentage, such as 500ms=99" .) }}
{{- end }}
{{- $number := float64 (regexFind "^[0-9]+" $text) }}
{{- $seconds := ternary (divf $number 1000.0) $number (hasSuffix "ms" $text) }}
{{- $bounds := list 0.001 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 5.0 10.0 }}
{{- if not (has $seconds $bounds) }}
{{- fail (printf "metrics.prometheusRule.objectives: latency: the histogram of durations has no bound %s; portico slo lists all" $text) }}
{{- end }}
{{- $decimal := include "portico.decimal" $seconds }}
{{- ternary $decimal (printf "%s.0" $decimal) (contains "." $decimal) }}
{{- end }}

{{- define "portico.objectives" -}}
{{- $seen := dict }}
{{- range $objective := .Values.metrics.prometheusRule.objectives }}
{{- range $key, $_ := $objective }}
{{- if not (has $key (list "routes" "availability" "latency")) }}
{{- fail (printf "metrics.prometheusRule.objectives: there is no field %s; write routes, availability and latency" $key) }}
{{- end }}
{{- end }}
{{- if not (and $objective.routes (or $objective.availability $objective.latency)) }}
{{- fail "metrics.prometheusRule.objectives: an objective lacks routes, or both availability and latency; write routes, and one of the two" }}
{{- end }}
{{- range $route := $objective.routes }}
{{- if not (regexMatch "^(HTTPRoute|GRPCRoute|Ingress)/[-.a-z0-9]+/[-.a-z0-9]+$" $route) }}
{{- fail (printf "metrics.prometheusRule.objectives: routes: %s is not a route; write HTTPRoute/NAMESPACE/NAME, as in the label `route` of metrics" $route) }}
{{- end }}
{{- range $slo := list "availability" "latency" }}
{{- $name := printf "%s of %s" $slo $route }}
{{- if and (get $objective $slo) (hasKey $seen $name) }}
{{- fail (printf "metrics.prometheusRule.objectives: the %s is there twice; write one objective of each kind for a route" $name) }}
{{- end }}
{{- if get $objective $slo }}
{{- $_ := set $seen $name true }}
{{- end }}
{{- end }}
{{- with $objective.availability }}
{{- $target := include "portico.objective.target" (dict "name" "availability" "value" .) }}
{{- include "portico.objective.group" (dict "route" $route "slo" "availability" "target" $target "good" "without a 5xx response") }}
{{- end }}
{{- with $objective.latency }}
{{- $target := include "portico.objective.target" (dict "name" "latency" "value" (last (splitList "=" .))) }}
{{- $bound := include "portico.objective.bound" . }}
{{- $milliseconds := include "portico.decimal" (mulf (float64 $bound) 1000.0) }}
{{- include "portico.objective.group" (dict "route" $route "slo" "latency" "target" $target "bound" $bound "good" (printf "within %s ms" $milliseconds)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* One group, as an item of a list. */}}
{{- define "portico.objective.group" -}}
{{- $labels := printf "{route=%q,slo=%q}" .route .slo }}
{{- $record := "route:portico_slo_errors:ratio_rate" }}
{{- $budget := divf (subf 100.0 (float64 .target)) 100.0 }}
- name: portico-slo:{{ .route }}:{{ .slo }}
  rules:
    {{- range $window := list "5m" "30m" "1h" "2h" "6h" "1d" "3d" }}
    - record: {{ $record }}{{ $window }}
      expr: |-
        {{- if eq $.slo "availability" }}
        sum by (namespace, job) (rate(portico_requests_total{route={{ $.route | quote }},code_class="5xx"}[{{ $window }}]))
          / sum by (namespace, job) (rate(portico_requests_total{route={{ $.route | quote }}}[{{ $window }}]))
        {{- else }}
        1 - sum by (namespace, job) (rate(portico_request_duration_seconds_bucket{route={{ $.route | quote }},le={{ $.bound | quote }}}[{{ $window }}]))
          / sum by (namespace, job) (rate(portico_request_duration_seconds_count{route={{ $.route | quote }}}[{{ $window }}]))
        {{- end }}
      labels:
        route: {{ $.route }}
        slo: {{ $.slo }}
    {{- end }}
    {{- $fast := list (list "1h" "5m" 14.4) (list "6h" "30m" 6.0) }}
    {{- $slow := list (list "1d" "2h" 3.0) (list "3d" "6h" 1.0) }}
    {{- $alerts := list (list "PorticoSloBurnsFast" "critical" $fast "A route uses up its error budget within days") }}
    {{- $alerts = append $alerts (list "PorticoSloBurnsSlowly" "warning" $slow "A route will use up its error budget") }}
    {{- range $alert := $alerts }}
    - alert: {{ index $alert 0 }}
      expr: |-
        {{- range $place, $windows := index $alert 2 }}
        {{- $limit := include "portico.decimal" (mulf (index $windows 2) $budget) }}
        {{ ternary "" "or " (eq $place 0) }}({{ $record }}{{ index $windows 0 }}{{ $labels }} > {{ $limit }} and {{ $record }}{{ index $windows 1 }}{{ $labels }} > {{ $limit }})
        {{- end }}
      labels:
        severity: {{ index $alert 1 }}
        route: {{ $.route }}
        slo: {{ $.slo }}
      annotations:
        summary: {{ index $alert 3 }}
        description: {{ printf "{{ $value | humanizePercentage }} of the requests of %s are bad; the objective is %s%% of the requests %s." $.route $.target $.good | quote }}
        runbook_url: https://portico.dev/docs/tasks/slo.html#when-an-alert-fires
    {{- end }}
{{ end }}
