"""The lab `steering`: does an intervention promote and suppress, or does it only damage?"""
