"""Bring Cloud Run and Cloud Scheduler in line with what the code declares."""
