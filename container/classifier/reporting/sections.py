"""Files → what each section of the page shows; None where its files are not there. Imports no torch."""

import base64
import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from classifier.contract.findings import Finding
from classifier.contract.hyperparameters import Hyperparameters
from classifier.reporting.charts.confusion import confusion_figure, most_confused
from classifier.reporting.charts.curves import curves
from classifier.reporting.charts.debugger import debugger_figures
from classifier.reporting.charts.profiler import PHASES, profiler_figures
from classifier.reporting.summary import HISTORY_FILE, Folder, Summary

Section = dict[str, Any] | None
_MOST_ROWS = 200  # of a list of files; the rest is in the CSV


def result(folder: Folder) -> Section:
    """What it came to."""
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
        "interval": None if accuracy is None or not num_judged else wilson(accuracy, num_judged),
        "num_judged": num_judged,
        "f1": metrics.get(f"{judged}:f1"),
        "loss": metrics.get(f"{judged}:loss"),
        "num_photos": {channel: sum(counts) for channel, counts in summary.photos.items()},
        "epochs_asked": summary.hyperparameters.get("epochs", summary.num_epochs),
    }


def wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share that was counted (E. B. Wilson, 1927)."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def curve(folder: Folder) -> Section:
    steps, history = _numbers(folder.rows("steps.csv")), _numbers(folder.rows(HISTORY_FILE))
    if not history:
        return None
    summary = folder.summary()
    return {"figures": curves(steps, history, summary.best_epoch if summary else None), "history": history}


def _numbers(rows: Sequence[Mapping[str, str]]) -> list[dict[str, float]]:
    return [{name: float(value) for name, value in row.items()} for row in rows]


def confusion(folder: Folder) -> Section:
    lines = folder.lines("confusion.csv")
    if not lines:
        return None
    names = [line[0] for line in lines[1:]]
    counts = np.array([[int(value) for value in line[1:]] for line in lines[1:]])
    return {"figure": confusion_figure(counts, names), "pairs": most_confused(counts, names), "num": len(names)}


def classes(folder: Folder) -> Section:
    """The weakest first."""
    rows = [
        {"name": row["class"], **{key: float(row[key]) for key in ("precision", "recall", "f1", "support")}}
        for row in folder.rows("classes.csv")
    ]
    return {"rows": sorted(rows, key=lambda row: row["f1"])} if rows else None


def photos(folder: Folder) -> Section:
    content = folder.json("mistakes.json")
    if not content:
        return None
    shown = [{**photo, "source": _source(folder, photo.get("thumbnail"))} for photo in content["photos"]]
    return {
        **{key: content[key] for key in ("channel", "num_photos", "num_wrong")},
        "wrong": [photo for photo in shown if not photo["right"]],
        "right": [photo for photo in shown if photo["right"]],
    }


def _source(folder: Folder, thumbnail: str | None) -> str | None:
    """A photo as a part of the page."""
    path = folder.path / "mistakes" / (thumbnail or "").rpartition("/")[2]
    if thumbnail is None or not path.is_file():
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"


def data(folder: Folder) -> Section:
    summary, bad, leaks = folder.summary(), folder.rows("bad_images.csv"), folder.rows("leaks.csv")
    if summary is None and not bad and not leaks:
        return None
    return {
        "channels": list(summary.photos) if summary else [],
        "counts": list(zip(summary.classes, *summary.photos.values(), strict=True)) if summary else [],
        "totals": [sum(counts) for counts in summary.photos.values()] if summary else [],
        "bad": bad[:_MOST_ROWS],
        "num_bad": len(bad),
        "leaks": leaks[:_MOST_ROWS],
        "num_leaks": len(leaks),
    }


def debugger(folder: Folder) -> Section:
    findings, series = folder.findings("debugger_findings.json"), folder.json("debugger_series.json")
    if findings is None and series is None:
        return None
    return {"rules": _by_outcome(findings or []), "figures": debugger_figures(series or {})}


def _by_outcome(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    return {name: [one for one in findings if one.outcome == name] for name in ("fired", "quiet", "skipped")}


def profiler(folder: Folder) -> Section:
    findings, profile = folder.findings("profiler_findings.json"), folder.json("profiler.json")
    if findings is None and profile is None:
        return None
    profile = profile or {}
    shares = _shares(profile.get("phases", {}).get("train", {}))
    operators = sorted(profile.get("operators") or [], key=lambda one: -_busiest(one))[:15]
    return {
        "rules": _by_outcome(findings or []),
        "figures": profiler_figures(profile),
        "shares": shares,
        "steps": _step_times([step[2] for step in profile.get("steps") or []]),
        "total_s": profile.get("total_s"),
        "initialization_s": profile.get("initialization_s"),
        "images_per_s": profile.get("images_per_s"),
        "operators": operators,
        "on_gpu": any(one.get("self_cuda_ms") for one in operators),
        "trace": profile.get("trace"),
    }


def _busiest(operator: Mapping[str, Any]) -> float:
    return max(operator.get("self_cuda_ms") or 0, operator.get("self_cpu_ms") or 0)


def _shares(phases: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """(phase, seconds, share of training), the longest first."""
    total = sum(phases.values())
    named = [(PHASES.get(name, (name,))[0], seconds, seconds / total) for name, seconds in phases.items() if total]
    return sorted(named, key=lambda row: -row[1])


def _step_times(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    return {"median": float(np.median(seconds)), "p95": float(np.quantile(seconds, 0.95)), "max": max(seconds)}


def engines(folder: Folder) -> Section:
    rows = folder.json("engines.json")
    return {"rows": rows, "before": rows[0]["images_per_s"]} if rows else None


def hyperparameters(folder: Folder) -> Section:
    """Those that are not at their defaults first."""
    summary = folder.summary()
    if summary is None or not summary.hyperparameters:
        return None
    fields = Hyperparameters.model_fields
    rows = [
        {
            "name": name,
            "value": written(value),
            "default": written(fields[name].default) if name in fields else "",
            "what": (fields[name].description or "") if name in fields else "",
            "changed": name in summary.changed,
        }
        for name, value in summary.hyperparameters.items()
    ]
    return {"rows": sorted(rows, key=lambda row: not row["changed"]), "num_changed": len(summary.changed)}


def written(value: object) -> str:
    """A hyperparameter's value as one gives it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def reproduction(folder: Folder) -> Section:
    summary = folder.summary()
    return {"command": _command(summary), "summary": summary} if summary else None


def _command(summary: Summary) -> str:
    values = {name: written(summary.hyperparameters[name]) for name in summary.changed}
    parts = ["local_test/train_local.sh --data PHOTOS"]
    parts += [f"--channel {name}=FOLDER" for name in summary.channels if name not in ("train", "validation", "test")]
    parts += [shlex.quote(f"{name}={value}") for name, value in values.items()]
    return " \\\n    ".join(parts[:1] + [" ".join(parts[start : start + 4]) for start in range(1, len(parts), 4)])


def notices(folder: Folder) -> list[dict[str, str]]:
    """What to know first: each a heading, what was seen, and what to do."""
    summary, found = folder.summary(), []
    if summary is not None:
        found += _of_the_training(summary)
    bad, leaks = folder.rows("bad_images.csv"), folder.rows("leaks.csv")
    if bad:
        channels = Counter(row["channel"] for row in bad)
        where = ", ".join(f"{count:,} in {channel}" for channel, count in channels.items())
        found.append(
            _notice("Photos that can't be read were left out", f"{where}.", "Mend or remove them: see Photos, below.")
        )
    if leaks:
        seen = f"{len(leaks):,} photos have the same bytes as one in another channel."
        advice = "The figures look better than they are. Keep each photo in one channel: see Photos, below."
        found.append(_notice("Photos lie in two channels", seen, advice))
    for name in ("debugger_findings.json", "profiler_findings.json"):
        for finding in folder.findings(name) or []:
            if finding.outcome == "fired":
                title = finding.rule if finding.step is None else f"{finding.rule}, at step {finding.step:,}"
                seen = f"{sentence(finding.seen)} {sentence(finding.meaning)}".strip()
                found.append(_notice(title, seen, finding.advice))
    return sorted(found, key=lambda notice: notice["kind"] == "hint")


def sentence(text: str) -> str:
    """With a capital and an end."""
    text = text.strip()
    first = text.partition(" ")[0]
    # A hyperparameter's name stays as it is typed.
    start = text[:1] if "=" in first or "_" in first else text[:1].upper()
    return start + text[1:] + ("" if text.endswith((".", "!", "?", "…")) or not text else ".")


def _of_the_training(summary: Summary) -> list[dict[str, str]]:
    found = []
    if summary.best_epoch is None:
        seen = "It ended before its first epoch did, so the model has learnt next to nothing."
        found.append(_notice("No epoch was finished", seen, "Let it run for longer."))
    if summary.ended:
        found.append(_notice("Training ended before its last epoch", sentence(summary.ended), ""))
    if summary.judged_on == "validation" and summary.best_epoch is not None:
        seen = "The figures are of the validation photos, by which the best epoch was chosen: a little flattered."
        found.append(_notice("There is no test channel", seen, "Set some photos apart in a channel “test”.", "hint"))
    if summary.best_epoch is not None and summary.best_epoch == summary.num_epochs >= 3 and not summary.ended:
        seen = f"Epoch {summary.best_epoch} of {summary.num_epochs} was the best so far."
        found.append(_notice("The last epoch was the best", seen, "More epochs may still help: raise epochs.", "hint"))
    return found


def _notice(title: str, seen: str, advice: str, kind: str = "warning") -> dict[str, str]:
    return {"title": title, "seen": seen, "advice": advice, "kind": kind}
