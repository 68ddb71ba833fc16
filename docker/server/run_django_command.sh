#!/bin/sh
# Run a management command as process 1: it receives SIGTERM, and its exit code is the container's.
set -eu
case "${1:-}" in
  -*) exec python manage.py "$@" ;;
  *-*) exec python manage.py cloudrun_exec "$@" ;; # Hyphens in the name may stand for underscores.
  *) exec python manage.py "$@" ;;
esac
