"""Endpoints: options, requests, deployment, and the picture of their predictions."""
