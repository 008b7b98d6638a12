"""Endpoints: options, requests, deployment."""
