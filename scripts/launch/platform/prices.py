"""Approximate hourly prices of instances, printed by every command that starts or leaves one running."""

# On-demand list prices of SageMaker training and hosting in us-east-1, US dollars; other regions cost up to half more.
AS_OF = "us-east-1, 2025"
_HOURLY = {
    "ml.t2.medium": 0.056,
    "ml.m5.large": 0.115,
    "ml.m5.xlarge": 0.23,
    "ml.m5.2xlarge": 0.461,
    "ml.m5.4xlarge": 0.922,
    "ml.c5.large": 0.102,
    "ml.c5.xlarge": 0.204,
    "ml.c5.2xlarge": 0.408,
    "ml.c5.4xlarge": 0.816,
    "ml.g4dn.xlarge": 0.736,
    "ml.g4dn.2xlarge": 0.94,
    "ml.g4dn.12xlarge": 4.89,
    "ml.g5.xlarge": 1.408,
    "ml.g5.2xlarge": 1.515,
    "ml.g5.4xlarge": 2.03,
    "ml.g5.12xlarge": 7.09,
    "ml.g5.48xlarge": 20.36,
    "ml.p3.2xlarge": 3.825,
    "ml.p3.8xlarge": 14.688,
    "ml.p3.16xlarge": 28.152,
}


def hourly_price(instance_type: str | None, num_instances: int = 1) -> float | None:
    """Return the price in US dollars per hour, or None if it is unknown."""
    price = _HOURLY.get(instance_type or "")
    return None if price is None else price * num_instances


def describe_hourly(instance_type: str | None, num_instances: int = 1) -> str:
    """Return ``about $1.41 an hour (us-east-1, 2025)``, or where to find the price if it is unknown."""
    price = hourly_price(instance_type, num_instances)
    if price is None:
        return "hourly price unknown, see https://aws.amazon.com/sagemaker/pricing"
    return f"about ${price:.2f} an hour ({AS_OF})"


def describe_instances(instance_type: str | None, num_instances: int = 1) -> str:
    """Return ``2 × ml.g5.xlarge, about $2.82 an hour (us-east-1, 2025)``."""
    return f"{num_instances} × {instance_type}, {describe_hourly(instance_type, num_instances)}"
