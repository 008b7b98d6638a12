"""What the platform and the image say to each other. Imports no torch, so scripts may import it."""
