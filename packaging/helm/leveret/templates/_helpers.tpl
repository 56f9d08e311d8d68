{{- define "leveret.name" -}}
{{- printf "%s" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- define "leveret.labels" -}}
app.kubernetes.io/name: leveret
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
