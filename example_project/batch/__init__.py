"""Short jobs that Cloud Scheduler runs inside the web service."""
