#!/bin/sh
# Check the health of the new revision. It responds with 503 if the database, the locks or a migration is missing.
set -eu
url=$(gcloud run services describe "web-$ENVIRONMENT" --flatten=status.traffic \
  --format='csv[no-heading](status.traffic.tag,status.traffic.url)' | sed -n 's/^next,//p')

curl --fail --silent --show-error --retry 3 --retry-delay 2 --max-time 60 \
  "${url:?no revision has the tag next}/cloudrun_jobs/health/"
