"""The REST frontend: the calls of gRPC in JSON, by the HTTP rules of the clients."""

from __future__ import annotations
