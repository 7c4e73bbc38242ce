"""Fuzzing a running instance from its own OpenAPI document, with schemathesis."""
