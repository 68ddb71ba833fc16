"""The promise of the logs: one call, one entry."""
