"""What only an admin site has."""
