"""Training jobs: options, request, monitoring."""
