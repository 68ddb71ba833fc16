"""Exports the tables of a BigQuery dataset to Cloud Storage, on any number of tasks."""
