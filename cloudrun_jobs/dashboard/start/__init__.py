"""The form that starts a job."""
