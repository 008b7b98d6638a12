"""Prices from a server that speaks AWS's price list API, from the cache, and from the built-in table."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aws.request_check import service_model
from launch.platform import price_list, prices
from launch.platform.price_list import Use
from launch.platform.prices import (
    Rate,
    describe_billed,
    describe_limit,
    describe_spent,
    describe_standing,
    dollars,
    find_rate,
    hours,
)
from launch.training.request import TrainingSpec
from launch.tuning.ranges import Ranges
from launch.tuning.request import TuningSpec, tuning_request
from launch.tuning.watch import describe_cost
from support.cloud_script import Cloud
from support.moto import speak_to
from support.price_list import product

KNOWN = Rate(instance_type="ml.g5.xlarge", num_instances=1, dollars=1.408, source="here")
PAIR = Rate(instance_type="ml.g5.xlarge", num_instances=2, dollars=1.408, source="here")
UNKNOWN = Rate(instance_type="ml.new.large", num_instances=1, dollars=None, source="here")


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cloud]:
    """The price list's server, with nothing behind it."""
    cloud = Cloud(9)
    speak_to(cloud.url, monkeypatch, tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    price_list.read_price_list.cache_clear()
    yield cloud
    price_list.read_price_list.cache_clear()
    cloud.close()


def test_price_list_is_asked_for_the_region_and_use_and_read_page_by_page(cloud: Cloud) -> None:
    cloud.answer("GetProducts", {"PriceList": [product("EU-Train:ml.m5.large", "0.128")], "NextToken": "2"}, times=1)
    page = [product("EU-Train:ml.g5.xlarge", "0", "1.57"), product("EU-Train:ml.p5.48xlarge-trainingplan", "9")]
    cloud.answer("GetProducts", {"PriceList": [*page, product("EU-Train:ml.m5.xlarge", "7", unit="GB")]})
    listed = price_list.read_price_list(Use.TRAINING, "eu-west-1")
    assert listed
    assert listed.prices == {"ml.m5.large": 0.128, "ml.g5.xlarge": 1.57}
    first, second = cloud.bodies("GetProducts")
    assert first["ServiceCode"] == "AmazonSageMaker"
    assert first["Filters"] == [
        {"Type": "TERM_MATCH", "Field": "regionCode", "Value": "eu-west-1"},
        {"Type": "TERM_MATCH", "Field": "platoinstancetype", "Value": "Training"},
    ]
    assert second["NextToken"] == "2"
    rate = find_rate(Use.TRAINING, "ml.g5.xlarge", 2, "eu-west-1")
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert str(rate) == f"2 × ml.g5.xlarge, $3.14 an hour (AWS price list of {today}, eu-west-1)"


@pytest.mark.parametrize(("age", "num_requests"), [(timedelta(days=6), 0), (timedelta(days=8), 1)])
def test_cached_price_list_is_used_for_a_week(cloud: Cloud, tmp_path: Path, age: timedelta, num_requests: int) -> None:
    cloud.answer("GetProducts", {"PriceList": [product("EU-Host:ml.m5.large", "0.128")]})
    assert price_list.read_price_list(Use.HOSTING, "eu-west-1")
    (path,) = (tmp_path / "image-classifier" / "prices").iterdir()
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "fetched": (datetime.now(UTC) - age).isoformat()}))
    price_list.read_price_list.cache_clear()
    assert find_rate(Use.HOSTING, "ml.m5.large", 1, "eu-west-1").dollars == 0.128
    assert len(cloud.bodies("GetProducts")) == 1 + num_requests


def test_older_cache_is_better_than_the_table_and_shows_its_age(cloud: Cloud, tmp_path: Path) -> None:
    cloud.refuse("GetProducts", "AccessDeniedException")
    folder = tmp_path / "image-classifier" / "prices"
    folder.mkdir(parents=True)
    content = {"fetched": "2026-01-02T00:00:00+00:00", "prices": {"ml.m5.large": 0.2}}
    (folder / "eu-west-1-Hosting.json").write_text(json.dumps(content))
    rate = find_rate(Use.HOSTING, "ml.m5.large", 1, "eu-west-1")
    assert (rate.dollars, rate.source) == (0.2, "AWS price list of 2026-01-02, eu-west-1")


@pytest.mark.parametrize("cached", ["", "{", "[]", '{"fetched": "x", "prices": {}}', '{"prices": {"a": 1}}'])
def test_refused_price_list_and_broken_cache_fall_back_to_the_table(cloud: Cloud, tmp_path: Path, cached: str) -> None:
    cloud.refuse("GetProducts", "AccessDeniedException")
    folder = tmp_path / "image-classifier" / "prices"
    folder.mkdir(parents=True)
    (folder / "eu-west-1-Training.json").write_text(cached)
    rate = find_rate(Use.TRAINING, "ml.g5.xlarge", 1, "eu-west-1")
    assert (rate.dollars, rate.source) == (1.408, "built-in table, us-east-1, 2026; eu-west-1 may cost more")
    assert find_rate(Use.TRAINING, "ml.m5.large", 1, "us-east-1").source == "built-in table, us-east-1, 2026"
    # AWS is asked once for each region, and not again by the same command.
    find_rate(Use.TRAINING, "ml.g5.xlarge", 1, "eu-west-1")
    assert len(cloud.bodies("GetProducts")) == 2


def test_price_list_is_not_asked_again_where_it_is_throttled(cloud: Cloud) -> None:
    cloud.refuse("GetProducts", "ThrottlingException")
    assert find_rate(Use.TRAINING, "ml.g5.xlarge", 1, "eu-west-1").dollars == 1.408
    assert len(cloud.bodies("GetProducts")) == 1


def test_without_region_or_credentials_the_table_is_used(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert find_rate(Use.TRAINING, "ml.m5.large", 1).source == "built-in table, us-east-1, 2026"
    assert find_rate(Use.TRAINING, "ml.m5.large", 1, "us-west-2").dollars == 0.115
    assert cloud.requests == []


def test_price_in_another_currency_is_unknown_rather_than_zero(cloud: Cloud) -> None:
    yuan = product("CNN1-Train:ml.m6i.large", "1").replace("USD", "CNY")
    cloud.answer("GetProducts", {"PriceList": [yuan]})
    rate = find_rate(Use.TRAINING, "ml.m6i.large", 3, "cn-north-1")
    assert rate.total is None
    assert str(rate) == "3 × ml.m6i.large, hourly price unknown, see https://aws.amazon.com/sagemaker/pricing"


def test_table_has_only_types_that_sagemaker_knows() -> None:
    model: Any = service_model("sagemaker")
    shapes = (model.shape_for(name) for name in ("TrainingInstanceType", "ProductionVariantInstanceType"))
    assert set(prices._HOURLY) <= {one for shape in shapes for one in shape.enum}
    assert min(prices._HOURLY.values()) > 0


def test_limits_are_rate_times_count_times_time() -> None:
    assert describe_limit(KNOWN, 6 * 3600, jobs=20).startswith("20 jobs × at most 6 h × $1.41 = at most $169 (ml.g5")
    assert describe_limit(PAIR, 1800).startswith("2 instances × at most 30 min × $1.41 = at most $1.41 (ml.g5.xlarge;")
    spot = describe_limit(KNOWN, 3600, spot=True)
    assert spot == (
        "at most 1 h × $1.41 = at most $1.41 (ml.g5.xlarge; here); Spot capacity usually costs 70 to 90 % less"
    )


def test_endpoints_cost_day_and_night() -> None:
    cost = "2 × ml.g5.xlarge: $2.82 an hour, $67.58 a day, $2,028 in 30 days (here)"
    assert describe_standing(PAIR) == cost
    assert describe_standing(PAIR, max_instances=4) == f"{cost}; up to 4 instances as it scales"
    to_zero = "; nothing while it has scaled to none, up to 4 instances as it scales"
    assert describe_standing(PAIR, min_instances=0, max_instances=4) == f"{cost}{to_zero}"


def test_billed_time_is_multiplied_by_the_instances_and_shows_what_spot_saved() -> None:
    assert describe_billed(PAIR, 1200) == "1,200 s × 2 × $1.41 an hour = $0.939 (here)"
    assert describe_billed(KNOWN, 900, 3600).endswith(" = $0.352 (here); Spot saved 75% of 3,600 s")
    assert describe_spent(KNOWN, 7200) == "about $2.82: 2 h of 1 × ml.g5.xlarge at $1.41 an hour (here)"
    assert describe_spent(KNOWN, 7200, spot=True).startswith("at most $2.82: ")


@pytest.mark.parametrize(
    "text",
    [
        str(UNKNOWN),
        describe_limit(UNKNOWN, 3600),
        describe_limit(UNKNOWN, 3600, jobs=20),
        describe_standing(UNKNOWN),
        describe_billed(UNKNOWN, 10),
        describe_spent(UNKNOWN, 10),
    ],
)
def test_unknown_price_is_said_and_never_an_amount(text: str) -> None:
    assert "hourly price unknown, see https://aws.amazon.com/sagemaker/pricing" in text
    assert "ml.new.large" in text
    assert "$" not in text


@pytest.mark.parametrize(
    ("amount", "text"),
    [(1234.5, "$1,234"), (12.3, "$12.30"), (1, "$1.00"), (0.115, "$0.115"), (0.23, "$0.23"), (0.00047, "less than")],
)
def test_amounts(amount: float, text: str) -> None:
    assert dollars(amount).startswith(text)


@pytest.mark.parametrize(("seconds", "text"), [(45, "45 s"), (1800, "30 min"), (5400, "1.5 h"), (432000, "120 h")])
def test_times(seconds: float, text: str) -> None:
    assert hours(seconds) == text


@pytest.mark.usefixtures("cloud")
def test_a_tuning_jobs_time_limit_bounds_its_cost() -> None:
    spec = TuningSpec(name="dogs", ranges=Ranges({}, ()), jobs=20, parallel=4)
    training = TrainingSpec(job_name="t", image="i", role="r", channels={}, output="s3://b/o")

    def describe(spec: TuningSpec) -> str:
        return describe_cost(tuning_request(spec, training), "us-east-1")

    assert describe(spec).startswith("20 jobs × at most 6 h × $1.41 = at most $169 (")
    bounded = describe(replace(spec, max_runtime_s=3600))
    assert bounded.startswith("4 trials at a time × at most 1 h × $1.41 = at most $5.63 (")
    assert describe(replace(spec, max_runtime_s=10**6)).startswith("20 jobs × ")
