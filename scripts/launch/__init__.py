"""Launching of training, tuning, transform jobs and endpoints, on AWS or on this machine."""
