#!/bin/sh
# Deploy the Celery worker with the same image, and ping it. Without instances, there is no worker.
set -eu
[ "${INSTANCES:-0}" -gt 0 ] || exit 0

manifest=$(mktemp)
trap 'rm -f "$manifest"' EXIT
envsubst <"$(dirname "$0")/../../docker/celery/worker-pool.yaml" >"$manifest"
gcloud beta run worker-pools replace "$manifest"

gcloud run jobs update "celery-ping-$ENVIRONMENT" --image="$IMAGE" --wait
