"""A project whose jobs run on Celery."""
