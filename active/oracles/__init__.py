"""Who labels a query: one oracle a file."""
