"""What gpu_check.py's report says of the targets (docs/gpu.md): each with what was wanted, what was measured, and whether it is met.

Everything comes from the report's own steps, so a merged report is judged as a whole; what was not measured says so.
"""

import csv
import io

# Kernels with operands of a few kilobytes are a launch's latency, not bandwidth.
SMALLEST_BYTES = 16e6
CONVOLUTIONS = ("upsample_conv3x3",)


def busy_share(text, skip=0.5):
    """The share of time in which the GPU computed, from nsys's cuda_gpu_trace as CSV: of the last operations, when all is warm.

    skip: the share of operations left out at the beginning. Raises ValueError if it is no such trace.
    """
    lines = text[text.index("Start (ns)"):] if "Start (ns)" in text else ""
    spans = []
    for row in csv.DictReader(io.StringIO(lines)):
        try:
            start, duration = float(row["Start (ns)"]), float(row["Duration (ns)"])
        except (TypeError, ValueError, KeyError):
            continue
        spans.append((start, start + duration))
    spans = sorted(spans)[int(skip * len(spans)):]
    if len(spans) < 2:
        raise ValueError("no trace of a GPU")
    busy, reached = 0.0, spans[0][0]
    for start, end in spans:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return busy / (reached - spans[0][0])


def steps_of(steps, size):
    return {s["name"]: s["data"] for s in steps if s["part"] == f"fastgan-{size}" and s["data"] and s["state"] == "ok"}


def best(found, prefix, key, only=""):
    values = [d[key] for name, d in found.items() if name.startswith(prefix) and only in name and d.get(key) is not None]
    return min(values) if values else None


def floor_seconds(steps, size):
    """The counted floor at this card's own limits: least bytes over the rate of a copy, and operations over that of a large matrix
    product in 16 bits. None if something of it was not measured."""
    counted = steps_of(steps, size).get("counted")
    rows = [r for s in steps if s["part"] == "kernels" and s["data"] for r in s["data"]]
    rates = [r["matrix_tflops"] for r in rows if r.get("dtype") in ("bf16", "f16") and r.get("matrix_tflops")]
    copies = [r["copy_gbps"] for r in rows if r.get("copy_gbps")]
    if not counted or not rates or not copies:
        return None
    return counted["least_bytes_16"] / (copies[0] * 1e9) + counted["flops"] / (max(rates) * 1e12)


def targets(steps):
    """A list of {target, wanted, measured, met}; measured and met are None where the report does not say."""
    found = []

    def add(target, wanted, measured, met, form):
        known = measured is not None
        found.append({"target": target, "wanted": wanted, "measured": form.format(measured) if known else None, "met": met(measured) if known else None})

    def ratio(a, b):
        return a / b if a and b else None

    for size in (256, 1024):
        run = steps_of(steps, size)
        kiln, floor = best(run, "kiln", "seconds"), floor_seconds(steps, size)
        add(f"{size} px: kiln's best over the counted floor at this card's limits", "at most 2", ratio(kiln, floor), lambda v: v <= 2, "{:.2f}")
    run = steps_of(steps, 256)
    kiln = best(run, "kiln", "seconds")
    add("256 px: the published eager f32 loop over kiln's best", "at least 5", ratio(best(run, "PyTorch", "seconds", "as published"), kiln), lambda v: v >= 5, "{:.2f}")
    add("256 px: PyTorch's best over kiln's best", "at least 2", ratio(best(run, "PyTorch", "seconds"), kiln), lambda v: v >= 2, "{:.2f}")
    run = steps_of(steps, 1024)
    add("1024 px: PyTorch's best over kiln's best", "at least 1.5", ratio(best(run, "PyTorch", "seconds"), best(run, "kiln", "seconds")), lambda v: v >= 1.5, "{:.2f}")
    for size in (256, 512, 1024):
        run = steps_of(steps, size)
        add(f"{size} px: kiln's smallest peak over PyTorch's smallest", "at most 0.5", ratio(best(run, "kiln", "peak_mb"), best(run, "PyTorch", "peak_mb")),
            lambda v: v <= 0.5, "{:.2f}")
    peak = best(steps_of(steps, 1024), "kiln", "peak_mb")
    add("1024 px, batch 8: kiln's smallest peak, GB", "at most 5", peak * 1048576 / 1e9 if peak else None, lambda v: v <= 5, "{:.2f}")
    rows = [r for s in steps if s["part"] == "kernels" and s["data"] for r in s["data"] if "skipped" not in r and r["size"] == 1024]
    large = [r for r in rows if r["bytes"] >= SMALLEST_BYTES and r["kernel"] not in CONVOLUTIONS]
    slowest = min(large, key=lambda r: r["share_of_limit"], default=None)
    add("1024 px: the slowest pointwise or reduction kernel" + (f" ({slowest['kernel']} {slowest['shape']} {slowest['dtype']})" if slowest else "")
        + " over the copy rate", "at least 0.85", slowest["share_of_limit"] if slowest else None, lambda v: v >= 0.85, "{:.2f}")
    for size in (256, 1024):
        busy = steps_of(steps, size).get("GPU busy", {}).get("busy_share")
        add(f"{size} px: the GPU's idle share of a step", "below 0.05", 1 - busy if busy is not None else None, lambda v: v < 0.05, "{:.3f}")
    return found


def markdown(steps):
    lines = ["", "## Targets", "", "| target | wanted | measured | met |", "|---|---|---|---|"]
    for t in targets(steps):
        met = "-" if t["met"] is None else "yes" if t["met"] else "NO"
        lines.append(f"| {t['target']} | {t['wanted']} | {t['measured'] or 'not measured'} | {met} |")
    return lines
