{{/* Names and labels. */}}

{{- define "hookbridge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* At most 52 characters: suffixes have up to 11, and labels take 63. */}}
{{- define "hookbridge.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "hookbridge.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "hookbridge.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "hookbridge.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{ include "hookbridge.releaseLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Labels that no release changes. */}}
{{- define "hookbridge.releaseLabels" -}}
app.kubernetes.io/name: {{ include "hookbridge.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Selects only the bridge's pods. A StatefulSet's selector cannot be changed later. */}}
{{- define "hookbridge.selectorLabels" -}}
{{ include "hookbridge.releaseLabels" . }}
app.kubernetes.io/component: bridge
{{- end }}

{{- define "hookbridge.testLabels" -}}
{{ include "hookbridge.releaseLabels" . }}
app.kubernetes.io/component: test
{{- end }}

{{- define "hookbridge.serviceAccountName" -}}
{{- $made := .Values.serviceAccount.create | ternary (include "hookbridge.fullname" .) "default" }}
{{- default $made .Values.serviceAccount.name }}
{{- end }}

{{- define "hookbridge.keysSecret" -}}
{{- default (printf "%s-keys" (include "hookbridge.fullname" .)) .Values.auth.existingSecret }}
{{- end }}

{{- define "hookbridge.kafkaSecret" -}}
{{- $made := printf "%s-kafka" (include "hookbridge.fullname" .) }}
{{- default $made .Values.kafka.sasl.existingSecret }}
{{- end }}

{{- define "hookbridge.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* With an autoscaler the number that it has chosen; where no cluster can be asked, its minimum. A
StatefulSet without a number gets 1 from the API, which takes all other pods away. */}}
{{- define "hookbridge.replicas" -}}
{{- if .Values.autoscaling.enabled }}
{{- $live := lookup "apps/v1" "StatefulSet" .Release.Namespace (include "hookbridge.fullname" .) }}
{{- dig "spec" "replicas" .Values.autoscaling.minReplicas $live | int64 }}
{{- else }}
{{- int64 .Values.replicaCount }}
{{- end }}
{{- end }}

{{/* The port of an address such as 0.0.0.0:8080. */}}
{{- define "hookbridge.port" -}}
{{- regexFind "[0-9]+$" . }}
{{- end }}

{{/* A size such as 6Gi in bytes. */}}
{{- define "hookbridge.bytes" -}}
{{- $number := regexFind "^[0-9.]+" . }}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 }}
{{- $units = merge $units (dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776) }}
{{- mulf (float64 $number) (get $units (trimPrefix $number .)) }}
{{- end }}

{{/* The ports for requests to Amazon SNS, its own or each webhook's proxy's, as a JSON list. */}}
{{- define "hookbridge.snsPorts" -}}
{{- $ports := list }}
{{- range .Values.config.webhook }}
{{- if and (kindIs "map" .auth) (eq (toString (dig "type" "" (default dict .auth))) "sns") }}
{{- $proxy := default "https://amazon:443" .auth.proxy }}
{{- $port := regexFind ":[0-9]+$" (urlParse $proxy).host | trimPrefix ":" | default 80 }}
{{- $ports = append $ports (int64 $port) }}
{{- end }}
{{- end }}
{{- uniq $ports | toJson }}
{{- end }}

{{/* A property of librdkafka under config.kafka.options, however it is spelt. */}}
{{- define "hookbridge.kafkaOption" -}}
{{- $wanted := .name }}
{{- range $name, $value := .options }}
{{- if eq (replace "_" "." $name) $wanted }}{{ $value }}{{ end }}
{{- end }}
{{- end }}

{{/* The ports of what tokens for Kafka come from, as JSON. */}}
{{- define "hookbridge.tokenPorts" -}}
{{- $options := .Values.config.kafka.options }}
{{- $url := include "hookbridge.kafkaOption"
  (dict "options" $options "name" "sasl.oauthbearer.token.endpoint.url") }}
{{- if .Values.config.kafka.aws_msk_iam }}
{{- list 443 80 | toJson }}
{{- else if $url }}
{{- $port := hasPrefix "https:" $url | ternary 443 80 }}
{{- list (regexFind ":[0-9]+$" (urlParse $url).host | trimPrefix ":" | default $port | int64) | toJson }}
{{- else }}
{{- list | toJson }}
{{- end }}
{{- end }}

{{/* The dead-letter topic of a webhook. */}}
{{- define "hookbridge.deadLetterTopic" -}}
{{- default (printf "%s.dead-letter" .topic) .dead_letter_topic }}
{{- end }}
