"""Contract between the platform and the image. Imports no torch, so that scripts can import it."""
