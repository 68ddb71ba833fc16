#!/bin/sh
# Send all requests to the revision that was tested: the newest may be that of another deployment.
set -eu
gcloud run services update-traffic "web-$ENVIRONMENT" --to-tags=next=100
