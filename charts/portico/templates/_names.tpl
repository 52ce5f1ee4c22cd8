{{/* Names and labels. */}}

{{- define "portico.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* A valid Service name: it begins with a letter and has no dots, which a release name may have. There is room for "-status". */}}
{{- define "portico.fullname" -}}
{{- $name := include "portico.name" . }}
{{- $whole := .Values.fullnameOverride }}
{{- if not $whole }}
{{- $whole = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- end }}
{{- if not (regexMatch "^[a-z]" $whole) }}{{ $whole = printf "portico-%s" $whole }}{{ end }}
{{- $whole | replace "." "-" | trunc 56 | trimAll "-" }}
{{- end }}

{{/* Name of cluster-scoped objects: releases of the same name in two namespaces do not conflict. */}}
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
app.kubernetes.io/name: {{ include "portico.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Labels that cannot be overridden: those of the selector, and the one by which Portico finds its own objects. */}}
{{- define "portico.identity" -}}
{{- include "portico.selector" . }}
app.kubernetes.io/part-of: portico
{{- end }}

{{/* Labels as YAML, each once: (dict "root" $ "own" MAP "labels" MAP). The labels of one object take precedence over commonLabels,
and those of the chart over both. */}}
{{- define "portico.merged" -}}
{{- $own := mergeOverwrite (include "portico.identity" .root | fromYaml) .own }}
{{- toYaml (mergeOverwrite dict (.root.Values.commonLabels | default dict) (.labels | default dict) $own) }}
{{- end }}

{{/* Labels of Pods. They contain no chart version, so that a new chart alone does not replace all Pods. */}}
{{- define "portico.podLabels" -}}
{{- include "portico.merged" (dict "root" . "own" (include "portico.version" . | fromYaml) "labels" .Values.podLabels) }}
{{- end }}

{{/* Additional label of the workload and its Pods; a new release changes it. */}}
{{- define "portico.version" -}}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | replace "+" "_" | trunc 63 | trimAll "-._" | quote }}
{{- end }}

{{/* metadata of an object: (dict "root" $ "name" NAME "cluster" BOOL "version" BOOL "labels" MAP "annotations" MAP "namespace" NAME) */}}
{{- define "portico.metadata" -}}
{{- $root := .root }}
metadata:
  name: {{ .name | quote }}
  {{- if not .cluster }}
  namespace: {{ .namespace | default $root.Release.Namespace | quote }}
  {{- end }}
  labels:
    {{- include "portico.labels" (dict "root" $root "version" .version "labels" .labels) | nindent 4 }}
  {{- with .annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Labels of every object except Pods: (dict "root" $ "version" BOOL "labels" MAP) */}}
{{- define "portico.labels" -}}
{{- $root := .root }}
{{- $own := dict "app.kubernetes.io/managed-by" $root.Release.Service }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- if .version }}{{ $own = mergeOverwrite $own (include "portico.version" $root | fromYaml) }}{{ end }}
{{- include "portico.merged" (dict "root" $root "own" $own "labels" .labels) }}
{{- end }}

{{- define "portico.image" -}}
{{- $image := .Values.image }}
{{- with $image.registry | default (get (.Values.global | default dict) "imageRegistry") }}{{ trimSuffix "/" . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Pull secrets of the chart and of the chart that has it as a part, in which other charts also accept names, as YAML. */}}
{{- define "portico.imagePullSecrets" -}}
{{- $secrets := .Values.imagePullSecrets | default list }}
{{- range get (.Values.global | default dict) "imagePullSecrets" | default list }}
{{- $secrets = append $secrets (ternary (dict "name" .) . (kindIs "string" .)) }}
{{- end }}
{{- toYaml ($secrets | uniq) }}
{{- end }}
