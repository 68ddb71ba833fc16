"""A project for the container's scripts: jobs that tell what reached them, pages that can be held open."""
