"""Dispatch, reserve, reconcile and prune runs."""
