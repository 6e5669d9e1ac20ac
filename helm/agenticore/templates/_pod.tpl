{{- define "agenticore.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end -}}

{{- define "agenticore.mounts" -}}
- name: {{ eq .Values.mode "fleet" | ternary "shared" "data" }}
  mountPath: {{ eq .Values.mode "fleet" | ternary "/shared" "/data" }}
- name: home
  mountPath: /home/agenticore
- name: tmp
  mountPath: /tmp
{{- end -}}

{{/* A variable from the chart's secret or the one given; what is not in it is not set. */}}
{{- define "agenticore.secretEnv" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ include "agenticore.secretName" .root }}
      key: {{ .key }}
      optional: {{ .optional }}
{{- end -}}

{{- define "agenticore.redisEnv" -}}
- name: REDIS_URL
  value: {{ include "agenticore.redisUrl" . | quote }}
- name: REDIS_KEY_PREFIX
  value: {{ .Values.redis.keyPrefix | quote }}
{{- if .Values.redis.auth.enabled }}
{{- with .Values.redis.auth.username }}
- name: REDIS_USERNAME
  value: {{ . | quote }}
{{- end }}
{{ include "agenticore.secretEnv" (dict "root" . "name" "REDIS_PASSWORD" "key" "redis-password" "optional" false) }}
{{- end }}
{{- if .Values.redis.sentinel.enabled }}
- name: REDIS_SENTINELS
  value: {{ join "," .Values.redis.sentinel.addresses | quote }}
- name: REDIS_SENTINEL_MASTER
  value: {{ .Values.redis.sentinel.master | quote }}
{{- end }}
{{- if and .Values.redis.tls.enabled .Values.redis.tls.caSecret }}
- name: REDIS_CA_FILE
  value: /etc/agenticore/redis-ca/ca.crt
{{- end }}
{{- end -}}

{{- define "agenticore.env" -}}
- name: AGENTICORE_POD_NAME
{{- if eq .Values.mode "fleet" }}
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- else }}
  # The one server goes on with its jobs under one name, whatever its pod is called.
  value: {{ include "agenticore.fullname" . | quote }}
{{- end }}
- name: HOME
  value: /home/agenticore
- name: AGENTICORE_HOST
  value: {{ .Values.host | quote }}
{{- if eq .Values.mode "fleet" }}
- name: AGENTICORE_SHARED_FS_ROOT
  value: /shared
- name: AGENTICORE_REPOS_ROOT
  value: /shared/repos
- name: AGENTICORE_JOBS_DIR
  value: /shared/job-state
{{- else }}
- name: AGENTICORE_HOME
  value: /data/.agenticore
- name: AGENTICORE_REPOS_ROOT
  value: /data/repos
- name: AGENTICORE_JOBS_DIR
  value: /data/jobs
{{- end }}
- name: AGENTICORE_TRANSPORT
  value: sse
- name: AGENTICORE_MAX_PARALLEL_JOBS
  value: {{ .Values.slots | int | quote }}
- name: AGENTICORE_DRAIN_TIMEOUT
  value: {{ .Values.drain.timeoutSeconds | int | quote }}
{{- if .Values.config }}
- name: AGENTICORE_CONFIG
  value: /etc/agenticore/config/config.yml
{{- end }}
{{- if include "agenticore.hasRedis" . }}
{{ include "agenticore.redisEnv" . }}
{{- end }}
{{ include "agenticore.secretEnv" (dict "root" . "name" "GITHUB_TOKEN" "key" "github-token" "optional" true) }}
{{ include "agenticore.secretEnv" (dict "root" . "name" "ANTHROPIC_API_KEY" "key" "anthropic-api-key" "optional" true) }}
{{ include "agenticore.secretEnv" (dict "root" . "name" "AGENTICORE_API_KEYS" "key" "api-keys" "optional" true) }}
{{- range $name, $from := .Values.secrets.extra }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $from.secret }}
      key: {{ $from.key }}
{{- end }}
{{- range $name, $value := .Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* The pod of both modes. */}}
{{- define "agenticore.podTemplate" -}}
metadata:
  labels:
    {{- include "agenticore.selector" . | nindent 4 }}
    app.kubernetes.io/component: server
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
    checksum/config: {{ toYaml .Values.config | sha256sum }}
    {{- if not .Values.secrets.existingSecret }}
    checksum/secret: {{ include (print $.Template.BasePath "/secret.yaml") . | sha256sum }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "agenticore.serviceAccountName" . }}
  automountServiceAccountToken: false
  # The variables of a Service would be taken for settings: AGENTICORE_PORT is one.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "agenticore.grace" . }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  {{- if eq .Values.mode "fleet" }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "agenticore.selector" . | nindent 10 }}
  initContainers:
    - name: init-shared-fs
      image: {{ include "agenticore.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - init-shared-fs
      env:
        - name: AGENTICORE_SHARED_FS_ROOT
          value: /shared
        - name: HOME
          value: /home/agenticore
      resources:
        requests:
          cpu: 50m
          memory: 64Mi
        limits:
          memory: 256Mi
      securityContext:
        {{- include "agenticore.containerSecurity" . | nindent 8 }}
      volumeMounts:
        {{- include "agenticore.mounts" . | nindent 8 }}
  {{- end }}
  containers:
    - name: agenticore
      image: {{ include "agenticore.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - serve
      ports:
        - name: http
          containerPort: 8200
      env:
        {{- include "agenticore.env" . | nindent 8 }}
      lifecycle:
        preStop:
          exec:
            command:
              - agenticore
              - drain
              - --timeout
              - {{ .Values.drain.timeoutSeconds | int | quote }}
      # Asked inside the pod, because a server without keys listens on loopback alone.
      startupProbe:
        exec:
          command:
            - agenticore
            - status
            - --live
        periodSeconds: 2
        timeoutSeconds: 5
        failureThreshold: 60
      livenessProbe:
        exec:
          command:
            - agenticore
            - status
            - --live
        periodSeconds: 20
        timeoutSeconds: 10
        failureThreshold: 6
      readinessProbe:
        exec:
          command:
            - agenticore
            - status
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      resources:
        requests:
          cpu: {{ .Values.cpu.request | quote }}
          memory: {{ add .Values.memory.baseMi (mul .Values.slots .Values.memory.perSlotMi) }}Mi
        limits:
          {{- with .Values.cpu.limit }}
          cpu: {{ . | quote }}
          {{- end }}
          memory: {{ add .Values.memory.baseMi (mul .Values.slots .Values.memory.perSlotMi) }}Mi
      securityContext:
        {{- include "agenticore.containerSecurity" . | nindent 8 }}
      volumeMounts:
        {{- include "agenticore.mounts" . | nindent 8 }}
        {{- if .Values.config }}
        - name: config
          mountPath: /etc/agenticore/config
          readOnly: true
        {{- end }}
        {{- if and .Values.redis.tls.enabled .Values.redis.tls.caSecret }}
        - name: redis-ca
          mountPath: /etc/agenticore/redis-ca
          readOnly: true
        {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumes:
    - name: {{ eq .Values.mode "fleet" | ternary "shared" "data" }}
      persistentVolumeClaim:
        claimName: {{ include "agenticore.claimName" . }}
    - name: home
      emptyDir: {}
    - name: tmp
      emptyDir: {}
    {{- if .Values.config }}
    - name: config
      configMap:
        name: {{ include "agenticore.fullname" . }}
    {{- end }}
    {{- if and .Values.redis.tls.enabled .Values.redis.tls.caSecret }}
    - name: redis-ca
      secret:
        secretName: {{ .Values.redis.tls.caSecret }}
        items:
          - key: {{ .Values.redis.tls.caKey }}
            path: ca.crt
    {{- end }}
{{- end -}}
