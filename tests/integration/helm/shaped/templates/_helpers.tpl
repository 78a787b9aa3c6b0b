{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/* "true" where a rule of facts.yaml applies to `executor`; of (list root, name of the rule). */}}
{{- define "applies" -}}
{{- $executor := (index . 0).Values.executor -}}
{{- $rule := index (index . 0).Values.facts (index . 1) -}}
{{- $found := false -}}
{{- range $rule.contains }}{{ if contains . $executor }}{{ $found = true }}{{ end }}{{ end -}}
{{- range $rule.names }}{{ if has . (splitList "," $executor) }}{{ $found = true }}{{ end }}{{ end -}}
{{- if $found }}true{{ end -}}
{{- end }}

{{/* The user's variables. */}}
{{- define "custom" -}}
{{- $root := . -}}
{{- range .Values.env }}
- {name: {{ .name }}, value: {{ .value | quote }}}
{{- if and $root.Values.facts.copies_env_for_pods (include "applies" (list $root "pod_template")) }}
- {name: AIRFLOW__KUBERNETES_ENVIRONMENT_VARIABLES__{{ .name }}, value: {{ .value | quote }}}
{{- end }}
{{- end }}
{{- range .Values.secret }}
- {name: {{ .envName }}, valueFrom: {secretKeyRef: {name: {{ .secretName }}, key: {{ .secretKey }}}}}
{{- end }}
{{- with .Values.extraEnv }}
{{ tpl . $root }}
{{- end }}
{{- end }}

{{/* The chart's own variables; of (list root, name of the container). */}}
{{- define "standard" -}}
{{- $root := index . 0 }}
- {name: AIRFLOW_HOME, value: /opt/airflow}
{{- $jwt := $root.Values.facts.jwt_secret }}
{{- if or (eq "everywhere" (toString $jwt)) (contains (index . 1) (toString $jwt)) }}
- {name: AIRFLOW__API_AUTH__JWT_SECRET, valueFrom: {secretKeyRef: {name: {{ $root.Release.Name }}-jwt-secret, key: jwt-secret}}}
{{- end }}
{{- if and (include "applies" (list $root "workers")) $root.Values.enableBuiltInSecretEnvVars.AIRFLOW__CELERY__BROKER_URL }}
- {name: AIRFLOW__CELERY__BROKER_URL, valueFrom: {secretKeyRef: {name: {{ $root.Release.Name }}-broker-url, key: connection}}}
{{- end }}
{{- end }}

{{/* A workload; of a dict with root, kind, name, component, and maybe account, env, args, dags, serves, volumes and mounts. */}}
{{- define "workload" -}}
---
apiVersion: apps/v1
kind: {{ .kind }}
metadata:
  name: {{ .root.Release.Name }}-{{ .name }}
  labels: {tier: airflow, component: {{ .component }}}
spec:
  template:
    metadata:
      labels: {tier: airflow, component: {{ .component }}}
    spec:
      serviceAccountName: {{ .root.Release.Name }}-{{ .account | default .component }}
      containers:
        - name: {{ .component }}
          image: {{ .root.Values.images.airflow.repository }}:{{ .root.Values.images.airflow.tag }}
          {{- with .args }}
          args: {{ toYaml . | nindent 12 }}
          {{- end }}
          {{- if .serves }}
          ports: [{name: worker-logs, containerPort: 8793}]
          {{- end }}
          env:
            {{- include "custom" .root | indent 12 }}
            {{- include "standard" (list .root .component) | indent 12 }}
            {{- with .env }}{{ toYaml . | nindent 12 }}{{ end }}
          volumeMounts:
            - {name: config, mountPath: /opt/airflow/airflow.cfg, subPath: airflow.cfg}
            {{- if .dags }}
            - {name: dags, mountPath: /opt/airflow/dags}
            {{- end }}
            {{- with concat .root.Values.volumeMounts (.mounts | default list) }}{{ toYaml . | nindent 12 }}{{ end }}
      volumes:
        - {name: config, configMap: {name: {{ .root.Release.Name }}-config}}
        {{- if .dags }}
        - {name: dags, emptyDir: {}}
        {{- end }}
        {{- with concat .root.Values.volumes (.volumes | default list) }}{{ toYaml . | nindent 8 }}{{ end }}
{{- end }}
