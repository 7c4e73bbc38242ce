"""The HTTP layer that every request passes through: middleware, routing, error handlers, rate limits. Start with
middleware.py.
"""
