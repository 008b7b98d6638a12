"""Support code of the tests: fixtures of real servers, trainings and accounts."""
