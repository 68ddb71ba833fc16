#!/bin/sh
# Deploy the image as a new revision of the web service. It has no traffic, and a URL of its own by the tag `next`.
set -eu
gcloud run deploy "web-$ENVIRONMENT" --image="$IMAGE" --no-traffic --tag=next
