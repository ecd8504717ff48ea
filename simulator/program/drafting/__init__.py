"""All steps of all stages laid out, kept for scenarios that differ in figures, and priced."""
