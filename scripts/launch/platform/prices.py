"""Prices of instances and what jobs and endpoints cost, printed by every command that starts something or leaves it.

They come from AWS's price list, or, where that can't be asked, from the table below; what is printed names its source.
Disks, S3 and network traffic are not included.
"""

import sys
from dataclasses import dataclass

from aws.clients import region_name
from launch.platform.price_list import Use, read_price_list

PRICING_PAGE = "https://aws.amazon.com/sagemaker/pricing"
_HOURS_PER_DAY, _DAYS_PER_MONTH = 24, 30
_WHOLE_DOLLARS = 100
_S_PER_MINUTE, _S_PER_HOUR = 60, 3600
_TABLE_REGION = "us-east-1"
TABLE = f"built-in table, {_TABLE_REGION}, 2026"
# On-demand prices in us-east-1, US dollars an hour, as quoted from AWS's price list and price page from 2024 to 2026.
# Types whose price could not be established are left out: an unknown price is better than a wrong one.
_HOURLY = {
    **{"ml.t2.medium": 0.056, "ml.t3.medium": 0.05, "ml.t3.large": 0.10, "ml.t3.xlarge": 0.20, "ml.t3.2xlarge": 0.399},
    **{"ml.m5.large": 0.115, "ml.m5.xlarge": 0.23, "ml.m5.2xlarge": 0.461, "ml.m5.4xlarge": 0.922},
    **{"ml.m5.12xlarge": 2.765, "ml.m5.24xlarge": 5.53},
    **{"ml.c5.large": 0.102, "ml.c5.xlarge": 0.204, "ml.c5.2xlarge": 0.408, "ml.c5.4xlarge": 0.816},
    **{"ml.c5.9xlarge": 1.836, "ml.c5.18xlarge": 3.672},
    **{"ml.r5.large": 0.151, "ml.r5.xlarge": 0.302, "ml.r5.2xlarge": 0.605, "ml.r5.4xlarge": 1.21},
    **{"ml.r5.8xlarge": 2.419, "ml.r5.16xlarge": 4.838},
    **{"ml.g4dn.xlarge": 0.7364, "ml.g4dn.2xlarge": 0.94, "ml.g4dn.4xlarge": 1.505, "ml.g4dn.8xlarge": 2.72},
    **{"ml.g4dn.12xlarge": 4.89, "ml.g4dn.16xlarge": 5.44},
    **{"ml.g5.xlarge": 1.408, "ml.g5.2xlarge": 1.515, "ml.g5.4xlarge": 2.03, "ml.g5.8xlarge": 3.06},
    **{"ml.g5.12xlarge": 7.09, "ml.g5.16xlarge": 5.12, "ml.g5.24xlarge": 10.18, "ml.g5.48xlarge": 20.36},
    **{"ml.g6.xlarge": 1.1267, "ml.g6.2xlarge": 1.222, "ml.g6.4xlarge": 1.654, "ml.g6.8xlarge": 2.518},
    **{"ml.g6.12xlarge": 5.752, "ml.g6.16xlarge": 4.246, "ml.g6.24xlarge": 8.344, "ml.g6.48xlarge": 16.688},
    **{"ml.g6e.xlarge": 2.6054, "ml.g6e.2xlarge": 2.8026, "ml.g6e.4xlarge": 3.7553, "ml.g6e.8xlarge": 5.6607},
    **{"ml.g6e.12xlarge": 13.1158, "ml.g6e.24xlarge": 18.832, "ml.g6e.48xlarge": 37.664},
    **{"ml.g7e.2xlarge": 4.2039, "ml.g7e.4xlarge": 4.9977, "ml.g7e.8xlarge": 6.5853, "ml.g7e.12xlarge": 10.3576},
    **{"ml.g7e.24xlarge": 20.7152, "ml.g7e.48xlarge": 41.4304},
    **{"ml.p3.2xlarge": 3.825, "ml.p3.8xlarge": 14.688, "ml.p3.16xlarge": 28.152, "ml.p3dn.24xlarge": 35.894},
    **{"ml.p4d.24xlarge": 25.2513, "ml.p5.48xlarge": 63.296},
}


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What running instances cost by the hour.

    Attributes:
        dollars: price of one instance and hour; None if it is unknown.
        source: where the price comes from.
    """

    instance_type: str
    num_instances: int
    dollars: float | None
    source: str

    @property
    def total(self) -> float | None:
        """Price of all instances for an hour."""
        return None if self.dollars is None else self.dollars * self.num_instances

    def __str__(self) -> str:
        """``2 × ml.g5.xlarge, $2.82 an hour (AWS price list of 2026-11-21, us-east-1)``."""
        instances = f"{self.num_instances} × {self.instance_type}"
        if self.total is None:
            return f"{instances}, hourly price unknown, see {PRICING_PAGE}"
        return f"{instances}, {dollars(self.total)} an hour ({self.source})"


def find_rate(use: Use, instance_type: str, num_instances: int, region: str | None = None) -> Rate:
    """Look up what instances cost; no price is found where neither AWS nor the table has one.

    Args:
        region: default: that of the environment.
    """
    region = region or region_name()
    listed = read_price_list(use, region) if region else None
    price = listed.prices.get(instance_type) if listed else None
    if listed and price is not None:
        source = f"AWS price list of {listed.fetched:%Y-%m-%d}, {region}"
    else:
        price = _HOURLY.get(instance_type)
        elsewhere = f"; {region} may cost more" if region not in (None, _TABLE_REGION) else ""
        source = f"{TABLE}{elsewhere}"
    return Rate(instance_type=instance_type, num_instances=num_instances, dollars=price, source=source)


def describe_limit(rate: Rate, seconds: int, *, jobs: int | None = None, word: str = "jobs", spot: bool = False) -> str:
    """Return ``20 jobs × at most 6 h × $1.41 = at most $169 (…)``: what jobs cost that run to their time limit.

    Args:
        seconds: the time limit of a job.
        jobs: number of jobs that may run that long; None for a single one.
        word: what they are called.
        spot: whether they run on spot capacity, whose price changes with demand.
    """
    instances = f"{rate.num_instances} × {rate.instance_type}"
    if rate.dollars is None or rate.total is None:
        limit = f"at most {hours(seconds)} each" if jobs else f"at most {hours(seconds)}"
        what = f"{jobs} {word}, {instances}, {limit}" if jobs else f"{instances}, {limit}"
        return f"{what}; hourly price unknown, see {PRICING_PAGE}"
    factors = [f"{jobs} {word}"] if jobs else []
    factors += [f"{rate.num_instances} instances"] if rate.num_instances > 1 else []
    factors += [f"at most {hours(seconds)}", dollars(rate.dollars)]
    total = (jobs or 1) * rate.total * seconds / _S_PER_HOUR
    discount = "; Spot capacity usually costs 70 to 90 % less" if spot else ""
    return f"{' × '.join(factors)} = at most {dollars(total)} ({rate.instance_type}; {rate.source}){discount}"


def describe_standing(rate: Rate, *, min_instances: int | None = None, max_instances: int | None = None) -> str:
    """Return what an endpoint costs that runs day and night.

    Args:
        min_instances: the number down to which it scales; None for one.
        max_instances: the number up to which it scales; None if it does not.
    """
    if rate.total is None:
        return str(rate)
    day = rate.total * _HOURS_PER_DAY
    instances = f"{rate.num_instances} × {rate.instance_type}"
    costs = f"{dollars(rate.total)} an hour, {dollars(day)} a day, {dollars(day * _DAYS_PER_MONTH)} in 30 days"
    least = "nothing while it has scaled to none, " if min_instances == 0 else ""
    more = f"; {least}up to {max_instances} instances as it scales" if max_instances else ""
    return f"{instances}: {costs} ({rate.source}){more}"


def describe_billed(rate: Rate, seconds: float, ran_s: float | None = None) -> str:
    """Return what a training job was billed: ``1,200 s × 2 × $1.41 an hour = $0.94 (…)``.

    Args:
        seconds: the billable time of each instance. Spot's discount shortens it, at the same rate.
        ran_s: the time that the job ran, if that was on spot capacity.
    """
    text = f"{seconds:,.0f} s"
    if rate.dollars is not None and rate.total is not None:
        count = f" × {rate.num_instances}" if rate.num_instances > 1 else ""
        text += (
            f"{count} × {dollars(rate.dollars)} an hour = {dollars(rate.total * seconds / _S_PER_HOUR)} ({rate.source})"
        )
    else:
        text += f" of {rate.num_instances} × {rate.instance_type}, hourly price unknown, see {PRICING_PAGE}"
    return f"{text}; Spot saved {1 - seconds / ran_s:.0%} of {ran_s:,.0f} s" if ran_s and ran_s > seconds else text


def describe_spent(rate: Rate, seconds: float, *, spot: bool = False) -> str:
    """Return what instances have cost by the clock: ``about $0.46: 2.0 h of 1 × ml.m5.xlarge at $0.23 an hour (…)``.

    Args:
        seconds: time that the instances ran.
        spot: whether they ran on spot capacity, whose discount is not known here.
    """
    instances = f"{hours(seconds)} of {rate.num_instances} × {rate.instance_type}"
    if rate.dollars is None or rate.total is None:
        return f"{instances}, hourly price unknown, see {PRICING_PAGE}"
    about = "at most" if spot else "about"
    spent = dollars(rate.total * seconds / _S_PER_HOUR)
    return f"{about} {spent}: {instances} at {dollars(rate.dollars)} an hour ({rate.source})"


def dollars(amount: float) -> str:
    """Format an amount: ``$1,234``, ``$12.30``, ``$0.115``; never zero for what costs something."""
    if amount >= _WHOLE_DOLLARS:
        return f"${amount:,.0f}"
    if amount >= 1:
        return f"${amount:.2f}"
    text = f"{amount:.3f}"
    if amount and not float(text):
        return "less than $0.001"
    return f"${text[:-1]}" if text.endswith("0") else f"${text}"


def hours(seconds: float) -> str:
    """Format a time: ``6 h``, ``1.5 h``, ``30 min``, ``45 s``."""
    if seconds < _S_PER_MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _S_PER_HOUR:
        return f"{seconds / _S_PER_MINUTE:.3g} min"
    return f"{seconds / _S_PER_HOUR:,.4g} h"


def print_cost(text: str, *, is_request: bool = False) -> None:
    """Print what the next step costs.

    Args:
        is_request: whether standard output is the JSON of a dry run.
    """
    print(f"cost        {text}", file=sys.stderr if is_request else sys.stdout, flush=True)
