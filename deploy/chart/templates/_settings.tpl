{{/* The settings file of the bridge, in TOML, made from .Values.config. */}}

{{- define "hookbridge.settings" -}}
{{- $settings := deepCopy .Values.config }}
{{- $_ := set $settings.spool "dir" "/var/lib/hookbridge/spool" }}
{{- $keys := printf "/etc/hookbridge/keys/%s" .Values.auth.secretKey }}
{{- $_ := set $settings "auth" (dict "keys_file" $keys) }}
{{- with .Values.tls }}
{{- if .certSecret }}
{{- $folder := "/etc/hookbridge/tls/" }}
{{- $tls := dict "cert_file" (print $folder "tls.crt") "key_file" (print $folder "tls.key") }}
{{- if .clientCaSecret }}
{{- $_ := set $tls "client_ca_file" (print $folder "ca.crt") }}
{{- end }}
{{- $_ := set $settings.http "tls" $tls }}
{{- end }}
{{- end }}
{{- if .Values.kafka.token.serviceAccountAudience }}
{{- $_ := set $settings.kafka "token_file" "/etc/hookbridge/kafka-token/token" }}
{{- end }}
{{- $_ := set $settings.kafka "options" (include "hookbridge.kafkaOptions" . | fromJson) }}
{{- range $section, $entries := $settings }}
{{- range kindIs "slice" $entries | ternary $entries (list $entries) }}
{{ kindIs "slice" $entries | ternary (printf "[[%s]]" $section) (printf "[%s]" $section) }}
{{- include "hookbridge.tomlTable" . }}
{{- range $name, $value := . }}
{{- if and (kindIs "map" $value) $value }}

[{{ $section }}.{{ $name }}]
{{- include "hookbridge.tomlTable" $value }}
{{- end }}
{{- end }}
{{ end }}
{{- end }}
{{- end }}

{{/* kafka.options with the mounted certificates, as JSON. */}}
{{- define "hookbridge.kafkaOptions" -}}
{{- $options := deepCopy .Values.config.kafka.options }}
{{- with .Values.kafka.tls }}
{{- if .caSecret }}
{{- $_ := set $options "ssl.ca.location" "/etc/hookbridge/kafka/ca.crt" }}
{{- end }}
{{- if .certSecret }}
{{- $_ := set $options "ssl.certificate.location" "/etc/hookbridge/kafka/tls.crt" }}
{{- $_ := set $options "ssl.key.location" "/etc/hookbridge/kafka/tls.key" }}
{{- end }}
{{- end }}
{{- if .Values.kafka.token.endpointCaSecret }}
{{- $_ := set $options "https.ca.location" "/etc/hookbridge/kafka-token/ca.crt" }}
{{- end }}
{{- toJson $options }}
{{- end }}

{{- define "hookbridge.tomlTable" }}
{{- range $name, $value := . }}
{{- if not (kindIs "map" $value) }}
{{- $key := regexMatch "^[A-Za-z0-9_-]+$" $name | ternary $name (quote $name) }}
{{ $key }} = {{ include "hookbridge.tomlValue" $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* Values hold all numbers as floats; the bridge needs whole ones as integers. */}}
{{- define "hookbridge.tomlValue" -}}
{{- if kindIs "string" . }}
{{- toRawJson . }}
{{- else if kindIs "bool" . }}
{{- . }}
{{- else if kindIs "slice" . }}
{{- $items := list }}
{{- range . }}
{{- $items = append $items (include "hookbridge.tomlValue" .) }}
{{- end }}
{{- printf "[%s]" (join ", " $items) }}
{{- else if eq (float64 .) (int64 . | float64) }}
{{- int64 . }}
{{- else }}
{{- toJson . }}
{{- end }}
{{- end }}
