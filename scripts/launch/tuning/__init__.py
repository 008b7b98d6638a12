"""Hyperparameter tuning on AWS or on this machine: parameter ranges, trials, and their results."""
