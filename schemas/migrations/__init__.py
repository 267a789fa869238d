"""Alembic's folder: `env.py` runs the scripts in `versions/`, one step of the tables each."""
