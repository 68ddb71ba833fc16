"""The jobs of benchmarks/celery.py."""
