"""A training's outcome → what a person looks at."""
