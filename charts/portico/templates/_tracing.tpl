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
{{- range $file := include "portico.tracing.files" . | fromYamlArray }}
{{- $_ := set $flags $file.flag (printf "%s/%s" $file.folder $file.file) }}
{{- end }}
{{- $given := dict }}
{{- range $name, $value := $flags }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "") (and (kindIs "slice" $value) (empty $value))) }}
{{- $_ := set $given $name $value }}
{{- end }}
{{- end }}
{{- toYaml $given }}
{{- end }}

{{/* The files that come from Secrets, as a YAML list. */}}
{{- define "portico.tracing.files" -}}
{{- $files := list }}
{{- $headers := .Values.tracing.headersSecret }}
{{- if $headers.name }}
{{- $files = append $files (dict "flag" `otlp-headers-file` "volume" "otlp-headers" "folder" "/etc/portico/otlp-headers" "file" "headers" "secret" $headers) }}
{{- end }}
{{- $authorities := .Values.tracing.caSecret }}
{{- if $authorities.name }}
{{- $files = append $files (dict "flag" `otlp-ca-file` "volume" "otlp-ca" "folder" "/etc/portico/otlp-ca" "file" "ca.crt" "secret" $authorities) }}
{{- end }}
{{- toYaml $files }}
{{- end }}

{{- define "portico.tracing.volumes" -}}
{{- $volumes := list }}
{{- range $file := include "portico.tracing.files" . | fromYamlArray }}
{{- $item := dict "key" $file.secret.key "path" $file.file }}
{{- $secret := dict "secretName" $file.secret.name "items" (list $item) }}
{{- $volumes = append $volumes (dict "name" $file.volume "secret" $secret) }}
{{- end }}
{{- toYaml $volumes }}
{{- end }}

{{- define "portico.tracing.mounts" -}}
{{- $mounts := list }}
{{- range $file := include "portico.tracing.files" . | fromYamlArray }}
{{- $mounts = append $mounts (dict "name" $file.volume "mountPath" $file.folder "readOnly" true) }}
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
