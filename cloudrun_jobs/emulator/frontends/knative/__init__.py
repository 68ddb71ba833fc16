"""The Knative-style v1 API, which ``gcloud run jobs`` uses."""

from __future__ import annotations
