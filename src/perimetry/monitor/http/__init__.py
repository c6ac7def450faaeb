"""The HTTP edge of the service: contract, limits, who may ask, adapters. Nothing here knows a model; scores come from an `Engine`."""
