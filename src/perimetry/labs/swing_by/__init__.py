"""The lab `swing-by`: loss on a new composition of known concepts can fall, rise and fall again."""
