"""Experiments: many runs from one YAML file, and the tables and figures of their records."""
