{{/* Names and labels. */}}

{{- define "portico.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Room is left for "-status", so that no name is longer than a Service may have. */}}
{{- define "portico.fullname" -}}
{{- $name := include "portico.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 56 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 56 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 56 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Objects of the whole cluster: two releases of one name, in two namespaces, do not get into each other's way. */}}
{{- define "portico.clusterName" -}}
{{- $name := include "portico.fullname" . }}
{{- if or (eq .Release.Namespace "portico-system") .Values.fullnameOverride }}
{{- $name }}
{{- else }}
{{- printf "%s-%s" .Release.Namespace $name }}
{{- end }}
{{- end }}

{{- define "portico.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "portico.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "portico.selector" -}}
app.kubernetes.io/name: {{ include "portico.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Of Pods: nothing in them changes with the chart alone, which would replace them all. */}}
{{- define "portico.podLabels" -}}
{{- $ours := dict "app.kubernetes.io/name" (include "portico.name" .) "app.kubernetes.io/instance" .Release.Name }}
{{- $_ := set $ours "app.kubernetes.io/part-of" "portico" }}
{{- toYaml (mergeOverwrite (deepCopy .Values.commonLabels) $ours) }}
{{- end }}

{{- define "portico.labels" -}}
{{- include "portico.podLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* What the workload and its Pods have more: a release is rolled out by it. */}}
{{- define "portico.version" -}}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | replace "+" "_" | trunc 63 | trimAll "-._" | quote }}
{{- end }}

{{/* metadata of an object: (dict "root" $ "name" NAME "cluster" BOOL "labels" MAP "annotations" MAP "namespace" NAME) */}}
{{- define "portico.metadata" -}}
{{- $root := .root }}
metadata:
  name: {{ .name }}
  {{- if not .cluster }}
  namespace: {{ .namespace | default $root.Release.Namespace }}
  {{- end }}
  labels:
    {{- include "portico.labels" $root | nindent 4 }}
    {{- with .version }}
    {{- include "portico.version" $root | nindent 4 }}
    {{- end }}
    {{- with .labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "portico.image" -}}
{{- $image := .Values.image }}
{{- with $image.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}
