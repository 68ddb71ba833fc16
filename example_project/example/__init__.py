"""The example project: settings, addresses and the WSGI application."""
