"""The parts of `scripts/predict.py`: which images (`sources`), the row of each (`rows`), where it goes (`outputs`)."""
