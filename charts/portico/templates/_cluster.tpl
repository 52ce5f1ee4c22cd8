{{/* Checks of the values against the cluster and the objects in it. */}}

{{- define "portico.check.cluster" -}}
{{- $has := .Capabilities.APIVersions }}
{{- /* Every API server has this version; Helm without a cluster does not list it. */}}
{{- if $has.Has "apiregistration.k8s.io/v1" }}
{{- if and .Values.gatewayClass.create (not ($has.Has "gateway.networking.k8s.io/v1/GatewayClass")) }}
{{- $old := ternary "; the installed CRDs are older than release 1.0" "" ($has.Has "gateway.networking.k8s.io/v1beta1") }}
{{- fail (printf "gatewayClass.create: this cluster has no kind GatewayClass of gateway.networking.k8s.io/v1%s; install the CRDs of Gateway API 1.7 first (https://gateway-api.sigs.k8s.io/guides/), or set gatewayClass.create to false to serve only Ingresses" $old) }}
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
{{- fail (printf "%s %s in namespace %s is a Portico already, and two in one namespace would compete for one Lease; choose another namespace, or upgrade that one (release %s)" $kind .metadata.name $release.Namespace (get $labels "app.kubernetes.io/instance" | default "unknown")) }}
{{- end }}
{{- end }}
{{- end }}
{{- include "portico.check.handover" . }}
{{- end }}

{{- /* If only Helm owns spec.replicas and stops setting it, the number becomes 1 until an autoscaler has counted. Helm's entry in
managedFields is the one with the annotations of the release. */}}
{{- define "portico.check.handover" -}}
{{- if or .Values.autoscaling.enabled (and (eq .Values.kind "Deployment") (kindIs "invalid" .Values.replicas)) }}
{{- $value := ternary "autoscaling.enabled" "replicas" .Values.autoscaling.enabled }}
{{- $name := include "portico.fullname" . }}
{{- $live := lookup "apps/v1" "Deployment" .Release.Namespace $name }}
{{- $pods := dig "spec" "replicas" 1 $live | int }}
{{- $helm := false }}
{{- $others := false }}
{{- range dig "metadata" "managedFields" list $live }}
{{- $fields := .fieldsV1 | default dict }}
{{- if hasKey (dig "f:spec" dict $fields) "f:replicas" }}
{{- if hasKey (dig "f:metadata" "f:annotations" dict $fields) "f:meta.helm.sh/release-name" }}{{ $helm = true }}{{ else }}{{ $others = true }}{{ end }}
{{- end }}
{{- end }}
{{- if and $helm (not $others) (gt $pods 1) }}
{{- $partial := printf `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"%s"},"spec":{"replicas":%d}}` $name $pods }}
{{- fail (printf "%s: the %d Pods of Deployment %s are a number that only Helm has set, so there would be one Pod until the autoscaler has counted; hand the number over first, and upgrade with Helm 4, because Helm 3 resets it to one anyway: echo '%s' | kubectl apply --server-side --field-manager=autoscaling --namespace %s -f -" $value $pods $name $partial .Release.Namespace) }}
{{- end }}
{{- end }}
{{- end }}
