"""The control API's SQL: one file a noun, plain functions over a borrowed connection.

Every function that touches a workspace's rows takes the workspace; rows come back as dicts of the
columns that were asked for.
"""
