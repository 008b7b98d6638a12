"""AWS clients, and botocore errors as messages a user can act on; shared by `dataset` and `launch`."""
