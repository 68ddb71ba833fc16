"""What happens to run records: dispatch, reservations, reconciliation and pruning."""
