"""Batch transform jobs: options, requests, watching."""
