#!/bin/sh
# Migrate the database: run the job `migrate` with the new image, and wait until it has succeeded.
set -eu
gcloud run jobs update "migrate-$ENVIRONMENT" --image="$IMAGE" --wait
