"""What the service tells an OpenTelemetry collector. It may be lost; it never holds up a score."""
