"""AWS's price list for SageMaker's instances, kept for a week in a file of the user's cache folder."""

import json
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from aws.clients import client
from aws.errors import translate_errors
from classifier.errors import UserError
from launch.platform.resources import all_pages

# The price list of all regions is served from a few; this is the one that all accounts have.
_API_REGION = "us-east-1"
_MAX_AGE = timedelta(days=7)
# USE1-Train:ml.g5.xlarge; other names, such as those of training plans, have other prices.
_USAGE = re.compile(r"[^:]+:(ml\.[a-z0-9-]+\.(?:medium|large|\d*xlarge))")


class Use(Enum):
    """What instances are used for, as the price list's attribute ``platoinstancetype`` has it."""

    TRAINING = "Training"
    HOSTING = "Hosting"
    ASYNCHRONOUS = "AsyncInf"
    TRANSFORM = "BatchTransform"


@dataclass(frozen=True)
class PriceList:
    """Prices of one region and use.

    Attributes:
        prices: US dollars per instance and hour, by instance type.
        fetched: when AWS was asked.
    """

    prices: Mapping[str, float]
    fetched: datetime


@cache
def read_price_list(use: Use, region: str) -> PriceList | None:
    """Return the price list of the cache if it is recent, else AWS's, else an older one of the cache; None without any.

    Nothing that can go wrong here is an error, as no command needs a price; AWS is asked once by a command.
    """
    path = _cache_folder() / f"{region}-{use.value}.json"
    cached = _load(path)
    if cached and datetime.now(UTC) - cached.fetched < _MAX_AGE:
        return cached
    try:
        prices = _fetch(use, region)
    except UserError:
        return cached
    if not prices:
        return cached
    fetched = PriceList(prices, datetime.now(UTC))
    _save(path, fetched)
    return fetched


def _fetch(use: Use, region: str) -> dict[str, float]:
    attributes = {"regionCode": region, "platoinstancetype": use.value}
    filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in attributes.items()]
    request = {"ServiceCode": "AmazonSageMaker", "FormatVersion": "aws_v1", "Filters": filters}
    with translate_errors("price list"):
        api = client("pricing", region=_API_REGION, is_optional=True)
        products = list(all_pages(api.get_products, "PriceList", **request))
    return {name: price for product in products for name, price in _parse(json.loads(product)).items()}


def _parse(product: Mapping[str, Any]) -> dict[str, float]:
    """Return the hourly price of a product by its instance type; nothing if it is not an instance's on-demand price."""
    usage = _USAGE.fullmatch(product.get("product", {}).get("attributes", {}).get("usagetype", ""))
    if not usage:
        return {}
    offers = product.get("terms", {}).get("OnDemand", {}).values()
    terms = [term for offer in offers for term in offer.get("priceDimensions", {}).values()]
    # Those of the free tier are zero.
    prices = [float(term.get("pricePerUnit", {}).get("USD", 0)) for term in terms if term.get("unit") == "Hrs"]
    return {usage[1]: max(prices)} if any(prices) else {}


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "image-classifier" / "prices"


def _load(path: Path) -> PriceList | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        prices = {str(name): float(price) for name, price in content["prices"].items()}
        return PriceList(prices, datetime.fromisoformat(content["fetched"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _save(path: Path, listed: PriceList) -> None:
    # A folder that can't be written to, such as a container's, costs a request each time.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"fetched": listed.fetched.isoformat(), "prices": dict(listed.prices)}, indent=1)
        # Commands run at the same time.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            file.write(content)
        Path(file.name).replace(path)
