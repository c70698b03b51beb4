"""A page for each public name, under the name by which users import it, and a table of each module's names.

The pages are written to ``docs/api`` when the build begins; nothing of it is kept in the repository. A name that
several modules pass on has one page, that of the module that the reference lists first, and links by any of its
names lead there.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from ganparts.registry import Registry

_MARK = re.compile(r"^<!-- reference: (.+?) -->$", re.MULTILINE)


class Reference:
    """Which page documents which object.

    Args:
        pages: the reference's pages, in the order in which names belong to them.
    """

    def __init__(self, pages: list[Path]):
        self.modules = [name for page in pages for name in _MARK.findall(page.read_text())]
        self.homes: dict[str | int, str] = {}
        self.aliases: dict[str, str] = {}
        for module, name, value in self._listed():
            home = self.homes.setdefault(_key(module, name, value), f"{module}.{name}")
            for other in (f"{module}.{name}", f"{getattr(value, '__module__', module)}.{name}"):
                if other != home:
                    self.aliases[other] = home

    def _listed(self) -> list[tuple[str, str, Any]]:
        return [(module, name, value) for module in self.modules for name, value in public(module).items()]

    def write(self, folder: Path) -> None:
        """Write a page for each name; those that have not changed are left alone."""
        folder.mkdir(exist_ok=True)
        texts = {
            f"{module}.{name}.rst": page_of(module, name, value)
            for module, name, value in self._listed()
            if self.homes[_key(module, name, value)] == f"{module}.{name}"
        }
        for stale in {path.name for path in folder.glob("*.rst")} - texts.keys():
            (folder / stale).unlink()
        for file, text in texts.items():
            if not (folder / file).exists() or (folder / file).read_text() != text:
                (folder / file).write_text(text)

    def table(self, module: str) -> str:
        """A module's text, and a table of its names with a line on each."""
        homes = [self.homes[_key(module, name, value)] for name, value in public(module).items()]
        rows = [
            "   " + (name if home == f"{module}.{name}" else f"~{home}")
            for name, home in zip(public(module), homes, strict=True)
        ]
        lines = [f".. automodule:: {module}", "", ".. autosummary::", "   :nosignatures:", "", *rows]
        return "```{eval-rst}\n" + "\n".join(lines) + "\n```"


def _key(module: str, name: str, value: Any) -> str | int:
    """What is the same for an object that several modules pass on; equal numbers are not one object."""
    return id(value) if callable(value) or isinstance(value, Registry) else f"{module}.{name}"


def public(module: str) -> dict[str, Any]:
    """What a module offers by name; modules are left out."""
    found = importlib.import_module(module)
    values = {name: getattr(found, name) for name in found.__all__}
    return {name: value for name, value in values.items() if not inspect.ismodule(value) and name != "__version__"}


def page_of(module: str, name: str, value: Any) -> str:
    """The page of one name, in reStructuredText."""
    lines = [":orphan:", "", name, "=" * len(name), "", f".. currentmodule:: {module}", ""]
    if isinstance(value, Registry):
        lines += [f".. py:data:: {name}", "   :type: Registry", ""]
        lines += [f"   Parts of the kind *{value.kind}*; the :doc:`catalogue </catalogue/index>` lists them."]
        return "\n".join(lines) + "\n"
    lines.append(f".. {_directive(value)}:: {module}.{name}")
    if inspect.isclass(value):
        lines += ["   :members:", "   :show-inheritance:"]
        if hidden := _hidden(value):
            lines.append(f"   :exclude-members: {', '.join(hidden)}")
    return "\n".join(lines) + "\n"


def _directive(value: Any) -> str:
    if inspect.isclass(value):
        return "autoexception" if issubclass(value, BaseException) else "autoclass"
    return "autofunction" if inspect.isroutine(value) else "autodata"


def _hidden(value: type) -> list[str]:
    """Fields of a named tuple that have no text of their own."""
    fields = getattr(value, "_fields", ()) if issubclass(value, tuple) else ()
    return [each for each in fields if (getattr(value, each).__doc__ or "").startswith("Alias for field")]


# --- Sphinx ----------------------------------------------------------------------------------------------------------

_KNOWN: list[Reference] = []


def _begin(app: Any) -> None:
    source = Path(app.srcdir)
    order = re.findall(r"^(\w+)$", (source / "reference" / "index.md").read_text(), re.MULTILINE)
    _KNOWN[:] = [Reference([source / "reference" / f"{name}.md" for name in order])]
    _KNOWN[0].write(source / "api")


def _expand(app: Any, page: str, source: list[str]) -> None:
    source[0] = _MARK.sub(lambda found: _KNOWN[0].table(found[1]), source[0])


def _outdated(app: Any, env: Any, *_: Any) -> list[str]:
    return [page for page in env.found_docs if page.startswith(("reference/", "api/"))]


def _alias(app: Any, env: Any) -> None:
    """Let links by every name of an object lead to its page."""
    objects = env.domaindata["py"]["objects"]
    for alias, home in _KNOWN[0].aliases.items():
        for name in [each for each in objects if each == home or each.startswith(f"{home}.")]:
            objects.setdefault(alias + name.removeprefix(home), objects[name]._replace(aliased=True))


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", _begin)
    app.connect("env-get-outdated", _outdated)
    app.connect("source-read", _expand)
    app.connect("env-updated", _alias)
    return {"parallel_read_safe": False}
