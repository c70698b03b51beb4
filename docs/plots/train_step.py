"""How many times as long the textbook's step takes, from the benchmark's records."""

import json
from pathlib import Path

import matplotlib.pyplot as plt

RECORDS = {
    "cpu_train_step": "CPU, AVX2",
    "cpu_train_step_256": "CPU, AVX2",
    "cpu_train_step_bf16": "CPU, AMX",
    "cpu_train_step_avx512": "CPU, AVX512-BF16",
    "gpu/h200_train_step": "H200",
}
MODES = {
    "ours": "fp32",
    "low": "fp32, low memory",
    "lowest": "fp32, low memory, blocks recomputed",
    "auto": "bf16",
    "captured": "fp32, captured; textbook in TF32",
    "bf16_captured": "bf16, captured; textbook in TF32",
}
bars = []
for name, machine in RECORDS.items():
    for row in json.loads(Path(f"../../benchmarks/results/{name}.json").read_text())["results"]:
        bars.append((f"{machine}, {row['size']} px: {MODES[row['mode']]}", row["textbook_over_this"]))
bars.reverse()
figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
axes.barh([label for label, _ in bars], [ratio for _, ratio in bars], color="#1f6feb")
axes.axvline(1, color="#8c8c8c", linewidth=1)
axes.set_xlabel("textbook's step / train_step\n(ResNet-9 with identity, batch 1)")
axes.spines[["top", "right"]].set_visible(False)
