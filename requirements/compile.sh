#!/bin/sh
# Rewrite the locked requirements. `uv pip compile` is the one lock format that records no host.
set -eu
cd "$(dirname "$0")/.."
compile() {
  output=requirements/$1.txt
  shift
  uv pip compile --quiet --universal --generate-hashes --no-annotate \
    --custom-compile-command requirements/compile.sh --output-file "$output" "$@"
}
compile tools --python-version 3.11 requirements/tools.in
compile django52 --python-version 3.11 --extra dev pyproject.toml requirements/django52.in
compile django60 --python-version 3.12 --extra dev pyproject.toml requirements/django60.in
compile django61 --python-version 3.12 --extra dev pyproject.toml requirements/django61.in
compile bigquery --python-version 3.12 --extra dev pyproject.toml requirements/bigquery.in
compile server --python-version 3.13 pyproject.toml requirements/server.in
