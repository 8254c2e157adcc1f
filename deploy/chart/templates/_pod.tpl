{{/* The common parts of the bridge's pods and the pod of `spool drain`. */}}

{{- define "hookbridge.podSpec" -}}
serviceAccountName: {{ include "hookbridge.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
terminationGracePeriodSeconds: {{ int64 .Values.terminationGracePeriodSeconds }}
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "hookbridge.container" -}}
name: hookbridge
image: {{ include "hookbridge.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext: {{- toYaml .Values.securityContext | nindent 2 }}
env:
  - name: HOOKBRIDGE_CONFIG
    value: /etc/hookbridge/config/hookbridge.toml
  # Overrides the image's variable, which would override the file.
  - name: HOOKBRIDGE__SPOOL__DIR
    value: /var/lib/hookbridge/spool
  {{- with .Values.kafka.sasl }}
  {{- if or .existingSecret .password }}
  - name: HOOKBRIDGE__KAFKA__OPTIONS__SASL_USERNAME
    {{- if .username }}
    value: {{ .username | quote }}
    {{- else }}
    valueFrom:
      secretKeyRef: { name: {{ include "hookbridge.kafkaSecret" $ }}, key: {{ .usernameKey }} }
    {{- end }}
  - name: HOOKBRIDGE__KAFKA__OPTIONS__SASL_PASSWORD
    valueFrom:
      secretKeyRef: { name: {{ include "hookbridge.kafkaSecret" $ }}, key: {{ .passwordKey }} }
  {{- end }}
  {{- end }}
  {{- with .Values.kafka.token }}
  {{- if .clientSecret }}
  - name: HOOKBRIDGE__KAFKA__OPTIONS__SASL_OAUTHBEARER_CLIENT_SECRET
    valueFrom:
      secretKeyRef: { name: {{ .clientSecret }}, key: {{ .clientSecretKey }} }
  {{- end }}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumeMounts:
  - name: config
    mountPath: /etc/hookbridge/config
    readOnly: true
  # A folder, because Kubernetes does not update a single mounted file.
  - name: keys
    mountPath: /etc/hookbridge/keys
    readOnly: true
  {{- if .Values.tls.certSecret }}
  - name: tls
    mountPath: /etc/hookbridge/tls
    readOnly: true
  {{- end }}
  {{- if or .Values.kafka.tls.caSecret .Values.kafka.tls.certSecret }}
  - name: kafka-tls
    mountPath: /etc/hookbridge/kafka
    readOnly: true
  {{- end }}
  {{- if or .Values.kafka.token.serviceAccountAudience .Values.kafka.token.endpointCaSecret }}
  - name: kafka-token
    mountPath: /etc/hookbridge/kafka-token
    readOnly: true
  {{- end }}
  - name: spool
    mountPath: /var/lib/hookbridge
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Every volume except the spool's. */}}
{{- define "hookbridge.volumes" -}}
- name: config
  configMap:
    name: {{ include "hookbridge.fullname" . }}
- name: keys
  secret:
    secretName: {{ include "hookbridge.keysSecret" . }}
    defaultMode: 0440
{{- with .Values.tls }}
{{- if .certSecret }}
- name: tls
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ .certSecret }}
          items: [{ key: {{ .certKey }}, path: tls.crt }, { key: {{ .keyKey }}, path: tls.key }]
      {{- if .clientCaSecret }}
      - secret:
          name: {{ .clientCaSecret }}
          items: [{ key: {{ .clientCaKey }}, path: ca.crt }]
      {{- end }}
{{- end }}
{{- end }}
{{- with .Values.kafka.tls }}
{{- if or .caSecret .certSecret }}
- name: kafka-tls
  projected:
    defaultMode: 0440
    sources:
      {{- if .caSecret }}
      - secret:
          name: {{ .caSecret }}
          items: [{ key: {{ .caKey }}, path: ca.crt }]
      {{- end }}
      {{- if .certSecret }}
      - secret:
          name: {{ .certSecret }}
          items: [{ key: {{ .certKey }}, path: tls.crt }, { key: {{ .keyKey }}, path: tls.key }]
      {{- end }}
{{- end }}
{{- end }}
{{- with .Values.kafka.token }}
{{- if or .serviceAccountAudience .endpointCaSecret }}
- name: kafka-token
  projected:
    defaultMode: 0440
    sources:
      {{- if .serviceAccountAudience }}
      - serviceAccountToken:
          audience: {{ .serviceAccountAudience | quote }}
          expirationSeconds: {{ int64 .expirationSeconds }}
          path: token
      {{- end }}
      {{- if .endpointCaSecret }}
      - secret:
          name: {{ .endpointCaSecret }}
          items: [{ key: {{ .endpointCaKey }}, path: ca.crt }]
      {{- end }}
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
