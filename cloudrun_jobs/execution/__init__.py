"""Run one job in its process: record, locks, signals and outcome."""
