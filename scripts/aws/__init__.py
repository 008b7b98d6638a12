"""AWS clients, and botocore's errors as messages that a user can act on. Shared by `dataset` and `launch`."""
