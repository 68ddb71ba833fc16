"""The record's side of a run: dispatch, reservations, reconciliation and pruning."""
