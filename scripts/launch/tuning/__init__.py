"""A ranges file → trials, on AWS or on this machine → their table, their plots, the best hyperparameters."""
