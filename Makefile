# Python 3.11 or newer, git and make are all that is needed.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
NOX = .venv/bin/python -m nox --no-error-on-external-run

.PHONY: servers demo test lint test-pair test-faults soak mutations test-clients test-containers bench lock clean

demo: .venv/ready
	@$(NOX) --session demo

test: .venv/ready servers
	@$(NOX) --session lint tests

# Servers that no wheel brings: installed as root on Debian, else their tests say that they skip.
servers:
	@echo "==> Servers for the tests"
	@sh tests/servers/install.sh

lint: .venv/ready
	@$(NOX) --session lint

# One pair of Python and Django: make test-pair PAIR=3.12-django6.0
test-pair: .venv/ready
	@ALL_PAIRS=1 $(NOX) --session "tests($(PAIR))"

# Kills, stops and cuts off what locks live on, for minutes.
test-faults: .venv/ready servers
	@$(NOX) --session faults

soak: .venv/ready servers
	@$(NOX) --session soak

# Removes each rule of the locks and of the records, and sees a test fail.
mutations: .venv/ready servers
	@$(NOX) --session mutations

# Drives the emulator with Airflow, and has Terraform judge what is exported for it.
test-clients: .venv/ready
	@$(NOX) --session lint clients terraform

# Builds DockerfileServer and runs it: root on Debian.
test-containers: .venv/ready
	@$(NOX) --session containers

bench: .venv/ready
	@$(NOX) --session bench

lock: .venv/ready
	@PATH="$(CURDIR)/.venv/bin:$$PATH" requirements/compile.sh

clean:
	rm -rf .venv .nox

.venv/ready: requirements/tools.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found. Name one: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "==> Tools: nox and uv, in .venv"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/tools.txt
	@touch .venv/ready
