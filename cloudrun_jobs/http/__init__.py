"""The HTTP API: runs, and starting them. Closed until `CLOUDRUN_JOBS["HTTP"]` configures a credential."""
