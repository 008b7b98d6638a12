"""Requests checked before anything is sent: botocore's service models, and the API's rules that no model has.

botocore's own validator looks at names and types, and leaves patterns, upper bounds and enumerations to the service,
which answers after the caller's data were uploaded, or refuses the last of several requests. Dry runs, real runs and
the local client ask the same :func:`faults`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from botocore import __version__
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

from classifier.errors import UserError, did_you_mean

_SERVICES = {
    "RegisterScalableTarget": "application-autoscaling",
    "PutScalingPolicy": "application-autoscaling",
    "DeregisterScalableTarget": "application-autoscaling",
    "PutMetricAlarm": "cloudwatch",
    "CreateRepository": "ecr",
    "InvokeEndpoint": "sagemaker-runtime",
    "InvokeEndpointAsync": "sagemaker-runtime",
}
# The options that set the fields. Of several entries that a field's path ends with, the longest is taken.
_OPTIONS = {
    "TrainingJobName": "--name",
    "HyperParameterTuningJobName": "--name",
    "WarmStartConfig.ParentHyperParameterTuningJobs.HyperParameterTuningJobName": "--warm-start",
    "TransformJobName": "--name",
    "EndpointName": "--name",
    "EndpointConfigName": "--name",
    "InvokeEndpoint.EndpointName": "ENDPOINT",
    "InvokeEndpointAsync.EndpointName": "ENDPOINT",
    "InvokeEndpointAsync.InputLocation": "--upload",
    "ModelName": "--name",
    "TargetModel": "--target-model",
    "RoleArn": "--role",
    "TrainingImage": "--image",
    "PrimaryContainer.Image": "--image",
    "PrimaryContainer.ModelDataUrl": "MODEL",
    "ChannelName": "--channel",
    "InputDataConfig.DataSource.S3DataSource.S3Uri": "--data or --channel",
    "TransformInput.DataSource.S3DataSource.S3Uri": "PHOTOS",
    "OutputDataConfig.S3OutputPath": "--output",
    "TransformOutput.S3OutputPath": "--output",
    "AsyncInferenceConfig.OutputConfig.S3OutputPath": "--asynchronous",
    "DataCaptureConfig.DestinationS3Uri": "--capture",
    "CheckpointConfig.S3Uri": "--checkpoints",
    "InstanceType": "--instance",
    "InstanceCount": "--instances",
    "InitialInstanceCount": "--instances",
    "InferenceAmiVersion": "--ami",
    "VolumeSizeInGB": "--volume",
    "MaxRuntimeInSeconds": "--max-run",
    "ResourceLimits.MaxRuntimeInSeconds": "--max-runtime",
    "MaxWaitTimeInSeconds": "--max-wait",
    "KeepAlivePeriodInSeconds": "--keep-alive",
    "MaximumRetryAttempts": "--retry",
    "MaxNumberOfTrainingJobs": "--jobs",
    "MaxParallelTrainingJobs": "--parallel",
    "RandomSeed": "--seed",
    "KmsKeyId": "--kms-key",
    "VolumeKmsKeyId": "--kms-key",
    "VpcConfig.Subnets": "--vpc-subnets",
    "VpcConfig.SecurityGroupIds": "--security-groups",
    "HyperParameters": "hyperparameter",
    "Environment": "--env",
    "Tags": "--tag",
    "Tags.Key": "--tag",
    "Tags.Value": "--tag",
    "MemorySizeInMB": "--memory",
    "MaxConcurrency": "--concurrency",
    "ProvisionedConcurrency": "--provisioned",
    "MaxConcurrentInvocationsPerInstance": "--max-concurrent-invocations",
    "SuccessTopic": "--sns",
    "ErrorTopic": "--sns",
    "InitialSamplingPercentage": "--capture-percent",
    "WaitIntervalInSeconds": "--bake",
    "AlarmName": "--alarm",
    "Alarms": "--alarm",
    "MinCapacity": "--min-instances",
    "ScaleInCooldown": "--cooldown",
    "MaxCapacity": "--max-instances",
    "MaxConcurrentTransforms": "--concurrent",
    "MaxPayloadInMB": "--max-payload",
    "Accept": "--accept",
    "repositoryName": "--repository",
}
_NAME = "only letters, digits and hyphens, with a letter or digit at both ends"
_S3 = "has to be an address of the form s3://BUCKET/PREFIX"
# What a pattern allows, in words.
_WORDS = {
    "[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}": _NAME,
    "[a-zA-Z0-9](-*[a-zA-Z0-9]){0,31}": _NAME,
    "^[a-zA-Z0-9](-*[a-zA-Z0-9])*": _NAME,
    r"[a-zA-Z0-9]([\-a-zA-Z0-9]*[a-zA-Z0-9])?": _NAME,
    "(https|s3)://([^/]+)/?(.*)": _S3,
    "(https|s3)://([^/])/?(.*)": _S3,
    "^(https|s3)://([^/]+)/?(.*)$": _S3,
    r"arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+": "has to be a name, or arn:aws:iam::ACCOUNT:role/NAME",
    "[a-zA-Z0-9:/_-]*": "only letters, digits and the characters : / _ -",
    r"arn:aws[a-z\-]*:sns:[a-z0-9\-]*:[0-9]{12}:[a-zA-Z0-9_.-]+": "has to be arn:aws:sns:REGION:ACCOUNT:TOPIC",
    "[-0-9a-zA-Z]+": "only letters, digits and hyphens",
    r"[A-Za-z0-9\.\-_]+": "only letters, digits and the characters . - _",
    r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)": "only letters, digits, spaces and the characters _ . : / = + - @",
    "[a-zA-Z_][a-zA-Z0-9_]*": "only letters, digits and underscores, with no digit first",
    "[\\S]+": "has to be text without spaces",
    r"\A\S[\p{Print}]*\z": "only printable ASCII characters, with no space first",
    ".*": "has to be a single line",
    ".+": "has to be a single line that is not empty",
}
# Java's character classes as Python writes them inside brackets; letters and digits are a superset.
_CLASSES = {
    "L": r"\w",
    "N": r"\w",
    "Z": r" \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
    "Alnum": "a-zA-Z0-9",
    "ASCII": r"\x00-\x7f",
    "Print": r"\x20-\x7e",
}
_MAX_LISTED, _MAX_SHOWN = 12, 60  # allowed values in a message; characters of a value
_MAX_IN_FLIGHT_MB = 100
_MEMORY_STEP_MB = 1024
_ARM = re.compile(r"ml\.(?:[a-z]+\d+g|p6e-gb)")


class RequestError(UserError):
    """A request that AWS would refuse; the message names the option, its value and what is allowed."""


@dataclass(frozen=True)
class Fault:
    """Why AWS would refuse a request.

    Attributes:
        operation: the operation's name.
        path: the field, such as ``ResourceConfig.InstanceType`` or ``HyperParameters[epochs]``.
        value: its value; None where it is not to be shown.
        problem: what is wrong and what is allowed.
    """

    operation: str
    path: str
    value: object
    problem: str

    def for_user(self) -> str:
        """Return the fault with the name of the command line's option."""
        return self._describe(self._option())

    def for_caller(self) -> str:
        """Return the fault with the name of the request's field."""
        return self._describe(self.path)

    def _describe(self, what: str) -> str:
        shown = "" if self.value is None else str(self.value).replace("\n", "\\n")
        shown = shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}…"
        return f"{' '.join(filter(None, [what, shown]))}: {self.problem}"

    def _option(self) -> str:
        key = re.search(r"\[(\D[^\]]*)\]$", self.path)
        path = "." + ".".join((self.operation, re.sub(r"\[[^\]]*\]", "", self.path)))
        known = [field for field in _OPTIONS if path.endswith(f".{field}")]
        if not known:
            return self.path
        option = _OPTIONS[max(known, key=len)]
        return f"{option} {key[1]}" if key else option


def check(requests: Mapping[str, Any], *, local: bool = False) -> None:
    """Check requests by operation.

    Args:
        requests: maps operations to a request, or to a list of them.
        local: whether they go to the local client, which takes ``file://`` where AWS takes ``s3://``.

    Raises:
        RequestError: AWS would refuse one of them.
    """
    for operation, given in requests.items():
        for request in given if isinstance(given, list) else [given]:
            for fault in faults(operation, request, local=local):
                raise RequestError(fault.for_user())


def faults(operation: str, request: Mapping[str, Any], *, local: bool = False) -> Iterator[Fault]:
    """Yield what AWS would refuse in a request; arguments as for :func:`check`."""
    shape = input_shape(operation)
    for path, value, problem in _walk(shape, _with_s3(request) if local else request, ""):
        yield Fault(operation, path, value, problem)
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        yield Fault(operation, operation, None, report.generate_report().replace("\n", "; "))
    elif operation in _RULES:
        for path, value, problem in _RULES[operation](request):
            yield Fault(operation, path, value, problem)


def input_shape(operation: str) -> Any:
    """Return botocore's model of an operation's request."""
    return service_model(_SERVICES.get(operation, "sagemaker")).operation_model(operation).input_shape


@cache
def service_model(name: str) -> ServiceModel:
    """Return botocore's model of a service, which takes 0.3 s to load."""
    return ServiceModel(Loader().load_service_model(name, "service-2"), name)


def _with_s3(value: Any) -> Any:
    """Replace ``file://`` by a bucket's address, so that a local request is checked for everything else."""
    if isinstance(value, Mapping):
        return {key: _with_s3(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_with_s3(one) for one in value]
    is_file = isinstance(value, str) and value.startswith("file:///")
    return f"s3://local/{value.removeprefix('file:///')}" if is_file else value


_Found = Iterator[tuple[str, object, str]]


def _walk(shape: Any, value: Any, path: str) -> _Found:
    """Yield the path, the value and the problem of each violation; wrong types are the validator's."""
    if isinstance(value, Mapping) and shape.type_name == "structure":
        for key, one in value.items():
            if key in shape.members:
                yield from _walk(shape.members[key], one, f"{path}.{key}" if path else key)
    elif isinstance(value, Mapping) and shape.type_name == "map":
        yield from _count(shape, value, path)
        for key, one in value.items():
            # Values of variables may be secret.
            is_shown = not path.endswith("Environment")
            for where, item, problem in (*_walk(shape.key, key, path), *_walk(shape.value, one, f"{path}[{key}]")):
                yield where, item if is_shown or item == key else None, problem
    elif isinstance(value, list) and shape.type_name == "list":
        yield from _count(shape, value, path)
        for index, one in enumerate(value):
            yield from _walk(shape.member, one, f"{path}[{index}]")
    elif isinstance(value, str) and shape.type_name == "string":
        yield from ((path, value, problem) for problem in _text_problems(shape, value))
    elif isinstance(value, (int, float)) and shape.type_name in ("integer", "long", "float", "double"):
        yield from ((path, value, problem) for problem in _number_problems(shape.metadata, value))


def _count(shape: Any, value: Any, path: str) -> _Found:
    low, high = shape.metadata.get("min", 0), shape.metadata.get("max", len(value))
    if not low <= len(value) <= high:
        yield path, None, f"{len(value)} entries, and {_bounds(shape.metadata)} are allowed"


def _number_problems(bounds: Mapping[str, Any], value: float) -> Iterator[str]:
    if not bounds.get("min", value) <= value <= bounds.get("max", value):
        yield f"{_bounds(bounds)} is allowed"


def _text_problems(shape: Any, value: str) -> Iterator[str]:
    low, high = shape.metadata.get("min", 0), shape.metadata.get("max", len(value))
    pattern = shape.metadata.get("pattern", "")
    if not low <= len(value) <= high:
        yield f"{len(value)} characters, and {_bounds(shape.metadata)} are allowed"
    elif shape.enum and value not in shape.enum:
        yield f"not among {_list(value, shape.enum)}"
    elif pattern and (compiled := _compile(pattern)) and not compiled.fullmatch(value):
        words = _WORDS.get(pattern, f"has to match {pattern}")
        yield f"{words}, at most {high:,} characters" if words is _NAME else words


def _bounds(bounds: Mapping[str, Any]) -> str:
    low, high = bounds.get("min"), bounds.get("max")
    if low is not None and high is not None:
        return f"from {low:,} to {high:,}"
    return f"at least {low:,}" if high is None else f"at most {high:,}"


def _list(value: str, allowed: list[str]) -> str:
    if len(allowed) <= _MAX_LISTED:
        return ", ".join(allowed)
    family = value.rpartition(".")[0]
    near = [one for one in allowed if family.count(".") and one.startswith(f"{family}.")]
    examples = ", ".join((near or allowed)[:_MAX_LISTED])
    return f"the {len(allowed)} that botocore {__version__} knows{did_you_mean(value, allowed)}: {examples} …"


@cache
def _compile(pattern: str) -> re.Pattern[str] | None:
    """Translate a pattern of the service models, Java's, or return None if Python has no counterpart."""
    text = pattern.replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF").replace(r"\z", r"\Z")
    text = re.sub(r"\[(?:\\.|[^\]\\])*\]", lambda found: _replace_classes(found[0], "{}"), text)
    try:
        return re.compile(_replace_classes(text, "[{}]"))
    except re.error:
        return None


def _replace_classes(text: str, form: str) -> str:
    # An unknown class stays, and does not compile.
    return re.sub(r"\\p\{(\w+)\}", lambda found: form.format(_CLASSES.get(found[1], found[0])), text)


def _transform_rules(request: Mapping[str, Any]) -> _Found:
    concurrent, payload_mb = request.get("MaxConcurrentTransforms", 1), request.get("MaxPayloadInMB", 6)
    if concurrent * payload_mb > _MAX_IN_FLIGHT_MB:
        yield (
            "MaxConcurrentTransforms",
            concurrent,
            f"times --max-payload {payload_mb} is {concurrent * payload_mb} MB in flight, and {_MAX_IN_FLIGHT_MB} MB "
            "are allowed: lower one of them",
        )
    yield from _instances(request["TransformResources"], "TransformResources")


def _config_rules(request: Mapping[str, Any]) -> _Found:
    for index, variant in enumerate(request["ProductionVariants"]):
        path = f"ProductionVariants[{index}]"
        memory_mb = variant.get("ServerlessConfig", {}).get("MemorySizeInMB", 0)
        if memory_mb % _MEMORY_STEP_MB:
            yield (
                f"{path}.ServerlessConfig.MemorySizeInMB",
                memory_mb,
                "1024, 2048, 3072, 4096, 5120 or 6144 MB",
            )
        yield from _provisioned(variant.get("ServerlessConfig", {}), f"{path}.ServerlessConfig")
        yield from _instances(variant, path)


def _provisioned(serverless: Mapping[str, Any], path: str) -> _Found:
    kept, most = serverless.get("ProvisionedConcurrency", 0), serverless.get("MaxConcurrency", 0)
    if kept > most:
        yield f"{path}.ProvisionedConcurrency", kept, f"at most the --concurrency, {most}"


def _training_rules(request: Mapping[str, Any]) -> _Found:
    resources = request.get("ResourceConfig", {})
    yield from _instances(resources, "ResourceConfig")
    if resources.get("KeepAlivePeriodInSeconds") and request.get("EnableManagedSpotTraining"):
        path = "ResourceConfig.KeepAlivePeriodInSeconds"
        yield path, resources["KeepAlivePeriodInSeconds"], "there are no warm pools of --spot capacity: leave one out"


def _tuning_rules(request: Mapping[str, Any]) -> _Found:
    limits = request["HyperParameterTuningJobConfig"]["ResourceLimits"]
    parallel, jobs = limits["MaxParallelTrainingJobs"], limits.get("MaxNumberOfTrainingJobs")
    if jobs is not None and parallel > jobs:
        path = "HyperParameterTuningJobConfig.ResourceLimits.MaxParallelTrainingJobs"
        yield path, parallel, f"at most as many as there are --jobs, {jobs}"
    definition = request.get("TrainingJobDefinition", {})
    yield from _instances(definition.get("ResourceConfig", {}), "TrainingJobDefinition.ResourceConfig")


def _instances(resources: Mapping[str, Any], path: str) -> _Found:
    kind = resources.get("InstanceType")
    if kind and _ARM.match(kind):
        yield f"{path}.InstanceType", kind, "an ARM instance, and the image is for linux/amd64: choose another family"
    # The models allow 0, for requests that name instance groups instead.
    for name in ("InstanceCount", "VolumeSizeInGB"):
        if resources.get(name) == 0:
            yield f"{path}.{name}", 0, "at least 1 is allowed"


_RULES: Mapping[str, Callable[[Mapping[str, Any]], _Found]] = {
    "CreateTransformJob": _transform_rules,
    "CreateEndpointConfig": _config_rules,
    "CreateTrainingJob": _training_rules,
    "CreateHyperParameterTuningJob": _tuning_rules,
}
