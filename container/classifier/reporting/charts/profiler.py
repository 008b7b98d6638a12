"""Charts of the profiler: time by phase and step, and utilization of the machine."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from classifier.reporting.charts.figure import Figure, axis, line, thin

PHASES = {
    "data": ("waiting for data", "@third"),
    "transfer": ("transfer to device", "@fourth"),
    "forward": ("forward pass", "@accent"),
    "backward": ("backward pass", "@second"),
    "optimizer": ("optimizer", "@fifth"),
    "checkpoint": ("checkpoint", "@wrong"),
    "other": ("other", "@faint"),
}
_MAX_BARS = 120


def profiler_figures(profile: Mapping[str, Any]) -> list[Figure]:
    """Draw ``profiler.json``; charts without data are left out."""
    figures = [_time(profile["phases"])] if profile.get("phases") else []
    if profile.get("steps"):
        figures.append(_steps(profile["steps"]))
    usage = profile.get("utilisation") or {}
    if usage.get("t_s"):
        figures += [_busy(usage), _bytes(usage)]
        if len(usage.get("cores") or []) > 1:
            figures.append(_cores(usage))
    return [figure for figure in figures if figure.traces]


def _time(phases: Mapping[str, Mapping[str, float]]) -> Figure:
    modes = list(phases)
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": title,
            "y": modes,
            "x": [phases[mode].get(phase, 0) for mode in modes],
            "marker": {"color": color},
            "hovertemplate": f"%{{y}}, {title}: %{{x:.2f}} s<extra></extra>",
        }
        for phase, (title, color) in PHASES.items()
        if any(phases[mode].get(phase, 0) for mode in modes)
    ]
    longest = max(modes, key=lambda mode: sum(phases[mode].values()))
    return Figure(
        name="time",
        label=f"Seconds by phase, for {', '.join(modes)}; {longest} took the longest.",
        traces=traces,
        layout={
            "barmode": "stack",
            "bargap": 0.35,
            "legend": {"traceorder": "normal"},
            "xaxis": axis("seconds"),
            "yaxis": axis(autorange="reversed", showgrid=False),
            "hovermode": "closest",
        },
        height=150 + 44 * len(modes),
    )


def _steps(steps: Sequence[Sequence[Any]]) -> Figure:
    """Draw one bar per step, or per group of neighboring steps if there are many."""
    size = math.ceil(len(steps) / _MAX_BARS)
    groups = [steps[start : start + size] for start in range(0, len(steps), size)]
    traces = [
        {
            "type": "bar",
            "name": title,
            "x": [group[0][0] for group in groups],
            "y": [1000 * sum(step[3].get(phase, 0) for step in group) / len(group) for group in groups],
            "marker": {"color": color},
            "hovertemplate": f"step %{{x}}, {title}: %{{y:.1f}} ms<extra></extra>",
        }
        for phase, (title, color) in PHASES.items()
        if any(step[3].get(phase, 0) for step in steps)
    ]
    bars = f"each bar is the mean of {size} steps" if size > 1 else "one bar per step"
    layout = {
        "barmode": "stack",
        "bargap": 0,
        "legend": {"traceorder": "normal"},
        "xaxis": axis("step"),
        "yaxis": axis("ms"),
        "hovermode": "closest",
    }
    return Figure(name="steps", label=f"Duration of training steps by phase; {bars}.", traces=traces, layout=layout)


def _busy(usage: Mapping[str, Any]) -> Figure:
    lines = (
        ("cpu_percent", "CPU", "@accent"),
        ("gpu_percent", "GPU", "@second"),
        ("memory_percent", "memory", "@quiet"),
        ("gpu_memory_percent", "GPU memory", "@fourth"),
        ("iowait_percent", "I/O wait", "@third"),
    )
    layout = {"xaxis": axis("seconds"), "yaxis": axis("%", range=[0, 101])}
    label = "Utilization of CPU, memory and GPU over time, in percent."
    return Figure(name="busy", label=label, traces=_lines(usage, lines), layout=layout, height=260)


def _bytes(usage: Mapping[str, Any]) -> Figure:
    lines = (
        ("disk_read_bytes_s", "disk read", "@accent"),
        ("disk_write_bytes_s", "disk write", "@third"),
        ("network_bytes_s", "network", "@quiet"),
    )
    layout = {"xaxis": axis("seconds"), "yaxis": axis("bytes per second", rangemode="tozero", exponentformat="SI")}
    label = "Disk and network throughput over time, in bytes per second."
    return Figure(name="bytes", label=label, traces=_lines(usage, lines), layout=layout, height=260)


def _lines(usage: Mapping[str, Any], lines: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    return [
        line(thin(list(zip(usage["t_s"], usage[key], strict=False))), title, color, width=1.5)
        for key, title, color in lines
        if usage.get(key)
    ]


def _cores(usage: Mapping[str, Any]) -> Figure:
    every = math.ceil(len(usage["t_s"]) / 400)
    cores = [core[::every] for core in usage["cores"]]
    trace = {
        "type": "heatmap",
        "x": usage["t_s"][::every],
        "y": [f"core {number}" for number in range(len(cores))],
        "z": cores,
        "zmin": 0,
        "zmax": 100,
        "colorscale": [[0, "@surface"], [1, "@accent"]],
        "colorbar": {"title": {"text": "%"}, "thickness": 10, "outlinewidth": 0},
        "hovertemplate": "%{y}, %{x:.1f} s: %{z:.0f} %<extra></extra>",
    }
    layout = {
        "xaxis": axis("seconds", showgrid=False),
        "yaxis": axis(autorange="reversed", showgrid=False, nticks=16),
        "hovermode": "closest",
    }
    height = int(min(420, 110 + 22 * len(cores)))
    label = f"Utilization of each of {len(cores)} CPU cores over time."
    return Figure(name="cores", label=label, traces=[trace], layout=layout, height=height)
