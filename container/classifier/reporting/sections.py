"""Contents of the report's sections, read from a training's output files. Imports no torch.

Each section's function returns None if its files are missing.
"""

import base64
import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from classifier.contract.channels import PHOTO_CHANNELS
from classifier.contract.findings import OUTCOMES, Diagnosis, Finding
from classifier.contract.hyperparameters import Hyperparameters
from classifier.reporting.charts.debugger import debugger_figures
from classifier.reporting.charts.profiler import PHASES, profiler_figures
from classifier.reporting.charts.results import confusion_figure, curve_figures, most_confused
from classifier.reporting.summary import HISTORY_FILE, OutputFolder, Summary
from classifier.reporting.theme import sentence

Section = dict[str, Any] | None
_MAX_ROWS = 200  # of a list of files; the CSV contains all
_MAX_OPERATORS = 15


def result(folder: OutputFolder) -> Section:
    """Metrics of the best epoch, with the confidence interval of the accuracy."""
    summary = folder.summary()
    if summary is None:
        return None
    metrics, judged = summary.metrics, summary.judged_on
    num_judged = sum(summary.photos.get(judged, ()))
    accuracy = metrics.get(f"{judged}:accuracy")
    return {
        "summary": summary,
        "judged": judged,
        "accuracy": accuracy,
        "interval": None if accuracy is None or not num_judged else wilson_interval(accuracy, num_judged),
        "num_judged": num_judged,
        "f1": metrics.get(f"{judged}:f1"),
        "loss": metrics.get(f"{judged}:loss"),
        "num_photos": {channel: sum(counts) for channel, counts in summary.photos.items()},
    }


def wilson_interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return the confidence interval of a share of ``count`` samples (Wilson 1927); 95 % for the default ``z``."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def curves(folder: OutputFolder) -> Section:
    """Learning curves, and the history of the epochs."""
    steps, history = _to_floats(folder.rows("steps.csv")), _to_floats(folder.rows(HISTORY_FILE))
    if not history:
        return None
    summary = folder.summary()
    return {"figures": curve_figures(steps, history, summary.best_epoch if summary else None), "history": history}


def _to_floats(rows: Sequence[Mapping[str, str]]) -> list[dict[str, float]]:
    return [{name: float(value) for name, value in row.items()} for row in rows]


def confusion(folder: OutputFolder) -> Section:
    """The confusion matrix, and the most confused pairs of classes."""
    lines = folder.lines("confusion.csv")
    if not lines:
        return None
    names = [line[0] for line in lines[1:]]
    counts = np.array([[int(value) for value in line[1:]] for line in lines[1:]])
    return {"figure": confusion_figure(counts, names), "pairs": most_confused(counts, names)}


def classes(folder: OutputFolder) -> Section:
    """Scores of each class, lowest F1 first."""
    rows = [
        {"name": row["class"], **{key: float(row[key]) for key in ("precision", "recall", "f1", "support")}}
        for row in folder.rows("classes.csv")
    ]
    return {"rows": sorted(rows, key=lambda row: row["f1"])} if rows else None


def photos(folder: OutputFolder) -> Section:
    """Example predictions with their thumbnails, the mistakes and the correct ones apart."""
    content = folder.json("mistakes.json")
    if not content:
        return None
    shown = [{**photo, "source": _data_url(folder, photo.get("thumbnail"))} for photo in content["photos"]]
    return {
        **{key: content[key] for key in ("channel", "num_photos", "num_wrong")},
        "wrong": [photo for photo in shown if not photo["right"]],
        "right": [photo for photo in shown if photo["right"]],
    }


def _data_url(folder: OutputFolder, thumbnail: str | None) -> str | None:
    """Encode a thumbnail as a data URL; only its file name counts, so that no other file can be included."""
    path = folder.path / "mistakes" / (thumbnail or "").rpartition("/")[2]
    if thumbnail is None or not path.is_file():
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"


def data(folder: OutputFolder) -> Section:
    """Photos per class and channel, unreadable photos, and photos in two classes or two channels."""
    summary, bad, leaks = folder.summary(), folder.rows("bad_images.csv"), folder.rows("leaks.csv")
    conflicts = folder.rows("conflicts.csv")
    if summary is None and not bad and not leaks and not conflicts:
        return None
    return {
        "channels": list(summary.photos) if summary else [],
        "counts": list(zip(summary.classes, *summary.photos.values(), strict=True)) if summary else [],
        "totals": [sum(counts) for counts in summary.photos.values()] if summary else [],
        "bad": bad[:_MAX_ROWS],
        "num_bad": len(bad),
        "conflicts": conflicts[:_MAX_ROWS],
        "num_conflicts": len(conflicts),
        "leaks": leaks[:_MAX_ROWS],
        "num_leaks": len(leaks),
    }


def debugger(folder: OutputFolder) -> Section:
    """Findings of the debugger's rules, and charts of the tensors."""
    findings, series = folder.findings("debugger_findings.json"), folder.json("debugger_series.json")
    if findings is None and series is None:
        return None
    summary = folder.json("debugger.json") or {}
    return {
        "rules": _by_outcome(findings or []),
        "diagnosis": diagnosis(folder),
        "alarms": [finding for finding in findings or [] if finding.is_alarm],
        "damaged": len(summary.get("damaged", ())),
        "figures": debugger_figures(series or {}),
    }


def diagnosis(folder: OutputFolder) -> Diagnosis | None:
    """The debugger's diagnosis; None without one."""
    found = (folder.json("debugger.json") or {}).get("diagnosis")
    return None if found is None else Diagnosis.model_validate(found)


def _by_outcome(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    return {name: [finding for finding in findings if finding.outcome == name] for name in OUTCOMES}


def profiler(folder: OutputFolder) -> Section:
    """Findings of the profiler's rules, charts, step times and the slowest operators."""
    findings, profile = folder.findings("profiler_findings.json"), folder.json("profiler.json")
    if findings is None and profile is None:
        return None
    profile = profile or {}
    operators = sorted(profile.get("operators") or [], key=_operator_time_ms, reverse=True)[:_MAX_OPERATORS]
    return {
        "rules": _by_outcome(findings or []),
        "figures": profiler_figures(profile),
        "shares": _phase_shares(profile.get("phases", {}).get("train", {})),
        "steps": _step_times([step[2] for step in profile.get("steps") or []]),
        "total_s": profile.get("total_s"),
        "left_out": profile.get("debugger") or {},
        "initialization_s": profile.get("initialization_s"),
        "images_per_s": profile.get("images_per_s"),
        "operators": operators,
        "on_gpu": any(operator.get("self_cuda_ms") for operator in operators),
        "trace": profile.get("trace"),
    }


def _operator_time_ms(operator: Mapping[str, Any]) -> float:
    return max(operator.get("self_cuda_ms") or 0, operator.get("self_cpu_ms") or 0)


def _phase_shares(phases: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Return (phase, seconds, share of the training time), longest first."""
    total = sum(phases.values())
    named = [(PHASES.get(name, (name,))[0], seconds, seconds / total) for name, seconds in phases.items() if total]
    return sorted(named, key=lambda row: -row[1])


def _step_times(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    return {"median": float(np.median(seconds)), "p95": float(np.quantile(seconds, 0.95))}


def engines(folder: OutputFolder) -> Section:
    """Speed and accuracy of each engine; the first row is the baseline."""
    rows = folder.json("engines.json")
    return {"rows": rows, "before": rows[0]["images_per_s"]} if rows else None


def hyperparameters(folder: OutputFolder) -> Section:
    """All hyperparameters, those that differ from their defaults first."""
    summary = folder.summary()
    if summary is None or not summary.hyperparameters:
        return None
    fields = Hyperparameters.model_fields
    rows = [
        {
            "name": name,
            "value": format_value(value),
            "default": format_value(fields[name].default) if name in fields else "",
            "description": (fields[name].description or "") if name in fields else "",
            "changed": name in summary.changed,
        }
        for name, value in summary.hyperparameters.items()
    ]
    return {"rows": sorted(rows, key=lambda row: not row["changed"])}


def format_value(value: object) -> str:
    """Format a hyperparameter's value as it is passed to a training."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def reproduction(folder: OutputFolder) -> Section:
    """The command that repeats the training, and the data, device and versions it depends on."""
    summary = folder.summary()
    return {"command": _command(summary), "summary": summary} if summary else None


def _command(summary: Summary) -> str:
    values = {name: format_value(summary.hyperparameters[name]) for name in summary.changed}
    parts = ["local_test/train_local.sh --data PHOTOS"]
    parts += [f"--channel {name}=FOLDER" for name in summary.channels if name not in PHOTO_CHANNELS]
    parts += [shlex.quote(f"{name}={value}") for name, value in values.items()]
    return " \\\n    ".join(parts[:1] + [" ".join(parts[start : start + 4]) for start in range(1, len(parts), 4)])


def notices(folder: OutputFolder) -> list[dict[str, Any]]:
    """Return the most important findings, each with a title, an observation and advice; hints last.

    The diagnosis comes first, and stands for the debugger's rules.
    """
    summary, found, diagnosed = folder.summary(), [], diagnosis(folder)
    if diagnosed is not None:
        title = f"{sentence(diagnosed.title).rstrip('.')}"
        found.append(
            {**_notice(title, "", diagnosed.advice), "evidence": [sentence(one) for one in diagnosed.evidence]}
        )
    if summary is not None:
        found += _training_notices(summary, _to_floats(folder.rows(HISTORY_FILE)), diagnosed)
    found += _data_notices(folder, diagnosed)
    for finding in folder.findings("profiler_findings.json") or []:
        if finding.outcome == "fired":
            title = finding.rule if finding.step is None else f"{finding.rule}, at step {finding.step:,}"
            seen = f"{sentence(finding.seen)} {sentence(finding.meaning)}".strip()
            found.append(_notice(title, seen, finding.advice))
    return sorted(found, key=lambda notice: notice["kind"] == "hint")


def _training_notices(
    summary: Summary, history: Sequence[Mapping[str, float]], diagnosed: Diagnosis | None
) -> list[dict[str, Any]]:
    found = []
    if summary.best_epoch is None:
        seen = "The training ended before its first epoch was complete, so the model has learned next to nothing."
        found.append(_notice("No epoch was completed", seen, "Train for longer."))
    if summary.ended:
        found.append(_notice("Training ended before its last epoch", sentence(summary.ended), ""))
    if summary.judged_on == "validation" and summary.best_epoch is not None:
        seen = (
            "The metrics are those of the validation photos, which also selected the best epoch: slightly optimistic."
        )
        found.append(_notice("There is no test channel", seen, "Hold out some photos in a channel “test”.", "hint"))
    if (
        summary.best_epoch == summary.num_epochs
        and not summary.ended
        and diagnosed is None
        and _still_improves(history)
    ):
        seen = f"Epoch {summary.best_epoch} of {summary.num_epochs} was the best, and the validation loss still falls."
        found.append(_notice("The last epoch was the best", seen, "More epochs may help: raise epochs.", "hint"))
    return found


def _still_improves(history: Sequence[Mapping[str, float]]) -> bool:
    """Whether more epochs may help: the last two each lowered a validation loss above 0.1 by 2 %."""
    losses = [row["validation:loss"] for row in history[-3:] if "validation:loss" in row]
    return len(losses) == 3 and losses[-1] > 0.1 and all(now < 0.98 * before for before, now in pairwise(losses))


def _data_notices(folder: OutputFolder, diagnosed: Diagnosis | None) -> list[dict[str, Any]]:
    found = []
    bad, leaks = folder.rows("bad_images.csv"), folder.rows("leaks.csv")
    if bad:
        channels = Counter(row["channel"] for row in bad)
        where = ", ".join(f"{count:,} in {channel}" for channel, count in channels.items())
        found.append(
            _notice("Unreadable photos were left out", f"{where}.", "Repair or remove them: see Photos, below.")
        )
    if conflicts := folder.rows("conflicts.csv"):
        seen = f"{len(conflicts):,} photos have the same bytes as one in another class, so not all labels are right."
        found.append(_notice("Photos are in two classes", seen, "Keep each in its right class: see Photos, below."))
    if leaks and (diagnosed is None or diagnosed.cause != "leak"):
        seen = f"{len(leaks):,} photos have the same bytes as one in another channel."
        advice = "The metrics are too optimistic. Keep each photo in one channel only: see Photos, below."
        found.append(_notice("Photos are in two channels", seen, advice))
    return found


def _notice(title: str, seen: str, advice: str, kind: str = "warning") -> dict[str, Any]:
    return {"title": title, "seen": seen, "evidence": [], "advice": advice, "kind": kind}
