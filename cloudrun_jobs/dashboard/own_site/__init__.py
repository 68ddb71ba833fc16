"""What only the dashboard has: its address, access, errors and notices."""
