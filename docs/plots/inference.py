"""One picture in fp32 and in bf16 on a CPU, from the benchmark's record."""

import json
from pathlib import Path

import matplotlib.pyplot as plt

record = json.loads(Path("../../benchmarks/results/cpu_inference.json").read_text())
rows = sorted(record["results"], key=lambda row: row["fp32"]["median_ms"])
figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
for shift, precision, colour in ((0.2, "fp32", "#8c8c8c"), (-0.2, "bf16", "#1f6feb")):
    places = [place + shift for place in range(len(rows))]
    axes.barh(places, [row[precision]["median_ms"] for row in rows], 0.4, label=precision, color=colour)
axes.set_yticks(range(len(rows)), [row["model"] for row in rows])
axes.set_xlabel("milliseconds for a picture of 256x256, two cores with AMX")
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
