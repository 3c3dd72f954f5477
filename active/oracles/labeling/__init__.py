"""The labeling page: what it knows (`board`), how it is served (`server`, `guard`, `pictures`), and its files (`static`)."""
