"""What `scripts/predict.py` is made of: which images (`sources`), what is said of each (`rows`), where it goes (`outputs`)."""
