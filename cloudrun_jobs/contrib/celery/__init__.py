"""The part of a Celery worker that runs jobs."""
