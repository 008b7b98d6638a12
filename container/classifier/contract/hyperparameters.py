"""Hyperparameters: one table that parses, bounds and documents them, and gives the tuner's scaling."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from classifier.contract.findings import DEBUGGER_RULES
from classifier.contract.metrics import VALIDATION_METRICS
from classifier.errors import ConfigError, did_you_mean

ALIASES = {"learning_rate": "lr", "mini_batch_size": "batch_size"}

_NUMBERS_OR_AUTO = {"num_workers": ("0", "256"), "ranks_per_host": ("1", "64")}
_SHOWN_VALUES = {
    "debug_stop": "rule names",
    **{name: f"`auto`, {' … '.join(bounds)}" for name, bounds in _NUMBERS_OR_AUTO.items()},
}

Scale = Literal["Linear", "Logarithmic", "Categorical"]

_BOOLEANS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


def _parse_boolean(value: object) -> object:
    # bool("False") is True in Python, hence the table.
    if isinstance(value, str) and value.strip().lower() in _BOOLEANS:
        return _BOOLEANS[value.strip().lower()]
    if isinstance(value, bool):
        return value
    raise ValueError("should be true or false")


def _known_metric(name: str) -> str:
    if name not in VALIDATION_METRICS:
        raise ValueError(f"should be one of {', '.join(VALIDATION_METRICS)}")
    return name


def _known_rules(names: str) -> str:
    rules = [name.strip() for name in names.split(",") if name.strip()]
    for rule in rules:
        if rule not in DEBUGGER_RULES:
            raise ValueError(
                f"no rule {rule!r}{did_you_mean(rule, DEBUGGER_RULES)}; rules: {', '.join(DEBUGGER_RULES)}"
            )
    return ",".join(rules)


Boolean = Annotated[bool, BeforeValidator(_parse_boolean)]
ValidationMetric = Annotated[str, AfterValidator(_known_metric)]
RuleNames = Annotated[str, AfterValidator(_known_rules)]
CpuEngine = Literal["auto", "fp32", "bf16", "int8"]
Ranks = Literal["auto"] | Annotated[int, Field(ge=1, le=64)]
Workers = Literal["auto"] | Annotated[int, Field(ge=0, le=256)]


def _row(default: object, description: str, *, scale: Scale | None = None, **bounds: float) -> Any:
    """A row of the table. ``scale`` is set if a tuner may vary the value: the API's ``ScalingType``, or Categorical."""
    return Field(default, description=description, json_schema_extra={"scale": scale}, **cast(Any, bounds))


class Hyperparameters(BaseModel):
    """Training options. Values arrive as strings and are typed, bounded and frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True)

    # Model
    model: str = _row("resnet18", "Name of any torchvision classification architecture.", scale="Categorical")
    pretrained: Boolean = _row(True, "Start from ImageNet weights, or from those in the channel `pretrained`.")
    freeze: Literal["none", "backbone"] = _row(
        "none", "Layers that keep their pretrained weights: none, or all but the head.", scale="Categorical"
    )
    image_size: int = _row(224, "Side of the square model input, in pixels.", ge=32, le=1024)

    # Optimization
    epochs: int = _row(10, "Passes over the training photos.", scale="Linear", ge=1, le=1000)
    batch_size: int = _row(
        32, "Photos per step; at least 2, which batch normalization requires.", scale="Logarithmic", ge=2, le=4096
    )
    lr: float = _row(1e-3, "Peak learning rate.", scale="Logarithmic", gt=0, le=10)
    scheduler: Literal["constant", "step", "cosine", "onecycle"] = _row(
        "cosine",
        "Learning-rate schedule. `step` divides by ten after each third; `onecycle` includes its own warm-up.",
        scale="Categorical",
    )
    warmup_epochs: float = _row(
        0.0, "Epochs (may be fractional) over which the learning rate rises to its peak.", scale="Linear", ge=0, le=100
    )
    optimizer: Literal["sgd", "adam", "adamw"] = _row("adamw", "Optimization algorithm.", scale="Categorical")
    momentum: float = _row(0.9, "Momentum of `sgd`; first beta of `adam` and `adamw`.", scale="Linear", ge=0, lt=1)
    weight_decay: float = _row(
        0.01, "Weight decay; not applied to biases and normalization layers.", scale="Logarithmic", ge=0, le=1
    )
    eps: float = _row(1e-8, "Constant added to the denominator in `adam` and `adamw`.", scale="Logarithmic", gt=0, le=1)
    sync_batchnorm: Boolean = _row(
        True,
        "Of several ranks: normalize batches over the photos of all of them, as one rank does, or each over its own, "
        "which is faster.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = _row(
        "auto",
        "Arithmetic of the model; `auto` is `bf16` where the hardware supports it, `fp16` on V100 and T4, else `fp32`.",
    )

    # Regularization and model selection
    augmentation: Literal["none", "flip", "standard", "strong"] = _row(
        "standard",
        "`flip` mirrors at random; `standard` also crops at random; `strong` also shifts colors and erases a patch.",
        scale="Categorical",
    )
    label_smoothing: float = _row(
        0.0, "Share of the target spread evenly over all classes during training.", scale="Linear", ge=0, lt=1
    )
    class_weights: Literal["none", "balanced"] = _row(
        "none", "`balanced` weights each class by the inverse of its number of photos.", scale="Categorical"
    )
    early_stopping_patience: int = _row(
        0, "Stop after this many epochs without an improvement of `best_metric`; 0 disables.", ge=0, le=1000
    )
    best_metric: ValidationMetric = _row(
        "validation:accuracy", "Metric that selects the best epoch, whose weights are saved."
    )

    # Data, outputs and reproducibility
    validation_split: float = _row(
        0.2, "Share of each class in `train` held out when there is no channel `validation`.", gt=0, le=0.9
    )
    truncated_images: Literal["skip", "load"] = _row(
        "skip", "Photos whose end is missing: leave them out, or fill the missing part with gray."
    )
    max_bad_images: float = _row(0.05, "Share of unreadable photos in a channel above which the job fails.", ge=0, le=1)
    num_workers: Workers = _row(
        "auto", "Threads that read and decode photos; `auto` is one per core, 0 decodes between steps."
    )
    ranks_per_host: Ranks = _row(
        "auto",
        "Processes of each host that train together; `auto` is one per GPU, and one without a GPU. `batch_size` "
        "counts the photos of all.",
    )
    optimize_for_cpu: Boolean = _row(
        True, "After training, convert the model for serving on CPUs and measure its speed and accuracy."
    )
    cpu_engine: CpuEngine = _row(
        "auto",
        "Arithmetic of serving on CPUs; `auto` is the fastest of which the validation photos show that it keeps the "
        "accuracy.",
    )
    checkpoint_interval_s: float = _row(
        600.0,
        "Seconds between checkpoints within an epoch, for a job that has a checkpoint folder; the ends of epochs are "
        "saved, too.",
        ge=0,
        le=86_400,
    )
    debug: Boolean = _row(False, "Save tensors in smdebug's format and evaluate the debugger's rules on them.")
    debug_stop: RuleNames = _row(
        "", "Debugger rules that stop the training when they fire, comma-separated; implies `debug`."
    )
    profile: Boolean = _row(False, "Measure where the time goes (steps, operators, CPU, GPU) and suggest improvements.")
    seed: int = _row(
        0, "Random seed; on the CPU of one machine, the same seed gives the same model.", ge=0, le=2**32 - 1
    )

    @model_validator(mode="after")
    def _check_together(self) -> "Hyperparameters":
        if self.freeze == "backbone" and not self.pretrained:
            raise ValueError("freeze=backbone needs pretrained weights, but pretrained=false: change one of them")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs={self.warmup_epochs:g} should be less than epochs={self.epochs}")
        return self

    @classmethod
    def parse(cls, raw: Mapping[str, object]) -> "Hyperparameters":
        """Parse and validate the content of ``hyperparameters.json``.

        Raises:
            ConfigError: a name is unknown or given twice, or a value is out of its bounds.
        """
        values: dict[str, object] = {}
        for key, value in raw.items():
            if _is_reserved(key):
                continue
            name = _canonical_name(key)
            if name in values:
                raise ConfigError(f"hyperparameter {name!r} is given twice: {key!r} is another name for it")
            values[name] = _unquote(value)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError("; ".join(dict.fromkeys(map(_explain, error.errors())))) from None


def _is_reserved(key: str) -> bool:
    return key.startswith("sagemaker_") or key == "_tuning_objective_metric"


def _canonical_name(key: str) -> str:
    name = key.strip().replace("-", "_")
    name = ALIASES.get(name, name)
    known = Hyperparameters.model_fields
    if name not in known:
        raise ConfigError(
            f"unknown hyperparameter {key!r}{did_you_mean(name, (*known, *ALIASES))}; choose from {', '.join(known)}"
        )
    return name


def _unquote(value: object) -> object:
    """Remove the quotes of a value that an SDK quoted twice: ``'"256"'`` becomes ``'256'``."""
    if isinstance(value, str) and len(value) >= 2 and value[0] == value[-1] == '"':
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value[1:-1]
    return value


def _explain(detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not detail["loc"]:
        return f"hyperparameters: {message}"
    name = str(detail["loc"][0])
    if name in _NUMBERS_OR_AUTO:
        message = f"should be 'auto' or a whole number from {' to '.join(_NUMBERS_OR_AUTO[name])}"
    return f"hyperparameter {name}={detail['input']!r}: {message}"


def describe() -> str:
    """Return the table as Markdown, as ``train --describe`` prints it and the README includes it."""
    rows = [("name", "values", "default", "tuning scale", "description")]
    rows += [_describe_field(name, field) for name, field in Hyperparameters.model_fields.items()]
    header, *body = [f"| {' | '.join(row)} |" for row in rows]
    aliases = ", ".join(f"`{alias}` for `{name}`" for alias, name in ALIASES.items())
    return "\n".join([header, "|---" * len(rows[0]) + "|", *body, "", f"Aliases: {aliases}; `-` is accepted for `_`."])


def _describe_field(name: str, field: FieldInfo) -> tuple[str, ...]:
    scale = cast(dict[str, str | None], field.json_schema_extra)["scale"] or ""
    default = str(field.default).lower() if isinstance(field.default, bool) else f"{field.default}"
    shown = f"`{default}`" if default else ""
    return f"`{name}`", _describe_values(name, field), shown, scale.lower(), field.description or ""


def _describe_values(name: str, field: FieldInfo) -> str:
    annotation: Any = field.annotation
    if name == "best_metric":
        return ", ".join(f"`{metric}`" for metric in VALIDATION_METRICS)
    if name in _SHOWN_VALUES:
        return _SHOWN_VALUES[name]
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    if annotation is bool:
        return "`true`, `false`"
    return describe_bounds(field) or "a name"


def describe_bounds(field: FieldInfo) -> str:
    """Return the bounds of a number as an inequality, ``0 < x ≤ 10``; empty if it has none."""
    low = next((f"{bound.ge} ≤" for bound in field.metadata if isinstance(bound, Ge)), "")
    low = next((f"{bound.gt} <" for bound in field.metadata if isinstance(bound, Gt)), low)
    high = next((f"≤ {bound.le}" for bound in field.metadata if isinstance(bound, Le)), "")
    high = next((f"< {bound.lt}" for bound in field.metadata if isinstance(bound, Lt)), high)
    return f"{low} x {high}" if low or high else ""
