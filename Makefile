# Python 3.11 or newer, git and make are all that is needed.
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
NOX = .venv/bin/python -m nox --no-error-on-external-run

.PHONY: servers demo demo-export test lint test-oldest coverage test-pair test-faults test-bigquery test-wheel wheel soak mutations \
	test-clients test-client test-gcloud test-libraries test-airflow test-api test-browser test-containers \
	environment-of-lint bench messages lock clean

demo: .venv/ready
	@$(NOX) --session demo

# 30 tables of the example's rates, in a local BigQuery, exported to a local Cloud Storage.
demo-export: .venv/ready
	@$(NOX) --session demo_export

# Style, types, the suite on the newest Python and Django that PATH has, and the wheel: minutes, before every push.
test: .venv/ready servers
	@$(NOX) --session lint tests wheel installed

# Servers that no wheel brings: installed as root on Debian, else their tests say that they skip.
servers:
	@echo "==> Servers for the tests"
	@sh tests/servers/install.sh

lint: .venv/ready
	@$(NOX) --session lint

test-oldest: .venv/ready servers
	@$(NOX) --session oldest

# What the tests of the oldest pair leave uncovered, at most 5%.
coverage: .venv/ready servers
	@$(NOX) --session coverage

# One pair of Python and Django: make test-pair PAIR=3.12-django6.0
test-pair: .venv/ready servers
	@$(NOX) --session "pair($(PAIR))"

# Kills, stops and cuts off the processes and servers that locks and records depend on, for minutes.
test-faults: .venv/ready servers
	@$(NOX) --session faults

# Exports tables from a local BigQuery to a local Cloud Storage: half a gigabyte of clients and servers.
test-bigquery: .venv/ready
	@$(NOX) --session bigquery

# Builds the sdist and the wheel into dist/, and checks the wheel's contents.
wheel: .venv/ready
	@$(NOX) --session wheel

# Tests the wheel in dist/, installed in an environment of its own.
test-wheel: .venv/ready
	@$(NOX) --session installed

soak: .venv/ready servers
	@$(NOX) --session soak

# Removes each rule of the locks and of the records, and expects a test to fail.
mutations: .venv/ready servers
	@$(NOX) --session mutations

# Drives the emulator with gcloud and with the libraries of tests/clients, the HTTP API with schemathesis and beside
# Django Ninja and DRF, and validates what is exported for Terraform with Terraform.
test-clients: test-gcloud test-libraries test-airflow test-api

test-gcloud: environment-of-lint
	@$(NOX) --session gcloud terraform

# Prefect, django-tasks-google, Google's libraries for Node and others, each in an environment of its own.
test-libraries: environment-of-lint
	@$(NOX) --keywords "client and not airflow"

# Installs 1.4 GB.
test-airflow: environment-of-lint
	@$(NOX) --session "client(airflow)"

# One of the libraries: make test-client CLIENT=prefect
test-client: environment-of-lint
	@$(NOX) --session "client($(CLIENT))"

test-api: environment-of-lint
	@$(NOX) --session fuzz frameworks

# The environment in which those sessions run the package's side.
environment-of-lint: .venv/ready
	@$(NOX) --install-only --session lint

# Opens the admin and the dashboard in Chromium; tests/browser/screenshots has what it saw.
test-browser: .venv/ready servers
	@$(NOX) --session browser

# Builds DockerfileServer and runs it: root on Debian.
test-containers: .venv/ready
	@$(NOX) --session containers

# Writes the strings of the pages into the catalogs of cloudrun_jobs/locale, and compiles them. It needs GNU gettext.
messages: .venv/ready
	@$(NOX) --session messages

bench: .venv/ready
	@$(NOX) --session bench

lock: .venv/ready
	@PATH="$(CURDIR)/.venv/bin:$$PATH" requirements/compile.sh

clean:
	rm -rf .venv .nox dist

.venv/ready: requirements/tools.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found. Name one: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "==> Tools: nox and uv, in .venv"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/tools.txt
	@touch .venv/ready
