{{/* The Pod template of the Deployment and the DaemonSet. */}}
{{- define "portico.pod" -}}
{{- $status := include "portico.port" (dict "root" . "flag" "status-listen") }}
{{- $http := include "portico.port" (dict "root" . "flag" "ingress-http-listen") }}
{{- $https := include "portico.port" (dict "root" . "flag" "ingress-https-listen") }}
metadata:
  labels:
    {{- include "portico.podLabels" . | nindent 4 }}
  {{- $annotations := dict }}
  {{- if .Values.metrics.podAnnotations }}
  {{- $annotations = dict "prometheus.io/scrape" "true" "prometheus.io/port" $status }}
  {{- end }}
  {{- with mergeOverwrite $annotations (.Values.podAnnotations | default dict) }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "portico.serviceAccount" . | quote }}
  {{- if not .Values.automountServiceAccountToken }}
  automountServiceAccountToken: false
  {{- end }}
  enableServiceLinks: {{ .Values.enableServiceLinks }}
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds | default (include "portico.ending" .) }}
  {{- with include "portico.imagePullSecrets" . | fromYamlArray }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with .Values.runtimeClassName }}
  runtimeClassName: {{ . | quote }}
  {{- end }}
  {{- with .Values.schedulerName }}
  schedulerName: {{ . | quote }}
  {{- end }}
  {{- if .Values.hostNetwork }}
  hostNetwork: true
  {{- end }}
  {{- with .Values.dnsPolicy | default (ternary "ClusterFirstWithHostNet" "" .Values.hostNetwork) }}
  dnsPolicy: {{ . }}
  {{- end }}
  {{- with .Values.dnsConfig }}
  dnsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.hostAliases }}
  hostAliases:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- $security := deepCopy (.Values.podSecurityContext | default dict) }}
  {{- if eq (toString .Values.lowPorts) "true" }}
  {{- if .Values.hostNetwork }}
  {{- $security = mergeOverwrite $security (dict "runAsNonRoot" false "runAsUser" 0 "runAsGroup" 0) }}
  {{- else }}
  {{- $sysctl := dict "name" "net.ipv4.ip_unprivileged_port_start" "value" "0" }}
  {{- $_ := set $security "sysctls" (append (get $security "sysctls" | default list) $sysctl) }}
  {{- end }}
  {{- end }}
  {{- with $security }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- tpl (toYaml .) $ | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range .Values.topologySpreadConstraints }}
    {{- $constraint := deepCopy . }}
    {{- if not (hasKey $constraint "labelSelector") }}
    {{- $_ := set $constraint "labelSelector" (dict "matchLabels" (include "portico.selector" $ | fromYaml)) }}
    {{- end }}
    - {{ toYaml $constraint | indent 6 | trim }}
    {{- end }}
  {{- end }}
  {{- with .Values.initContainers }}
  initContainers:
    {{- tpl (toYaml .) $ | nindent 4 }}
  {{- end }}
  containers:
    - name: portico
      image: {{ include "portico.image" . | quote }}
      {{- with .Values.image.pullPolicy }}
      imagePullPolicy: {{ . }}
      {{- end }}
      args:
        {{- include "portico.args" . | nindent 8 }}
      env:
        - name: POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        - name: POD_NAMESPACE
          valueFrom:
            fieldRef:
              fieldPath: metadata.namespace
        - name: NODE_NAME
          valueFrom:
            fieldRef:
              fieldPath: spec.nodeName
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: status
          containerPort: {{ $status }}
        {{- if ne $http "0" }}
        - name: http
          containerPort: {{ $http }}
        {{- end }}
        {{- if ne $https "0" }}
        - name: https
          containerPort: {{ $https }}
        {{- end }}
      terminationMessagePolicy: FallbackToLogsOnError
      {{- range $name, $probe := dict "livenessProbe" .Values.livenessProbe "readinessProbe" .Values.readinessProbe "startupProbe" .Values.startupProbe }}
      {{- with $probe }}
      {{ $name }}:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- end }}
      {{- with .Values.lifecycle }}
      lifecycle:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- $own := deepCopy (.Values.securityContext | default dict) }}
      {{- if and (eq (toString .Values.lowPorts) "true") .Values.hostNetwork }}
      {{- $capabilities := get $own "capabilities" | default dict }}
      {{- $_ := set $capabilities "add" (append (get $capabilities "add" | default list) "NET_BIND_SERVICE") }}
      {{- $_ := set $own "capabilities" $capabilities }}
      {{- end }}
      {{- with $own }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with concat (include "portico.tracing.mounts" . | fromYamlArray) (.Values.extraVolumeMounts | default list) }}
      volumeMounts:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- with .Values.extraContainers }}
    {{- tpl (toYaml .) $ | nindent 4 }}
    {{- end }}
  {{- with concat (include "portico.tracing.volumes" . | fromYamlArray) (.Values.extraVolumes | default list) }}
  volumes:
    {{- tpl (toYaml .) $ | nindent 4 }}
  {{- end }}
{{- end }}
