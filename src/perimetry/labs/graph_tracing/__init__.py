"""The lab `graph-tracing`: do representations take the shape of a graph that is given only in context?"""
