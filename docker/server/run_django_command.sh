#!/bin/sh
# Run a management command as process 1: it receives SIGTERM, and its exit code is the container's.
set -eu
exec python manage.py "$@"
