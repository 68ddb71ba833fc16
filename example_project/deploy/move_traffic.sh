#!/bin/sh
# Send all requests to the new revision.
set -eu
gcloud run services update-traffic "web-$ENVIRONMENT" --to-latest
