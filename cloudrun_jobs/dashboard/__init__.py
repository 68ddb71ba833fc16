"""The pages that show and run jobs, in the admin and on their own."""
