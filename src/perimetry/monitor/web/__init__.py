"""The page of the service: three views, rendered here, that work without a script and get more comfortable with one."""
