"""From records to tables, tests of difference, figures and pages; without torch."""
