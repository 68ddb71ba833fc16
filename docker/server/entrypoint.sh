#!/bin/sh
# Start the web role for `web` or no arguments, and Celery for `celery ...`; otherwise run the arguments as a management
# command, a job.
set -eu
here=$(dirname "$0")

case "${1-web}" in
  web) ;;
  celery) exec "$@" ;; # Process 1, as a job: it receives SIGTERM.
  *) exec "$here/run_django_command.sh" "$@" ;;
esac

stopping=
trap 'stopping=yes' TERM INT

run=${TMPDIR:-/tmp}/server # The only writable directory: the root file system can be read-only.
mkdir -p "$run"
sed -e "s|\${PORT}|${PORT:-8080}|g" -e "s|\${STATIC_ROOT}|$STATIC_ROOT|g" -e "s|\${RUN}|$run|g" \
  "$here/nginx/nginx.conf.template" >"$run/nginx.conf"

# gunicorn also reads WEB_CONCURRENCY and GUNICORN_CMD_ARGS. --timeout 0: Cloud Run limits the time of a request.
gunicorn --bind "unix:$run/gunicorn.sock" --no-control-socket --threads 8 --timeout 0 --graceful-timeout 2 \
  "$WSGI_APPLICATION" &
gunicorn=$!
nginx -e stderr -p "$run" -c "$run/nginx.conf" &
nginx=$!

both_live() {
  kill -0 "$gunicorn" 2>/dev/null && kill -0 "$nginx" 2>/dev/null
}

# sh cannot wait for the first of two processes. A trap interrupts `wait` at once, but not `sleep`.
while [ -z "$stopping" ] && both_live; do
  sleep 1 &
  wait $! || true
done

status=0
[ -n "$stopping" ] || {
  echo "entrypoint: nginx or gunicorn exited; stopping the container so that it is restarted." >&2
  status=1
}

# nginx finishes its requests in at most 6 s (nginx.conf), then gunicorn stops in 2 s; Cloud Run allows 10 s.
trap '' TERM INT
kill -s QUIT "$nginx" 2>/dev/null || true
wait "$nginx" || true
kill -s TERM "$gunicorn" 2>/dev/null || true
wait "$gunicorn" || true
exit "$status"
