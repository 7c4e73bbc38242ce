"""Fuzzing a served instance by its own OpenAPI document, with schemathesis."""
