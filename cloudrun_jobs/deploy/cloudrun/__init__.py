"""Read and write the resources of Cloud Run and Cloud Scheduler through Google's clients."""
