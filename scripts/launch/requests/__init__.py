"""Request dicts for the AWS API, a module a resource: values in, a dict out, nothing sent."""
