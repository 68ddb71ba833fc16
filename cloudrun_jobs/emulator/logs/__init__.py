"""What Cloud Logging keeps of tasks and deliveries, and how it is asked for."""

from __future__ import annotations
