"""What the tests of projects that use the app need."""
