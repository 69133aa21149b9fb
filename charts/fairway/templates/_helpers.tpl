{{/* Labels of every object. Call with (dict "root" $ "component" "controller"). */}}
{{- define "fairway.labels" -}}
app.kubernetes.io/name: {{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: fairway
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* Image of a program. Call with (dict "root" $ "program" "ztunnel" "override" .Values.ztunnel.image). */}}
{{- define "fairway.image" -}}
{{- $global := .root.Values.global -}}
{{- if .override -}}{{ .override }}{{- else -}}{{ $global.hub }}/{{ .program }}:{{ $global.tag | default .root.Chart.AppVersion }}{{- end -}}
{{- end }}

{{- define "fairway.pullSettings" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Extra environment variables of a component. */}}
{{- define "fairway.extraEnv" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* Where a pod is scheduled. Call with a component's values. */}}
{{- define "fairway.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Who the pod is, for its own program. */}}
{{- define "fairway.podEnv" -}}
- name: POD_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
- name: POD_NAMESPACE
  valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
- name: SERVICE_ACCOUNT
  valueFrom: { fieldRef: { fieldPath: spec.serviceAccountName } }
- name: NODE_NAME
  valueFrom: { fieldRef: { fieldPath: spec.nodeName } }
- name: INSTANCE_IP
  valueFrom: { fieldRef: { fieldPath: status.podIP } }
{{- end }}

{{- define "fairway.logFormat" -}}
{{ if .Values.global.logAsJson }}json{{ else }}plain{{ end }}
{{- end }}

{{/* What the pods of every waypoint have in common, as one JSON object for the controller, which deploys them. */}}
{{- define "fairway.waypointPod" -}}
{{- $waypoint := .Values.waypoint -}}
{{- $env := dict "RUST_LOG" $waypoint.logLevel "LOG_FORMAT" (include "fairway.logFormat" .) -}}
{{- $pod := dict
  "env" (mergeOverwrite $env $waypoint.env)
  "resources" $waypoint.resources
  "labels" $waypoint.podLabels
  "annotations" $waypoint.podAnnotations
  "nodeSelector" $waypoint.nodeSelector
  "affinity" $waypoint.affinity
  "tolerations" $waypoint.tolerations
  "topologySpreadConstraints" $waypoint.topologySpreadConstraints
  "terminationGracePeriodSeconds" $waypoint.terminationGracePeriodSeconds
  "imagePullPolicy" .Values.global.imagePullPolicy
  "imagePullSecrets" .Values.global.imagePullSecrets -}}
{{- toJson $pod -}}
{{- end }}
