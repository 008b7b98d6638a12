"""Reports of a training: tables, images, TensorBoard events and the HTML page."""
