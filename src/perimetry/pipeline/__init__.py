"""The commands' work from end to end: harvest, train, calibrate, measure, report. Only the command line imports this."""
