"""An app whose job writes the value of its secret option in each way that is masked."""
