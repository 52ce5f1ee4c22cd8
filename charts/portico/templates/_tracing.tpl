{{/* Flags, volumes and mounts for `tracing`. Flags are in backquotes, because no other object depends on them. */}}

{{/* The flags of .Values.tracing by name, as YAML; those that are not set are left out. */}}
{{- define "portico.tracing.flags" -}}
{{- $tracing := .Values.tracing }}
{{- $flags := dict `trace-otlp-endpoint` $tracing.endpoint `otlp-protocol` $tracing.protocol `trace-sampling` $tracing.sampling }}
{{- $_ := set $flags `trace-rules` $tracing.rules }}
{{- $_ := set $flags `trace-propagation` $tracing.propagation }}
{{- $_ := set $flags `trace-header` $tracing.header.name }}
{{- $_ := set $flags `trace-header-limit` $tracing.header.limit }}
{{- $_ := set $flags `trace-errors` (ternary true nil $tracing.errors) }}
{{- $_ := set $flags `trace-slow` $tracing.slow }}
{{- range $secret := include "portico.tracing.secrets" . | fromYamlArray }}
{{- range $file := $secret.files }}
{{- $_ := set $flags $file.flag (printf "/etc/portico/%s/%s" $secret.volume $file.path) }}
{{- end }}
{{- end }}
{{- $given := dict }}
{{- range $name, $value := $flags }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "") (and (kindIs "slice" $value) (empty $value))) }}
{{- $_ := set $given $name $value }}
{{- end }}
{{- end }}
{{- toYaml $given }}
{{- end }}

{{/* The Secrets with their files, as a YAML list. The files of a Secret change together, as a certificate and its key have to. */}}
{{- define "portico.tracing.secrets" -}}
{{- $secrets := list }}
{{- $headers := .Values.tracing.headersSecret }}
{{- if $headers.name }}
{{- $file := dict "flag" `otlp-headers-file` "key" $headers.key "path" "headers" }}
{{- $secrets = append $secrets (dict "volume" "otlp-headers" "name" $headers.name "files" (list $file)) }}
{{- end }}
{{- $authorities := .Values.tracing.caSecret }}
{{- if $authorities.name }}
{{- $file := dict "flag" `otlp-ca-file` "key" $authorities.key "path" "ca.crt" }}
{{- $secrets = append $secrets (dict "volume" "otlp-ca" "name" $authorities.name "files" (list $file)) }}
{{- end }}
{{- $client := .Values.tracing.clientCertSecret }}
{{- if $client.name }}
{{- $certificate := dict "flag" `otlp-client-cert-file` "key" "tls.crt" "path" "tls.crt" }}
{{- $key := dict "flag" `otlp-client-key-file` "key" "tls.key" "path" "tls.key" }}
{{- $secrets = append $secrets (dict "volume" "otlp-client" "name" $client.name "files" (list $certificate $key)) }}
{{- end }}
{{- toYaml $secrets }}
{{- end }}

{{- define "portico.tracing.volumes" -}}
{{- $volumes := list }}
{{- range $secret := include "portico.tracing.secrets" . | fromYamlArray }}
{{- $items := list }}
{{- range $file := $secret.files }}
{{- $items = append $items (dict "key" $file.key "path" $file.path) }}
{{- end }}
{{- $volumes = append $volumes (dict "name" $secret.volume "secret" (dict "secretName" $secret.name "items" $items)) }}
{{- end }}
{{- toYaml $volumes }}
{{- end }}

{{- define "portico.tracing.mounts" -}}
{{- $mounts := list }}
{{- range $secret := include "portico.tracing.secrets" . | fromYamlArray }}
{{- $mounts = append $mounts (dict "name" $secret.volume "mountPath" (printf "/etc/portico/%s" $secret.volume) "readOnly" true) }}
{{- end }}
{{- toYaml $mounts }}
{{- end }}

{{- define "portico.check.tracing" -}}
{{- $config := .Values.config }}
{{- $flags := include "portico.tracing.flags" . | fromYaml }}
{{- range $flag, $value := $flags }}
{{- $other := get $config $flag }}
{{- if not (or (kindIs "invalid" $other) (eq (toString $other) "")) }}
{{- fail (printf "tracing: config.%s sets the same flag; leave one of both out" $flag) }}
{{- end }}
{{- end }}
{{- $endpoint := or (get $flags `trace-otlp-endpoint`) (get $config `trace-otlp-endpoint`) }}
{{- $server := or $endpoint (get $config `access-log-otlp-endpoint`) (get $config `metrics-otlp-endpoint`) }}
{{- range $flag, $value := $flags }}
{{- if and (hasPrefix "trace-" $flag) (not $endpoint) }}
{{- fail (printf "tracing: the values for --%s have no effect without a server; set tracing.endpoint" $flag) }}
{{- end }}
{{- if not $server }}
{{- fail (printf "tracing: the values for --%s have no effect without a server; set tracing.endpoint" $flag) }}
{{- end }}
{{- end }}
{{- if and .Values.tracing.header.limit (not .Values.tracing.header.name) }}
{{- fail "tracing: the values for --trace-header-limit have no effect without a header; set tracing.header.name" }}
{{- end }}
{{- end }}
