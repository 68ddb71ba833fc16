"""Real servers for the tests: started on free ports of this machine, and stopped at the end."""
