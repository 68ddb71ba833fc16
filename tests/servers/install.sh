#!/bin/sh
# Install what the tests need and no wheel brings, where this is Debian and we are root. Elsewhere those tests skip.
# With Python 3.14 the tests need redis-server, too. It is not installed here: Debian's package starts a service.
set -eu
packages="mariadb-server-core mariadb-client-core pgbouncer nginx-light chromium fonts-dejavu-core gettext"
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "Not root on Debian: install $packages yourself, or their tests are skipped." >&2
  exit 0
fi
# shellcheck disable=SC2086  # One word per package.
if ! dpkg -s $packages >/dev/null 2>&1; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
fi
