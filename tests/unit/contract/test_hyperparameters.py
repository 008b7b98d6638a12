"""Parsing, bounds and documentation of hyperparameters."""

import math
from contextlib import suppress
from typing import Any, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from classifier.contract.hyperparameters import ALIASES, Hyperparameters, describe
from classifier.contract.metrics import VALIDATION_METRICS
from classifier.errors import ConfigError

FIELDS = Hyperparameters.model_fields


def of_type(kind: object) -> list[str]:
    return [name for name, field in FIELDS.items() if field.annotation is kind]


INTEGERS, NUMBERS = of_type(int), [*of_type(int), *of_type(float)]
NUMBERS_OR_AUTO = ("num_workers", "ranks_per_host")
CHOICES = [
    name for name, field in FIELDS.items() if get_origin(field.annotation) is not None and name not in NUMBERS_OR_AUTO
]


def bounds_of(name: str) -> dict[type, Any]:
    kinds = {Ge: "ge", Gt: "gt", Le: "le", Lt: "lt"}
    return {
        kind: getattr(bound, key)
        for bound in FIELDS[name].metadata
        for kind, key in kinds.items()
        if type(bound) is kind
    }


def step(name: str, value: float, towards: float) -> float:
    return value + math.copysign(1, towards) if name in INTEGERS else math.nextafter(value, towards)


def edges() -> list[tuple[str, float, float]]:
    """Each bound of the table: name, the last valid value, the first invalid one."""
    found: list[tuple[str, float, float]] = []
    for name in NUMBERS:
        for kind, limit in bounds_of(name).items():
            outwards = -math.inf if kind in (Ge, Gt) else math.inf
            if kind in (Ge, Le):
                found.append((name, limit, step(name, limit, outwards)))
            else:
                found.append((name, step(name, limit, -outwards), limit))
    return found


def parse(**values: object) -> Hyperparameters:
    return Hyperparameters.parse(values)


def companions(name: str) -> dict[str, str]:
    """Other values that a value at its bound requires."""
    return {"epochs": "1000"} if name == "warmup_epochs" else {}


def test_every_hyperparameter_has_a_default() -> None:
    assert Hyperparameters.parse({}) == Hyperparameters()


@pytest.mark.parametrize("name", FIELDS)
def test_defaults_are_valid_as_strings(name: str) -> None:
    assert Hyperparameters.parse({name: str(FIELDS[name].default)}) == Hyperparameters()


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_bounded_on_both_sides(name: str) -> None:
    kinds = bounds_of(name).keys()
    assert kinds & {Ge, Gt}
    assert kinds & {Le, Lt}


@pytest.mark.parametrize(("name", "inside", "outside"), edges())
def test_value_at_its_bound_is_valid_and_the_next_one_an_error(name: str, inside: float, outside: float) -> None:
    beside = companions(name)
    passed = Hyperparameters.parse({name: repr(inside), **beside})
    assert getattr(passed, name) == inside
    limit = next(
        f"{value:g}" if value < 1e6 else str(value) for value in bounds_of(name).values() if value in (inside, outside)
    )
    with pytest.raises(ConfigError, match=rf"^hyperparameter {name}='.*': should be (less|greater) than .*{limit}\b"):
        Hyperparameters.parse({name: repr(outside), **beside})


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "NaN", "Infinity", "1e999"])
@pytest.mark.parametrize("name", NUMBERS)
def test_infinity_and_nan_are_errors(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"^hyperparameter {name}='{value}': "):
        Hyperparameters.parse({name: value})


@pytest.mark.parametrize("value", ["", "many", "1,5", "0x10", "[]", "None", "1e"])
@pytest.mark.parametrize("name", NUMBERS)
def test_text_is_not_a_number(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"^hyperparameter {name}="):
        Hyperparameters.parse({name: value})


@pytest.mark.parametrize("name", INTEGERS)
def test_fraction_is_not_an_integer(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^hyperparameter {name}='32\.5': "):
        Hyperparameters.parse({name: "32.5"})


@pytest.mark.parametrize("name", CHOICES)
def test_choices_are_accepted_and_listed_in_the_error(name: str) -> None:
    choices = get_args(FIELDS[name].annotation)
    for choice in choices:
        assert getattr(Hyperparameters.parse({name: choice}), name) == choice
    with pytest.raises(ConfigError, match=rf"^hyperparameter {name}='other': ") as caught:
        Hyperparameters.parse({name: "other"})
    assert all(f"'{choice}'" in str(caught.value) for choice in choices)


@pytest.mark.parametrize("metric", VALIDATION_METRICS)
def test_best_metric_may_be_any_validation_metric(metric: str) -> None:
    assert parse(best_metric=metric).best_metric == metric


@pytest.mark.parametrize("metric", ["accuracy", "test:accuracy", "train:loss"])
def test_best_metric_must_be_a_validation_metric(metric: str) -> None:
    with pytest.raises(ConfigError, match=r"^hyperparameter best_metric='.*': should be one of validation:loss, "):
        parse(best_metric=metric)


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("0", 0), ("4", 4), ("256", 256), ('"3"', 3)])
def test_num_workers_is_a_number_or_auto(text: str, value: object) -> None:
    assert parse(num_workers=text).num_workers == value


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("1", 1), ("64", 64)])
def test_ranks_per_host_is_a_number_or_auto(text: str, value: object) -> None:
    assert parse(ranks_per_host=text).ranks_per_host == value


@pytest.mark.parametrize("text", ["0", "65", "all"])
def test_invalid_ranks_per_host_is_reported_once(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(ranks_per_host=text)
    expected = f"hyperparameter ranks_per_host='{text}': should be 'auto' or a whole number from 1 to 64"
    assert str(caught.value) == expected


@pytest.mark.parametrize("text", ["-1", "257", "all", "1.5", "nan"])
def test_invalid_num_workers_is_reported_once(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(num_workers=text)
    expected = f"hyperparameter num_workers='{text}': should be 'auto' or a whole number from 0 to 256"
    assert str(caught.value) == expected


@pytest.mark.parametrize("quoted", ["{}", '"{}"', " {} "])
@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((spelling, True) for spelling in ("true", "True", "TRUE", "1", "yes", "Yes", "on", "On")),
        *((spelling, False) for spelling in ("false", "False", "FALSE", "0", "no", "No", "off", "Off")),
    ],
)
def test_spellings_of_booleans(text: str, value: bool, quoted: str) -> None:
    assert parse(pretrained=quoted.format(text)).pretrained is value


@pytest.mark.parametrize("value", [True, False])
def test_json_booleans(value: bool) -> None:
    assert parse(pretrained=value).pretrained is value


@pytest.mark.parametrize("value", ["", "2", "-1", "t", "maybe", "None", None, 1.0, []])
def test_other_values_are_not_booleans(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^hyperparameter pretrained=.*: should be true or false$"):
        parse(pretrained=value)


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_aliases(alias: str, name: str) -> None:
    assert getattr(Hyperparameters.parse({alias: "2"}), name) == 2


@pytest.mark.parametrize("name", [name for name in (*FIELDS, *ALIASES) if "_" in name])
def test_dashes_are_accepted_for_underscores(name: str) -> None:
    default = FIELDS[ALIASES.get(name, name)].default
    assert Hyperparameters.parse({name.replace("_", "-"): str(default)}) == Hyperparameters()


@pytest.mark.parametrize(
    ("raw", "value"), [('"0.01390030725982051"', 0.01390030725982051), ("0.01390030725982051", 0.01390030725982051)]
)
def test_tuned_value_is_read_exactly(raw: str, value: float) -> None:
    assert parse(lr=raw).lr == value


@pytest.mark.parametrize(("name", "value"), [("model", "resnet50"), ("batch_size", 256), ("optimizer", "sgd")])
def test_value_quoted_twice(name: str, value: object) -> None:
    assert getattr(Hyperparameters.parse({name: f'"{value}"'}), name) == value


@pytest.mark.parametrize("name", ["sagemaker_program", "sagemaker_submit_directory", "_tuning_objective_metric"])
def test_reserved_keys_are_ignored(name: str) -> None:
    assert Hyperparameters.parse({name: '"validation:accuracy"'}) == Hyperparameters()


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("learnin_rate", "learning_rate"),
        ("batchsize", "batch_size"),
        ("epoch", "epochs"),
        ("Model", "model"),
        ("weight-decai", "weight_decay"),
        ("optimiser", "optimizer"),
    ],
)
def test_unknown_name_is_an_error_with_a_suggestion(wrong: str, meant: str) -> None:
    with pytest.raises(
        ConfigError, match=f"^unknown hyperparameter '{wrong}' \\(did you mean '{meant}'\\?\\); choose from "
    ):
        Hyperparameters.parse({wrong: "1"})


@pytest.mark.parametrize("name", ["", "zzz", "_tuning", "Sagemaker_x"])
def test_unknown_name_without_a_near_one_is_an_error_with_all_names(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Hyperparameters.parse({name: "1"})
    assert str(caught.value) == f"unknown hyperparameter {name!r}; choose from {', '.join(FIELDS)}"


@pytest.mark.parametrize(
    ("first", "second"), [("lr", "learning_rate"), ("batch-size", "mini_batch_size"), ("image_size", "image-size")]
)
def test_value_given_under_two_names_is_an_error(first: str, second: str) -> None:
    with pytest.raises(ConfigError, match=f"given twice: '{second}' is another name for it$"):
        Hyperparameters.parse({first: "32", second: "32"})


def test_all_errors_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(lr="-1", epochs="0", model="resnet18")
    assert str(caught.value) == (
        "hyperparameter epochs='0': should be greater than or equal to 1; "
        "hyperparameter lr='-1': should be greater than 0"
    )


def test_frozen_backbone_requires_pretrained_weights() -> None:
    with pytest.raises(
        ConfigError, match=r"^hyperparameters: freeze=backbone needs pretrained weights, but pretrained=false"
    ):
        parse(freeze="backbone", pretrained="false")


@pytest.mark.parametrize("warmup", ["3", "3.5"])
def test_warm_up_must_be_shorter_than_the_training(warmup: str) -> None:
    with pytest.raises(ConfigError, match=f"^hyperparameters: warmup_epochs={warmup} should be less than epochs=3$"):
        parse(warmup_epochs=warmup, epochs="3")
    assert parse(warmup_epochs="2.9", epochs="3").warmup_epochs == 2.9


def test_values_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Hyperparameters().epochs = 3  # pyright: ignore[reportAttributeAccessIssue]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from([*FIELDS, *ALIASES]) | st.text(max_size=10), json_values, max_size=4))
def test_any_json_is_valid_or_a_config_error(raw: dict[str, object]) -> None:
    with suppress(ConfigError):
        Hyperparameters.parse(raw)


@pytest.mark.parametrize("name", FIELDS)
def test_description_has_a_row_for_each_hyperparameter(name: str) -> None:
    rows = [row.strip("| ").split(" | ") for row in describe().splitlines() if row.startswith(f"| `{name}` |")]
    assert len(rows) == 1
    _, values, default, scale, text = rows[0]
    field = FIELDS[name]
    assert default.strip("`").lower() == str(field.default).lower()
    assert all(str(limit) in values for limit in bounds_of(name).values())
    assert text == field.description
    assert scale.strip() in ("", "linear", "logarithmic", "categorical")


# Values, default and tuning scale, as documented: a change breaks configurations and tuning jobs of users.
DOCUMENTED = {
    "model": ("a name", "resnet18", "categorical"),
    "pretrained": ("`true`, `false`", "true", ""),
    "freeze": ("`none`, `backbone`", "none", "categorical"),
    "image_size": ("32 ≤ x ≤ 1024", "224", ""),
    "epochs": ("1 ≤ x ≤ 1000", "10", "linear"),
    "batch_size": ("2 ≤ x ≤ 4096", "32", "logarithmic"),
    "lr": ("0 < x ≤ 10", "0.001", "logarithmic"),
    "scheduler": ("`constant`, `step`, `cosine`, `onecycle`", "cosine", "categorical"),
    "warmup_epochs": ("0 ≤ x ≤ 100", "0.0", "linear"),
    "optimizer": ("`sgd`, `adam`, `adamw`", "adamw", "categorical"),
    "momentum": ("0 ≤ x < 1", "0.9", "linear"),
    "weight_decay": ("0 ≤ x ≤ 1", "0.01", "logarithmic"),
    "eps": ("0 < x ≤ 1", "1e-08", "logarithmic"),
    "precision": ("`auto`, `fp32`, `bf16`, `fp16`", "auto", ""),
    "augmentation": ("`none`, `flip`, `standard`, `strong`", "standard", "categorical"),
    "label_smoothing": ("0 ≤ x < 1", "0.0", "linear"),
    "class_weights": ("`none`, `balanced`", "none", "categorical"),
    "early_stopping_patience": ("0 ≤ x ≤ 1000", "0", ""),
    "validation_split": ("0 < x ≤ 0.9", "0.2", ""),
    "truncated_images": ("`skip`, `load`", "skip", ""),
    "max_bad_images": ("0 ≤ x ≤ 1", "0.05", ""),
    "num_workers": ("`auto`, 0 … 256", "auto", ""),
    "ranks_per_host": ("`auto`, 1 … 64", "auto", ""),
    "optimize_for_cpu": ("`true`, `false`", "true", ""),
    "cpu_engine": ("`auto`, `fp32`, `bf16`, `int8`", "auto", ""),
    "checkpoint_interval_s": ("0 ≤ x ≤ 86400", "600.0", ""),
    "debug": ("`true`, `false`", "false", ""),
    "profile": ("`true`, `false`", "false", ""),
    "seed": ("0 ≤ x ≤ 4294967295", "0", ""),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_values_default_and_tuning_scale_are_as_documented(name: str) -> None:
    values, default, scale = DOCUMENTED[name]
    assert f"| `{name}` | {values} | `{default}` | {scale} | " in describe()


def test_description_lists_the_aliases() -> None:
    assert all(f"`{alias}` for `{name}`" in describe() for alias, name in ALIASES.items())
