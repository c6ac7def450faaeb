"""The lab `formal-languages`: when does a dictionary keep behaviour, and do latents that correlate with a variable cause it?"""
