#!/bin/sh
# Make jobs and schedules match the code. This runs in the new image, with the credentials of the deployment.
set -eu
cd "$(dirname "$0")/.."

# The settings need these variables, but a sync signs nothing and connects to no broker.
export EXAMPLE_SECRET_KEY=unused CLOUDRUN_JOBS_ENVIRONMENT="$ENVIRONMENT"
[ "${INSTANCES:-0}" -eq 0 ] || export CELERY_BROKER_URL=redis://unused

python manage.py sync_cloudrun_jobs --image "$IMAGE" --from-service "web-$ENVIRONMENT"
python manage.py sync_cloudrun_schedules
