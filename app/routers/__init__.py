"""The routes, one flat file a resource."""
