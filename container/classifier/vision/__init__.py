"""Image decoding, preprocessing, architectures and artifacts, shared by training and serving."""
