"""Training jobs: options, request, watching."""
