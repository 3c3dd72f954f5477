"""Oracles, which label queries: one per file."""
