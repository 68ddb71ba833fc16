"""The v1 API, in the shape of Knative: what ``gcloud run jobs`` speaks."""

from __future__ import annotations
