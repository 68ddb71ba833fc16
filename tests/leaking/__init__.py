"""An app with a job that leaks the value of its secret option in each way that is masked."""
