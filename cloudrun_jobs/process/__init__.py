"""Signal-safe primitives of a process, independent of jobs."""
