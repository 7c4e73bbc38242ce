"""The authorization server, written by hand (RFC 6749, 6750, 7009, 7662): start with authorization_server.py."""
