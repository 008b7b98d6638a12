"""Channels of photos → the weights of a classifier."""
