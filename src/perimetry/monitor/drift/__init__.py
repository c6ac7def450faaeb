"""Drift: whether the traffic of late is what the meter was calibrated on. Runs beside the service, in a thread, without torch."""
