"""Writes pages from the library while Sphinx reads them, so that nothing generated is kept in the repository.

A line of a page that is one of these becomes Markdown:

- ``<!-- catalogue: generator -->``: the parts of a kind, one section each;
- ``<!-- fits -->``: which parts go together;
- ``<!-- notebook: notebooks/kaggle.ipynb -->``: a notebook's cells.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal

import torch
from examples import example
from structure import Stage, Structure, drawing, in_words, structure_of

import ganparts
from ganparts.interchange.costs import NETWORKS, TABLES, choice_in_words, measure, paper_of
from ganparts.metrics import FEATURE_EXTRACTORS
from ganparts.registry import (
    ADVERSARIAL_LOSSES,
    DISCRIMINATORS,
    GENERATORS,
    PRESETS,
    Registry,
)

PICTURES = Path(__file__).parent.parent / "gallery"
MEASURED = Path(__file__).parents[2] / "benchmarks" / "results" / "cpu_inference.json"
KINDS: dict[str, Registry[Any]] = {table.kind: table for table in (*TABLES, FEATURE_EXTRACTORS)}


# --- what is measured, once a version of the library -----------------------------------------------------------------


class Facts:
    """Costs and structures of the networks, kept in a file as long as the library's source stays the same."""

    def __init__(self, path: Path):
        self.path, self.stamp = path, _stamp()
        kept = json.loads(path.read_text()) if path.exists() else {}
        self.known: dict[str, Any] = kept.get("facts", {}) if kept.get("stamp") == self.stamp else {}

    def of(self, table: Registry[Any], name: str) -> dict[str, Any]:
        """Parameters, operations, sizes, structure ... of a network."""
        key = f"{table.kind} {name}"
        if key not in self.known:
            self.known[key] = _measured(table, name)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps({"stamp": self.stamp, "facts": self.known}))
        return self.known[key]


def _stamp() -> str:
    hashed = hashlib.sha256(torch.__version__.encode())
    library = sorted(Path(ganparts.__file__).parent.rglob("*.py"))
    for path in (*library, Path(__file__).with_name("structure.py")):
        hashed.update(path.read_bytes())
    return hashed.hexdigest()


def _measured(table: Registry[Any], name: str) -> dict[str, Any]:
    costs = measure(table, name)
    if costs is None:
        raise ValueError(f"the {table.kind} {name!r} cannot be counted on the meta device")
    with torch.device("meta"):
        network = table.create(name)
    facts = costs._asdict() | {"layers": [], "kinds": {}, "structure": structure_of(network, costs.side)}
    facts["gives_features"] = hasattr(network, "features") and hasattr(network, "feature_channels")
    facts["independent"] = getattr(network, "images_are_independent", False)
    return json.loads(json.dumps(facts))


# --- the catalogue ---------------------------------------------------------------------------------------------------


def catalogue(kind: str, facts: Facts) -> str:
    """All parts of a kind: a table to compare networks, then a section for each part."""
    table = KINDS[kind]
    sections = [_compared(table, facts)] if table in NETWORKS else []
    return "\n\n".join(sections + [_part(table, name, facts) for name in table])


def _compared(table: Registry[Any], facts: Facts) -> str:
    makes = table is GENERATORS
    head = ["name", "parameters", "GFLOP", "MiB kept", "sizes", *(("tiles", "export") if makes else ("logits",))]
    rows = []
    for name in table:
        known = facts.of(table, name)
        ends = [_yes(known["tileable"]), _yes(known["exportable"])] if makes else [_logits(known)]
        link = f"[`{name}`](#{_anchor(table, name)})"
        numbers = [f"{known['parameters']:,}", f"{1000 * known['tflop']:,.1f}", f"{known['kept'] / 2**20:,.0f}"]
        rows.append([link, *numbers, known["sizes"], *ends])
    return _table(head, rows, right=(1, 2, 3))


def _part(table: Registry[Any], name: str, facts: Facts) -> str:
    builder = table[name]
    text = inspect.getdoc(builder) or ""
    pieces = [f"({_anchor(table, name)})=\n\n## `{name}`", _rst(text)]
    if table in NETWORKS:
        known = facts.of(table, name)
        structure = Structure(*known["structure"])
        structure = structure._replace(stages=[Stage(*stage) for stage in structure.stages])
        pieces += [_costs(known, _speed(table, name)), _raw(drawing(structure, f"{name}: {in_words(structure)}"))]
    pieces.append(_picture(table, name))
    pieces.append(example(table, name, facts.of(table, name) if table in NETWORKS else None))
    pieces.append(_preset(table.create(name)) if table is PRESETS else _options(table, name))
    pieces.append(_sources(table, name))
    return "\n\n".join(piece for piece in pieces if piece)


def _picture(table: Registry[Any], name: str) -> str:
    """What the part painted in ``benchmarks/part_pictures.py``, where it did."""
    file = f"{table.kind}_{name}.jpg"
    if not (PICTURES / file).exists():
        return ""
    if table is GENERATORS:
        seen = f"Three photos as {name} paints them after 150 steps"
        told = (
            "After only 150 steps of `monet_one_sided` on the sample, most at width 32. With `residual=True` it starts "
            "from the photo."
        )
    else:
        seen = f"Three photos by a painter that learned from {name} alone"
        told = "The painter `monet` after 150 steps of `restyle` on the sample, with this discriminator alone."
    return f"![{seen}](../gallery/{file})\n\n*{told}*"


def _speed(table: Registry[Any], name: str) -> list[str]:
    """A row with the measured time of a generator, where there is one."""
    record = json.loads(MEASURED.read_text())
    rows = {row["model"]: row for row in record["results"]}
    if table is not GENERATORS or name not in rows:
        return []
    times = ", ".join(f"{rows[name][kind]['median_ms']:.0f} ms in {kind}" for kind in ("fp32", "bf16"))
    side, cores = record["settings"]["size"], record["machine"]["cores"]
    return [
        f"One picture of {side}x{side} on a CPU",
        f"{times} ({cores} cores; [how](../benchmarks.md#translating-in-bf16))",
    ]


def _costs(known: dict[str, Any], speed: list[str]) -> str:
    side = known["side"]
    rows = [
        ["Parameters", f"{known['parameters']:,}"],
        [f"Operations at {side}x{side}", f"{1000 * known['tflop']:,.1f} GFLOP"],
        [f"Kept for backward at {side}x{side}", f"{known['kept'] / 2**20:,.1f} MiB"],
        ["Heights and widths", known["sizes"]],
    ]
    if known["tileable"] is not None:
        rows.append(["Large pictures in tiles", _yes(known["tileable"])])
        rows.append(["Export to ONNX and PyTorch", _yes(known["exportable"])])
        rows.append(["Gives features (for CUT)", _yes(known["gives_features"])])
    else:
        rows.append([f"Logits at {side}x{side}", _logits(known)])
    rows.append(["Images of a batch are independent", _yes(known["independent"])])
    rows += [speed] if speed else []
    return _table(["", ""], rows)


def _options(table: Registry[Any], name: str) -> str:
    options = table.options(name)
    if not options:
        return "It has no options."
    builder = table[name]
    hints = typing.get_type_hints(builder if inspect.isfunction(builder) else builder.__init__)
    meanings = _meanings(hints.get("return")) | _meanings(builder)
    rows = []
    for option in options.values():
        default = "needed" if option.default is option.empty else f"`{option.default!r}`"
        values = _spelled(hints.get(option.name, Any))
        rows.append([f"`{option.name}`", default, values, meanings.get(option.name, "")])
    told = any(row[3] for row in rows)
    return _table(["option", "default", "values", "meaning"], rows) if told else _options_alone(rows)


def _options_alone(rows: list[list[str]]) -> str:
    return _table(["option", "default", "values"], [row[:3] for row in rows])


def _meanings(builder: Any) -> dict[str, str]:
    """What a docstring says of its arguments, in Markdown."""
    _, _, section = (inspect.getdoc(builder) or "").partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", section)[0]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: _markdown(" ".join(text.split())) for name, text in found}


def _markdown(text: str) -> str:
    text = re.sub(r":(\w+):`", r"{py:\1}`", text)
    return text.replace("``", "`")


def _preset(preset: Any) -> str:
    method = type(preset).__module__.split(".")[1]
    fields = {field.name: choice_in_words(getattr(preset, field.name)) for field in dataclasses.fields(preset)}
    rows = [[f"`{name}`", f"`{value}`"] for name, value in fields.items()]
    return f"A preset of {method}.\n\n" + _table(["choice", "value"], rows)


def _sources(table: Registry[Any], name: str) -> str:
    """The paper, the source file, and what its docstring says of deviations."""
    builder = table[name]
    lines = []
    if paper := paper_of(builder, whole_module=table in NETWORKS):
        lines.append(f"Paper: [arXiv {paper}](https://arxiv.org/abs/{paper}).")
    module = getattr(builder, "__module__", "")
    lines.append(f"Source: `{module.replace('.', '/')}.py`.")
    text = inspect.getdoc(sys.modules[module]) or ""
    found = [paragraph for paragraph in text.split("\n\n") if re.search(r"\b[Dd]eviat", paragraph)]
    deviations = "\n\n".join(re.sub(r"\A.*?(?=\bDeviation)", "", paragraph, flags=re.DOTALL) for paragraph in found)
    return " ".join(lines) + (f"\n\n{_rst(deviations)}" if deviations and table is not PRESETS else "")


# --- what goes together ----------------------------------------------------------------------------------------------


def fits(facts: Facts) -> str:
    """Losses by discriminators, as found by trying; and what else parts ask of each other."""
    losses = {name: ADVERSARIAL_LOSSES.create(name) for name in ADVERSARIAL_LOSSES}
    head = ["discriminator", "logits at 256x256", "scales", "independent", "adversarial losses"]
    rows = []
    for name in DISCRIMINATORS:
        known = facts.of(DISCRIMINATORS, name)
        maps = [torch.zeros(1, *shape) for shape in known["structure"][2]]
        refused = [loss for loss in losses if not all(_takes(losses[loss], logits) for logits in maps)]
        takes = f"all but {_listed(refused)}" if refused else "all"
        rows.append([f"`{name}`", _logits(known), str(len(maps)), _yes(known["independent"]), takes])
    needs = [
        [f"`{name}`", _yes(getattr(loss, "needs_real", False)), str(len(getattr(loss, "losses", [None])))]
        for name, loss in losses.items()
    ]
    gives = ("gives_features", "tileable", "exportable")
    generators = [[f"`{name}`", *(_yes(facts.of(GENERATORS, name)[each]) for each in gives)] for name in GENERATORS]
    pairs = [name for name in DISCRIMINATORS if "in_channels" in DISCRIMINATORS.options(name)]
    objectives = [name for name in DISCRIMINATORS if "objectives" in DISCRIMINATORS.options(name)]
    return "\n\n".join(
        [
            "## Discriminators and adversarial losses",
            "Tried when this page was built: each loss is given logits of the shapes that the discriminator makes.",
            _table(head, rows),
            f"These have an option `objectives`, the number of logits for each position: {_listed(objectives)}.",
            "## What adversarial losses need",
            _table(["loss", "real logits, for the generator", "objectives"], needs),
            "## What generators give",
            _table(["generator", "features (CUT's contrastive loss)", "tiles", "export"], generators),
            "## Discriminators for pix2pix",
            f"pix2pix's discriminator sees 6 channels. These have the option `in_channels`: {_listed(pairs)}.",
        ]
    )


def _takes(loss: Any, logits: torch.Tensor) -> bool:
    try:
        loss.discriminator(logits, logits)
        loss.generator(logits, logits)
    except ValueError:
        return False
    return True


# --- notebooks -------------------------------------------------------------------------------------------------------


def notebook(path: Path) -> str:
    """A notebook's cells: text as it is, code as blocks."""
    cells = json.loads(path.read_text())["cells"]
    texts = (("".join(cell["source"]), cell["cell_type"]) for cell in cells)
    return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for text, kind in texts)


# --- Markdown --------------------------------------------------------------------------------------------------------


def _table(head: list[str], rows: list[list[str]], *, right: tuple[int, ...] = ()) -> str:
    rule = ["---:" if place in right else "---" for place in range(len(head))]
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in (head, rule, *rows))
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)


def _rst(text: str) -> str:
    """A docstring without its sections."""
    shown = re.split(r"^(?:Args|Returns|Raises):$", text, maxsplit=1, flags=re.MULTILINE)[0].strip()
    return f"```{{eval-rst}}\n{shown}\n```" if shown else ""


def _raw(html: str) -> str:
    return f"```{{raw}} html\n{html}\n```"


def _anchor(table: Registry[Any], name: str) -> str:
    return f"{table.kind}-{name}".replace(" ", "-").replace("_", "-")


def _logits(known: dict[str, Any]) -> str:
    shapes = ["x".join(map(str, shape)) for shape in known["structure"][2]]
    return ", ".join(shapes)


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _spelled(annotation: Any) -> str:
    """A type as a reader writes it."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{each!r}`" for each in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_spelled, inner))
    if origin is not None and getattr(origin, "__name__", "") == "Callable":
        return "a function"
    if origin is not None and inner:
        return f"{origin.__name__} of {' or '.join(_spelled(each) for each in inner if each is not ...)}".lower()
    return "none" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


# --- Sphinx ----------------------------------------------------------------------------------------------------------

_FACTS: list[Facts] = []
_MARK = re.compile(r"^<!-- (catalogue|fits|notebook)(?:: (.+?))? -->$", re.MULTILINE)


def _expand(app: Any, page: str, source: list[str]) -> None:
    def write(found: re.Match[str]) -> str:
        what, argument = found[1], found[2]
        if what == "notebook":
            return notebook(Path(app.srcdir) / argument)
        return fits(_FACTS[0]) if what == "fits" else catalogue(argument, _FACTS[0])

    source[0] = _MARK.sub(write, source[0])


def _begin(app: Any) -> None:
    _FACTS[:] = [Facts(Path(app.doctreedir) / "networks.json")]


def _outdated(app: Any, env: Any, *_: Any) -> list[str]:
    """Pages that are written from the library are read anew in each build."""
    return [page for page in env.found_docs if _MARK.search(Path(env.doc2path(page)).read_text())]


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", _begin)
    app.connect("env-get-outdated", _outdated)
    app.connect("source-read", _expand)
    return {"parallel_read_safe": False}
