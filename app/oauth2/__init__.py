"""OAuth2, written by hand (RFC 6749, 6750, 7009, 7662): authorization_server.py issues, resource_server.py verifies."""
