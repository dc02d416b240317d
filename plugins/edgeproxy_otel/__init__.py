"""Sends traces and metrics to an OpenTelemetry collector by OTLP."""
