"""Fine-tuning: from channels of photos to the weights of a classifier."""
