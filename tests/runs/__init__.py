"""Tests of run records, on each kind of database."""
