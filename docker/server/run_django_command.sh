#!/bin/sh
# Run a management command as the very process that Cloud Run sends SIGTERM to and whose exit code it reads.
set -eu
exec python manage.py "$@"
