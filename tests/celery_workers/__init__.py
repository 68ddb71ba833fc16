"""Real Celery workers, on Redis and PostgreSQL."""
