{{/* The chart's name. */}}
{{- define "agenticore.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of everything. Pods get an ordinal and claims a suffix, so it is short. */}}
{{- define "agenticore.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "agenticore.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "agenticore.selector" -}}
app: {{ include "agenticore.fullname" . }}
app.kubernetes.io/name: {{ include "agenticore.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "agenticore.labels" -}}
app.kubernetes.io/name: {{ include "agenticore.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "agenticore.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "agenticore.secretName" -}}
{{- .Values.secrets.existingSecret | default (include "agenticore.fullname" .) -}}
{{- end -}}

{{- define "agenticore.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "agenticore.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "agenticore.claimName" -}}
{{- if .Values.storage.existingClaim -}}
{{- .Values.storage.existingClaim -}}
{{- else -}}
{{- printf "%s-%s" (include "agenticore.fullname" .) (eq .Values.mode "fleet" | ternary "shared" "data") -}}
{{- end -}}
{{- end -}}

{{- define "agenticore.accessMode" -}}
{{- .Values.storage.accessMode | default (eq .Values.mode "fleet" | ternary "ReadWriteMany" "ReadWriteOnce") -}}
{{- end -}}

{{/* The one place that ties the drain and the grace period. */}}
{{- define "agenticore.grace" -}}
{{- $least := add .Values.drain.timeoutSeconds 60 -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- $least -}}
{{- else -}}
{{- .Values.terminationGracePeriodSeconds | int -}}
{{- end -}}
{{- end -}}

{{- define "agenticore.hasRedis" -}}
{{- if or .Values.redis.host .Values.redis.sentinel.enabled -}}true{{- end -}}
{{- end -}}

{{/* host:port of Redis, in the URL and in the triggers. With sentinels the host stands for whatever they name. */}}
{{- define "agenticore.redisAddress" -}}
{{- printf "%s:%d" (.Values.redis.sentinel.enabled | ternary .Values.redis.sentinel.master .Values.redis.host) (.Values.redis.port | int) -}}
{{- end -}}

{{- define "agenticore.redisUrl" -}}
{{- printf "%s://%s/%d" (.Values.redis.tls.enabled | ternary "rediss" "redis") (include "agenticore.redisAddress" .) (.Values.redis.database | int) -}}
{{- end -}}

{{/* What does not go together, refused before anything is rendered. */}}
{{- define "agenticore.checks" -}}
{{- $grace := include "agenticore.grace" . | int -}}
{{- $least := add .Values.drain.timeoutSeconds 60 | int -}}
{{- if lt $grace $least -}}
{{- fail (printf "terminationGracePeriodSeconds is %d, but a drain of %d s (drain.timeoutSeconds) needs at least %d: pods would be killed in the middle of it" $grace (.Values.drain.timeoutSeconds | int) $least) -}}
{{- end -}}
{{- if eq .Values.mode "fleet" -}}
{{- if not (include "agenticore.hasRedis" .) -}}
{{- fail "mode fleet needs a Redis: set redis.host, or redis.sentinel" -}}
{{- end -}}
{{- if and (not .Values.storage.existingClaim) (ne (include "agenticore.accessMode" .) "ReadWriteMany") -}}
{{- fail (printf "mode fleet needs a volume that all pods mount: storage.accessMode is %s, not ReadWriteMany" .Values.storage.accessMode) -}}
{{- end -}}
{{- if and .Values.keda.enabled (gt (.Values.keda.minReplicas | int) (.Values.keda.maxReplicas | int)) -}}
{{- fail "keda.minReplicas is more than keda.maxReplicas" -}}
{{- end -}}
{{- else if .Values.keda.enabled -}}
{{- fail "keda.enabled needs mode fleet: the simple mode has one server" -}}
{{- end -}}
{{- if and .Values.redis.sentinel.enabled (not .Values.redis.sentinel.addresses) -}}
{{- fail "redis.sentinel.enabled needs redis.sentinel.addresses" -}}
{{- end -}}
{{- if and .Values.redis.auth.enabled (not .Values.secrets.existingSecret) (not .Values.secrets.redisPassword) -}}
{{- fail "redis.auth.enabled needs the password: set secrets.redisPassword, or secrets.existingSecret with the key redis-password" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.enabled needs ingress.host" -}}
{{- end -}}
{{- end -}}
