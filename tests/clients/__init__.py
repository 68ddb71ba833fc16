"""Clients of Google Cloud that other projects wrote, each in an environment of its own, against the emulator.

Each module is a program, not a test module, because the clients conflict with each other and with this package:
``python -m tests.clients.airflow PYTHON``, where PYTHON is the interpreter that has the emulator. A program
replaces only endpoints and credentials. `make test-libraries` runs all of them.
"""
