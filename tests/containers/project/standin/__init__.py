"""A project for the container's scripts: jobs that print what reached them, pages that can be held open."""
