"""What every request passes, whatever its resource: middleware, routing, error handlers, rate limits. Start with
middleware.py.
"""
