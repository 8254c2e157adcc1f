{{/* Checks between values, which values.schema.json cannot express. Each message names the value. */}}

{{- define "hookbridge.checks" -}}
{{- include "hookbridge.checkTimes" . }}
{{- include "hookbridge.checkSettings" . }}
{{- include "hookbridge.checkSpool" . }}
{{- include "hookbridge.checkKafka" . }}
{{- include "hookbridge.checkToken" . }}
{{- include "hookbridge.checkTopics" . }}
{{- include "hookbridge.checkScale" . }}
{{- include "hookbridge.checkChoices" . }}
{{- end }}

{{/* Each time-out must be shorter than the next one, as the bridge itself requires. */}}
{{- define "hookbridge.checkTimes" -}}
{{- $http := .Values.config.http }}
{{- $drain := int64 $http.drain_timeout_ms }}
{{- $request := add $http.drain_delay_ms $http.body_timeout_ms $http.answer_timeout_ms }}
{{- $sum := "drain_delay_ms + body_timeout_ms + answer_timeout_ms" }}
{{- if ne (include "hookbridge.snsPorts" .) "[]" }}
{{- $request = add $request $http.answer_timeout_ms }}
{{- $sum = printf "%s, the last twice for Amazon SNS," $sum }}
{{- end }}
{{- if le $drain $request }}
{{- fail (printf
  "config.http.drain_timeout_ms: must be more than %s (= %d, it is %d), or requests are cut off"
  $sum $request $drain) }}
{{- end }}
{{- $grace := int64 .Values.terminationGracePeriodSeconds }}
{{- if le (mul 1000 $grace) $drain }}
{{- fail (printf
  "terminationGracePeriodSeconds: must be more than %s (= %d ms, it is %d s), or a drain is killed"
  "config.http.drain_timeout_ms" $drain $grace) }}
{{- end }}
{{- with .Values.livenessProbe.terminationGracePeriodSeconds }}
{{- if gt (int64 .) $grace }}
{{- fail (printf
  "livenessProbe.terminationGracePeriodSeconds: must be at most %s (= %d, it is %d)"
  "terminationGracePeriodSeconds" $grace (int64 .)) }}
{{- end }}
{{- end }}
{{- $verdict := add .Values.config.kafka.ack_timeout_ms 1250 }}
{{- if le (int64 $http.answer_timeout_ms) $verdict }}
{{- fail (printf
  "config.http.answer_timeout_ms: must be more than %s (= %d, it is %d), or answers may be untrue"
  "config.kafka.ack_timeout_ms + 1250" $verdict (int64 $http.answer_timeout_ms)) }}
{{- end }}
{{- end }}

{{- define "hookbridge.checkSettings" -}}
{{- $listen := dict "http" .Values.config.http.listen "admin" .Values.config.admin.listen }}
{{- range $name, $address := $listen }}
{{- $port := include "hookbridge.port" $address | int }}
{{- if or (lt $port 1024) (gt $port 65535) }}
{{- fail (printf
  "config.%s.listen: must have a port from 1024 to 65535 (it is %s)" $name $address) }}
{{- end }}
{{- end }}
{{- if eq (include "hookbridge.port" $listen.http) (include "hookbridge.port" $listen.admin) }}
{{- fail (printf
  "config.admin.listen: must have another port than config.http.listen (%s)" $listen.http) }}
{{- end }}
{{- $sections := "HOOKBRIDGE__(HTTP|ADMIN|SPOOL|WEBHOOK)__" }}
{{- $single := "HOOKBRIDGE__KAFKA__(BROKERS|ACK_TIMEOUT_MS)$|HOOKBRIDGE__AUTH__KEYS_FILE$" }}
{{- $single = printf "%s|HOOKBRIDGE__TRACING__OTLP_ENDPOINT$" $single }}
{{- range .Values.extraEnv }}
{{- if regexMatch (printf "^(%s|%s|HOOKBRIDGE_CONFIG$)" $sections $single) (upper .name) }}
{{- fail (printf
  "extraEnv: %s would go before what the chart renders and checks; set it under config" .name) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "hookbridge.checkSpool" -}}
{{- $spool := int64 .Values.config.spool.max_bytes }}
{{- $size := .Values.persistence.size }}
{{- if lt (include "hookbridge.bytes" $size | float64) (divf (mulf $spool 4) 3) }}
{{- fail (printf
  "persistence.size: must be a third larger than config.spool.max_bytes (= %d bytes, it is %s)"
  $spool $size) }}
{{- end }}
{{- $body := int64 .Values.config.http.max_body_bytes }}
{{- if le $spool $body }}
{{- fail (printf
  "config.spool.max_bytes: must be more than config.http.max_body_bytes (= %d, it is %d)"
  $body $spool) }}
{{- end }}
{{- end }}

{{- define "hookbridge.checkKafka" -}}
{{- $option := "config.kafka.options.security.protocol" }}
{{- $protocol := "PLAINTEXT" }}
{{- range $name, $value := .Values.config.kafka.options }}
{{- if eq (replace "_" "." $name) "security.protocol" }}
{{- $protocol = $value | toString | upper }}
{{- end }}
{{- end }}
{{- if and (eq (include "hookbridge.kafkaTokens" .) "true") (eq $protocol "PLAINTEXT") }}
{{- $protocol = "SASL_SSL" }}
{{- end }}
{{- with .Values.kafka.sasl }}
{{- if and .existingSecret .password }}
{{- fail "kafka.sasl.password: is in kafka.sasl.existingSecret already; set one of the two" }}
{{- end }}
{{- if and .password (not .username) }}
{{- fail "kafka.sasl.username: must be set where kafka.sasl.password is" }}
{{- end }}
{{- if and .username (not .password) (not .existingSecret) }}
{{- fail "kafka.sasl.existingSecret: must name the Secret with the password" }}
{{- end }}
{{- if and (or .existingSecret .password) (not (hasPrefix "SASL_" $protocol)) }}
{{- fail (printf "%s: must be SASL_SSL for kafka.sasl (it is %s)" $option $protocol) }}
{{- end }}
{{- end }}
{{- with .Values.kafka.tls }}
{{- if and (or .caSecret .certSecret) (not (hasSuffix "SSL" $protocol)) }}
{{- fail (printf "%s: must be SSL or SASL_SSL for kafka.tls (it is %s)" $option $protocol) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether the bridge gets tokens for Kafka itself; then the default protocol is SASL_SSL. */}}
{{- define "hookbridge.kafkaTokens" -}}
{{- with .Values.config.kafka }}
{{- if or .aws_msk_iam .token_file $.Values.kafka.token.serviceAccountAudience }}true{{ end }}
{{- end }}
{{- end }}

{{/* Tokens for Kafka come in one way. */}}
{{- define "hookbridge.checkToken" -}}
{{- $kafka := .Values.config.kafka }}
{{- $token := .Values.kafka.token }}
{{- $method := include "hookbridge.kafkaOption"
  (dict "options" $kafka.options "name" "sasl.oauthbearer.method") }}
{{- $ways := list }}
{{- if $token.serviceAccountAudience }}
{{- $ways = append $ways "kafka.token.serviceAccountAudience" }}
{{- end }}
{{- if $kafka.token_file }}
{{- $ways = append $ways "config.kafka.token_file" }}
{{- end }}
{{- if $kafka.aws_msk_iam }}
{{- $ways = append $ways "config.kafka.aws_msk_iam" }}
{{- end }}
{{- if eq $method "oidc" }}
{{- $ways = append $ways "config.kafka.options.sasl.oauthbearer.method" }}
{{- end }}
{{- if or .Values.kafka.sasl.existingSecret .Values.kafka.sasl.password }}
{{- $ways = append $ways "kafka.sasl" }}
{{- end }}
{{- if gt (len $ways) 1 }}
{{- fail (printf
  "%s: and %s are two ways to be let in; set one of them" (index $ways 0) (index $ways 1)) }}
{{- end }}
{{- if ne $method "oidc" }}
{{- range $value := list "clientSecret" "endpointCaSecret" }}
{{- if get $token $value }}
{{- fail (printf
  "kafka.token.%s: is for config.kafka.options.sasl.oauthbearer.method: oidc" $value) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $kafka.aws_region (not $kafka.aws_msk_iam) }}
{{- fail "config.kafka.aws_region: is for config.kafka.aws_msk_iam" }}
{{- end }}
{{- if and .Values.serviceAccount.annotations (not .Values.serviceAccount.create) }}
{{- fail "serviceAccount.annotations: must be on the account that you create; serviceAccount.create is false" }}
{{- end }}
{{- end }}

{{- define "hookbridge.checkTopics" -}}
{{- with .Values.kafkaTopics }}
{{- if and .enabled (not .cluster) }}
{{- fail "kafkaTopics.cluster: must name Strimzi's Kafka resource" }}
{{- end }}
{{- if gt (int64 .minInsyncReplicas) (int64 .replicas) }}
{{- fail (printf
  "kafkaTopics.minInsyncReplicas: must be at most kafkaTopics.replicas (= %d)" (int64 .replicas)) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "hookbridge.checkScale" -}}
{{- $resources := .Values.resources }}
{{- with .Values.autoscaling }}
{{- if .enabled }}
{{- if gt (int64 .minReplicas) (int64 .maxReplicas) }}
{{- fail (printf
  "autoscaling.minReplicas: must be at most autoscaling.maxReplicas (= %d)" (int64 .maxReplicas)) }}
{{- end }}
{{- if not (or .targetCPUUtilizationPercentage .targetRequestsInFlight) }}
{{- fail "autoscaling.targetCPUUtilizationPercentage: or targetRequestsInFlight must be set" }}
{{- end }}
{{- if and .targetCPUUtilizationPercentage (not (dig "requests" "cpu" "" $resources)) }}
{{- fail "resources.requests.cpu: must be set for autoscaling.targetCPUUtilizationPercentage" }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "hookbridge.checkChoices" -}}
{{- if and .Values.tls.certSecret .Values.config.http.tls }}
{{- fail "config.http.tls: is made from tls.certSecret; set one of the two" }}
{{- end }}
{{- if and .Values.tls.clientCaSecret (not .Values.tls.certSecret) }}
{{- fail "tls.certSecret: must be set where tls.clientCaSecret is" }}
{{- end }}
{{- if and .Values.auth.existingSecret .Values.auth.keys }}
{{- fail "auth.keys: cannot be put into auth.existingSecret; set one of the two" }}
{{- end }}
{{- if and .Values.metrics.podMonitor.enabled .Values.metrics.serviceMonitor.enabled }}
{{- fail "metrics.podMonitor.enabled: and metrics.serviceMonitor would scrape each pod twice" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- fail "ingress.hosts: must name a host" }}
{{- end }}
{{- if .Values.test.keySecret }}
{{- $webhook := first .Values.config.webhook }}
{{- $auth := $webhook.auth | default "bearer" }}
{{- if not (and $webhook.path (has $auth (list "bearer" "basic" "path-secret"))) }}
{{- fail "test.keySecret: the first of config.webhook must have a path and auth by bearer, basic or path-secret" }}
{{- end }}
{{- if or .Values.tls.certSecret .Values.config.http.tls }}
{{- fail "test.keySecret: the test posts to the Service in plain HTTP, which tls.certSecret turns off" }}
{{- end }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "httpRoute.parentRefs: must name a Gateway" }}
{{- end }}
{{- end }}
