{{- define "perimetry.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "perimetry.selector" -}}
app.kubernetes.io/name: perimetry
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "perimetry.labels" -}}
{{ include "perimetry.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "perimetry.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default (printf "%s-%s" .Chart.AppVersion $image.flavour) $image.tag }}
{{- end -}}
{{- end -}}

{{/* What the schema cannot say, as it joins several values. */}}
{{- define "perimetry.check" -}}
{{- $values := .Values -}}
{{- if and (gt (int $values.replicas) 1) (not $values.store.postgres.enabled) -}}
{{- fail "replicas > 1 wants store.postgres.enabled: an SQLite file has one owner" -}}
{{- end -}}
{{- if and $values.autoscaling.enabled (not $values.store.postgres.enabled) -}}
{{- fail "autoscaling wants store.postgres.enabled: an SQLite file has one owner" -}}
{{- end -}}
{{- if eq (empty $values.artifact.url) (empty $values.artifact.claim) -}}
{{- fail "artifact wants one of url and claim: where the archive with meter/ and model/ is" -}}
{{- end -}}
{{- if not $values.artifact.sha256 -}}
{{- fail "artifact.sha256 is missing: an archive is not unpacked unseen" -}}
{{- end -}}
{{- if $values.store.postgres.enabled -}}
{{- if not $values.store.postgres.url -}}
{{- fail "store.postgres.url is missing" -}}
{{- end -}}
{{- if not $values.store.hashKey.secret -}}
{{- fail "store.hashKey.secret is missing: replicas that share a database share the key of its hashes" -}}
{{- end -}}
{{- end -}}
{{- if and $values.serviceMonitor.enabled (not $values.serviceMonitor.tokenSecret) -}}
{{- fail "serviceMonitor.tokenSecret is missing: /metrics wants a token of the scope metrics" -}}
{{- end -}}
{{- if and $values.serviceMonitor.enabled (not (has "*" $values.serve.http.hosts)) -}}
{{- fail "serviceMonitor asks by the addresses of pods; leave \"*\" in serve.http.hosts" -}}
{{- end -}}
{{- include "perimetry.checkEgress" . -}}
{{- end -}}

{{- define "perimetry.checkEgress" -}}
{{- $values := .Values -}}
{{- $egress := $values.networkPolicy.egress -}}
{{- if $values.networkPolicy.enabled -}}
{{- if and $values.store.postgres.enabled (not $egress.database) -}}
{{- fail "networkPolicy.egress.database is empty: name the peers that the database is at" -}}
{{- end -}}
{{- if and $values.artifact.url (not $egress.artifact) -}}
{{- fail "networkPolicy.egress.artifact is empty: name the peers that artifact.url leads to" -}}
{{- end -}}
{{- if and (dig "telemetry" "endpoint" "" $values.serve) (not $egress.otlp) -}}
{{- fail "networkPolicy.egress.otlp is empty: name the peers that serve.telemetry.endpoint leads to" -}}
{{- end -}}
{{- if and (dig "http" "upstream" "" $values.serve) (not $egress.extra) -}}
{{- fail "networkPolicy.egress.extra is empty: add a rule for serve.http.upstream" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The tables of the configuration, with what the chart itself decides. */}}
{{- define "perimetry.serve" -}}
{{- $serve := deepCopy .Values.serve -}}
{{- $http := merge (dict "tokens" "/run/secrets/perimetry/tokens") $serve.http -}}
{{- $_ := set $http "hosts" (append $serve.http.hosts "localhost" | uniq) -}}
{{- $_ := set $serve "http" $http -}}
{{- $store := $serve.store -}}
{{- if .Values.store.postgres.enabled -}}
{{- $_ := set $store "url" .Values.store.postgres.url -}}
{{- end -}}
{{- if .Values.store.hashKey.secret -}}
{{- $_ := set $store "key_file" "/run/perimetry/hash.key" -}}
{{- end -}}
{{- $serve | toJson -}}
{{- end -}}
