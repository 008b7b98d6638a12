"""Hand-made faults, each with the tests that must notice it."""
