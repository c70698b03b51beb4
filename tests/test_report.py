"""The page of a run: what it says, that nothing in a run's folder breaks it, and how a browser shows it."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganparts.training import write_report
from ganparts.training.report.__main__ import main
from ganparts.training.report.curves import charts, keep_extremes, smooth

HEADER = "step,learning_rate,pairs_per_second,data_wait,gan_ab,gan_ba,cycle_a,cycle_b,disc_a,disc_b,grad_norm_a,kid,odd"
WARNING = {"step": 60, "kind": "discriminator_won", "what": "disc_b is near 0", "since": 40, "advice": "Lower its rate"}


def csv_text(rows: int, **changed: str) -> str:
    """Rows of every other step; ``row_7="..."`` changes the cells after the step of row 7."""
    lines = [HEADER]
    for row in range(1, rows + 1):
        loss = 2 / row + 0.1 * math.sin(row)
        kid = f"{0.2 / row:.4f}" if row % 10 == 0 else ""
        cells = f"0.0002,{10 + row % 3},0.25,{loss},{loss * 1.1},{loss * 5},{loss * 4},{loss},{loss},{10**-row},{kid},7"
        lines.append(f"{2 * row},{changed.get(f'row_{row}', cells)}")
    return "".join(line + "\n" for line in lines)


def save_grid(path: Path, colour: int, size: tuple[int, int] = (100, 52)) -> None:
    Image.new("RGB", size, (colour, 90, 160)).save(path)


def make_run(folder: Path, *, rows: int = 60, steps: int = 200, grids: int = 4, **options: Any) -> Path:
    (folder / "samples").mkdir(parents=True)
    parts = {f"{kind}_{letter}": "unet128(width=2)" for kind in ("generator", "replay") for letter in ("ab", "ba")}
    settled = {"steps": steps, "batch_size": 2, "betas": [0.5, 0.999], "schedule": {"name": "linear", "at": {"x": 1}}}
    config = {"options": {"preset": "paper", "data": None} | options, "settled": settled, "parts": parts}
    (folder / "config.json").write_text(json.dumps(config | {"machine": {"cards": [{"name": "T4"}]}, "seconds": 3}))
    (folder / "losses.csv").write_text(csv_text(rows))
    (folder / "warnings.jsonl").write_text("".join(json.dumps(WARNING | {"step": step}) + "\n" for step in (50, 60)))
    (folder / "best.json").write_text(json.dumps({"step": 100, "metric": "kid", "value": 0.0123456}))
    for grid in range(1, grids + 1):
        save_grid(folder / "samples" / f"step_{30 * grid:07d}.png", 40 * grid % 256)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def shown(folder: Path, **options: Any) -> dict[str, Any]:
    """The data in the page, which must be JSON by the letter (no NaN)."""
    page = write_report(folder, **options).read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(found[1], parse_constant=refuse)


def all_notes(data: dict[str, Any]) -> str:
    return " ".join(note for notes in data["notes"].values() for note in notes)


def test_the_page_says_what_the_folder_holds(run: Path):
    data = shown(run, state="running")
    assert (data["name"], data["state"], data["step"], data["steps"], data["preset"]) == (
        *("run", "running", 120, 200, "paper"),
    )
    assert data["parts"] == [["generator_ab", "unet128(width=2)"], ["generator_ba", "unet128(width=2)"]]
    assert all_notes(data) == ""
    assert data["facts"] == [
        ["11", "pairs per second (median)"],
        ["25.0%", "of the time waiting for data"],
        ["0 min", "left, about"],  # 80 steps of 2 pairs, 11 a second: 15 s
        ["kid 0.01235", "best generator, step 100"],
    ]
    assert [warning["count"] for warning in data["warnings"]] == [2]
    assert data["warnings"][0]["entries"][0] == {
        name: str(WARNING[name]) for name in ("step", "what", "since", "advice")
    }
    assert [grid["step"] for grid in data["grids"]] == [30, 60, 90, 120]
    tables = {table["title"]: dict(table["rows"]) for table in data["tables"]}
    assert list(tables) == ["What the run settled on", "Parts", "Options as given", "Machine", "More"]
    assert tables["What the run settled on"]["schedule.at.x"] == "1"
    assert tables["What the run settled on"]["betas"] == "0.5, 0.999"
    assert tables["Options as given"] == {"preset": "paper", "not set": "data"}
    assert tables["Machine"] == {"cards.0.name": "T4"}
    assert tables["More"] == {"seconds": "3"}


def test_the_time_left_counts_the_pairs_of_all_processes(tmp_path: Path):
    folder = make_run(tmp_path / "run", steps=4120)
    config = json.loads((folder / "config.json").read_text())
    config["settled"]["processes"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    assert ["24 min", "left, about"] in shown(folder, state="running")["facts"]  # 4,000 steps of 4 pairs, 11 a second


def test_columns_are_grouped_and_a_strange_one_has_its_own_chart(run: Path):
    drawn = shown(run)["charts"]
    assert [(chart["title"], [series["name"] for series in chart["series"]]) for chart in drawn] == [
        ("Adversarial losses of the generators", ["gan_ab", "gan_ba"]),
        ("Losses of the discriminators", ["disc_a", "disc_b"]),
        ("Cycle losses", ["cycle_a", "cycle_b"]),
        ("odd", ["odd"]),
        ("Gradient norms", ["grad_norm_a"]),
        ("KID, lower is better", ["kid"]),
        ("Learning rate", ["learning_rate"]),
        ("Pairs per second", ["pairs_per_second"]),
        ("Share of time spent waiting for data", ["data_wait"]),
    ]
    kid = drawn[5]
    assert kid["steps"] == [20, 40, 60, 80, 100, 120]  # where it was logged
    assert kid["series"][0]["values"][:2] == [0.02, 0.01]
    assert drawn[0]["series"][0]["smooth"]
    assert drawn[6]["series"][0]["smooth"] == []  # a learning rate has no noise


def test_time_spent_waiting_is_a_share_of_the_time_not_of_the_rows(tmp_path: Path):
    text = "step,pairs_per_second,data_wait\n1,1,0.5\n2,1,0.5\n12,100,0.1\n"  # 1, 1 and 0.1 units of time
    (tmp_path / "losses.csv").write_text(text)
    facts = {label: value for value, label in shown(tmp_path)["facts"]}
    assert facts["of the time waiting for data"] == f"{(0.5 + 0.5 + 0.01) / 2.1:.1%}"
    assert facts["pairs per second (median)"] == "1"


@pytest.mark.parametrize(
    ("state", "rows", "expected"),
    [("stopped", 60, "stopped"), ("crashed", 60, "crashed"), (None, 60, "unknown"), (None, 100, "finished")],
)
def test_a_state_that_nobody_names_is_read_off_the_last_step(tmp_path: Path, state: str, rows: int, expected: str):
    run = make_run(tmp_path / "run", rows=rows)
    assert shown(run, state=state)["state"] == expected
    assert 'http-equiv="refresh"' not in (run / "report.html").read_text()


def test_the_page_refreshes_itself_only_while_the_run_goes_on(run: Path):
    assert '<meta http-equiv="refresh" content="30">' in write_report(run, state="running").read_text()
    assert 'http-equiv="refresh"' not in write_report(run, state="finished").read_text()


def test_wrong_arguments_are_refused(run: Path):
    with pytest.raises(ValueError, match="state 'done' is none of running, finished, stopped, crashed"):
        write_report(run, state="done")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*absent to report on"):
        write_report(run / "absent")


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("config.json", "There is no config.json."),
        ("losses.csv", "There is no losses.csv."),
        ("samples", "There are no sample grids in samples/ yet."),
        ("warnings.jsonl", ""),
        ("best.json", ""),
    ],
)
def test_a_missing_file_is_named_and_the_rest_is_shown(run: Path, missing: str, said: str):
    path = run / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    data = shown(run)
    assert all_notes(data) == said
    kept = {"config.json": "tables", "losses.csv": "charts", "samples": "grids", "warnings.jsonl": "warnings"}
    assert {part for part in kept.values() if not data[part]} == {
        kept[missing] for missing in [missing] if missing in kept
    }


def test_an_empty_folder_has_a_page(tmp_path: Path):
    data = shown(tmp_path)
    assert (data["step"], data["steps"], data["state"]) == (None, None, "unknown")
    assert len(all_notes(data).split(".")) > 3


@pytest.mark.parametrize(
    "name", ["config.json", "losses.csv", "warnings.jsonl", "best.json", "samples/step_0000120.png"]
)
def test_a_file_cut_anywhere_breaks_nothing(run: Path, name: str):
    whole = (run / name).read_bytes()
    for length in {0, 1, 2, *range(3, len(whole), max(1, len(whole) // 25)), len(whole) - 1}:
        (run / name).write_bytes(whole[:length])
        assert len(shown(run)["grids"]) >= 3
        (run / name).write_bytes(whole[:length] + b"\0\0\xff\xfe")  # what a file system leaves after a power failure
        assert len(shown(run)["grids"]) >= 3


def test_zeros_at_the_end_of_a_file_are_left_out(run: Path):
    for name in ("config.json", "losses.csv", "warnings.jsonl"):
        (run / name).write_bytes((run / name).read_bytes() + bytes(1000))
    data = shown(run)
    assert (data["preset"], data["step"], len(data["warnings"]), all_notes(data)) == ("paper", 120, 1, "")


@pytest.mark.parametrize("content", ["[1, 2]", "null", '"x"', "{", '{"settled": 3, "options": [1], "parts": "x"}'])
def test_a_configuration_of_another_shape_breaks_nothing(run: Path, content: str):
    for name in ("config.json", "best.json", "warnings.jsonl"):
        (run / name).write_text(content)
    assert len(shown(run)["charts"]) == 9


def test_half_a_row_is_left_out_since_its_last_number_may_be_cut(run: Path):
    with (run / "losses.csv").open("a") as file:
        file.write(csv_text(61).splitlines()[-1][:-1] + "1")  # every cell is there, but not the line's end
    assert shown(run)["step"] == 120
    with (run / "losses.csv").open("a") as file:
        file.write("\n124,3\n126,a,b\n" + csv_text(64).splitlines()[-1] + "\n")
    data = shown(run)
    assert data["step"] == 128
    assert all_notes(data) == "2 of the 64 rows of losses.csv do not fit its header and are left out."


def test_half_a_warning_is_counted_and_the_whole_ones_are_shown(run: Path):
    with (run / "warnings.jsonl").open("a") as file:
        file.write(json.dumps(WARNING | {"kind": "nan", "step": 70}) + "\n[1]\n")
        file.write(json.dumps(WARNING | {"step": 80}) + "\n" + json.dumps(WARNING)[:-9])
    data = shown(run)
    assert [(warning["kind"], [entry["step"] for entry in warning["entries"]]) for warning in data["warnings"]] == [
        ("discriminator_won", ["80", "60", "50"]),  # the kind that was last warned of first
        ("nan", ["70"]),
    ]
    assert all_notes(data) == "Of warnings.jsonl, 2 lines cannot be read."


def test_a_broken_picture_is_named_and_another_takes_its_place(tmp_path: Path):
    run = make_run(tmp_path / "run", grids=40)
    last = run / "samples" / "step_0001200.png"
    last.write_bytes(last.read_bytes()[:60])
    (run / "samples" / "step_x.png").write_bytes(b"")
    data = shown(run)
    steps = [grid["step"] for grid in data["grids"]]
    assert (len(steps), steps[0], steps[-1]) == (24, 30, 1170)
    assert max(np.diff(steps)) <= 60
    assert all_notes(data) == "samples/step_0001200.png cannot be read and is left out."


def test_values_that_are_not_finite_are_counted_and_break_nothing(tmp_path: Path):
    run = make_run(tmp_path / "run")
    cells = "0.0002,nan,0.25,nan,inf,-inf,1e308,1,1,1,,7"
    (run / "losses.csv").write_text(csv_text(60, row_30=cells, row_40=cells))
    first, second = shown(run)["charts"][0]["series"]
    assert first["lost"] == second["lost"] == {"count": 2, "first": 60}
    assert (first["values"][29], second["values"][29]) == ("nan", "inf")
    assert (first["smooth"][29], type(first["smooth"][30])) == ("nan", float)
    assert all(isinstance(value, float) for value in (first["values"] + first["smooth"])[:29])


def test_a_long_run_is_thinned_to_its_extremes(tmp_path: Path):
    spike = "0.0002,10,0.25,99,1,1,-77,1,1,1,,7"
    run = make_run(tmp_path / "run", rows=1)
    (run / "losses.csv").write_text(csv_text(50_000, row_31416=spike))
    drawn = shown(run)["charts"]
    assert (run / "report.html").stat().st_size < 1_000_000
    assert all(len(chart["steps"]) <= 900 for chart in drawn)
    assert all(
        (chart["steps"][0], chart["steps"][-1]) == (2, 100_000) for chart in drawn if "KID" not in chart["title"]
    )
    adversarial, cycle = drawn[0], drawn[2]
    assert adversarial["series"][0]["values"][adversarial["steps"].index(2 * 31416)] == 99
    assert cycle["series"][1]["values"][cycle["steps"].index(2 * 31416)] == -77


def test_extremes_are_those_of_every_column():
    columns = [[0.0] * 100, [0.0] * 100]
    columns[0][37], columns[1][62] = 5.0, -5.0
    columns[1][80:100] = [math.nan] * 20
    kept = keep_extremes(columns, buckets=5)
    assert {0, 37, 62, 80, 99} <= set(kept)
    assert kept == sorted(set(kept))
    assert len(kept) <= 22
    assert keep_extremes([[1.0] * 10], buckets=5) == list(range(10))


def test_the_average_is_unbiased_and_leads_through_the_noise():
    assert smooth([1.0] * 19) == []
    assert smooth([3.0] * 40) == pytest.approx([3.0] * 40)
    noisy = [(-1.0) ** i + 5 for i in range(400)]
    assert max(abs(value - 5) for value in smooth(noisy)[100:]) < 0.1
    gap = smooth([2.0] * 20 + [None, math.inf] + [2.0] * 20)
    assert gap[20:23] == [None, math.inf, pytest.approx(2.0)]


def test_siblings_of_an_unknown_column_share_a_chart():
    rows = {1: {"other_a": 1.0, "other_b": 2.0, "r1": 3.0, "penalty": 0.5, "penalty_b_0": 0.1}}
    assert [(c["title"], len(c["series"])) for c in charts(rows)] == [("Penalties", 2), ("other", 2), ("r1", 1)]


def test_many_large_grids_stay_under_ten_megabytes(tmp_path: Path):
    run = make_run(tmp_path / "run", grids=0)
    noise = np.random.default_rng(0)
    for step in (1, 2):  # noise compresses worst
        Image.fromarray(noise.integers(0, 256, (784, 1564, 3), dtype=np.uint8)).save(
            run / f"samples/step_{step:07d}.png"
        )
    for step in range(3, 31):
        shutil.copy(run / "samples" / f"step_{1 + step % 2:07d}.png", run / "samples" / f"step_{step:07d}.png")
    steps = [grid["step"] for grid in shown(run)["grids"]]
    assert (len(steps), steps[0], steps[-1]) == (24, 1, 30)
    assert 2_000_000 < (run / "report.html").stat().st_size < 10_000_000


def test_pictures_are_encoded_once_and_anew_when_they_change(run: Path):
    before = [grid["image"] for grid in shown(run)["grids"]]
    path = run / "samples" / "step_0000120.png"
    save_grid(path, 255)
    os.utime(path, (0, 0))
    after = [grid["image"] for grid in shown(run)["grids"]]
    assert before[:3] == after[:3]
    assert before[3] != after[3]


EVIL = "</script><script>document.title = 'owned'</script><!--<script><img src=x onerror=\"document.title='owned'\">"


def make_evil(folder: Path) -> Path:
    run = make_run(folder, note=EVIL)
    config = json.loads((run / "config.json").read_text())
    config["parts"]["generator_ab"] = EVIL
    config["settled"][EVIL] = EVIL
    (run / "config.json").write_text(json.dumps(config | {EVIL: {EVIL: EVIL}}))
    (run / "warnings.jsonl").write_text(json.dumps(dict.fromkeys(WARNING, EVIL)) + "\n")
    (run / "best.json").write_text(json.dumps({"step": EVIL, "metric": EVIL, "value": EVIL}))
    (run / "losses.csv").write_text(csv_text(60).replace("odd", EVIL))
    return run


def test_nothing_in_a_file_becomes_html(run: Path, tmp_path: Path):
    plain = write_report(run).read_text()
    page = write_report(make_evil(tmp_path / "evil")).read_text()
    assert page.count("<script") == plain.count("<script")
    assert page.count("<!--") == plain.count("<!--")
    assert "<img src=x" not in page
    assert shown(tmp_path / "evil")["parts"][0][1] == EVIL


def test_a_failed_write_leaves_the_page_before(run: Path, monkeypatch: pytest.MonkeyPatch):
    before = write_report(run, state="finished").read_bytes()
    files = sorted(run.iterdir())

    def refuse(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(OSError, match="full"):
            write_report(run, state="running")
    assert (run / "report.html").read_bytes() == before
    assert sorted(run.iterdir()) == files


def test_the_page_is_never_written_in_place(run: Path, monkeypatch: pytest.MonkeyPatch):
    page = write_report(run)
    replaced = []
    monkeypatch.setattr(os, "replace", lambda source, target: replaced.append((Path(source).parent, target)))
    page.unlink()
    write_report(run)
    assert replaced == [(run, page)]
    assert not page.exists()


def test_the_command_line_writes_the_page_of_a_crashed_run(run: Path):
    command = [sys.executable, "-m", "ganparts.training.report", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(run / "report.html"), "")
    assert '"state": "unknown"' in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("folder", "said"), [(".", "holds no run: it has none of config.json"), ("absent", "there is no folder")]
)
def test_the_command_line_refuses_in_one_sentence(
    tmp_path: Path, folder: str, said: str, capsys: pytest.CaptureFixture[str]
):
    assert main([str(tmp_path / folder)]) == 1
    assert re.fullmatch(f"error: .*{said}.*\n", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """Opens a page; at the end no error may have been said and nothing asked of a network."""
    said, asked, contexts = [], [], []

    def open_page(path: Path, *, width: int = 1280, scheme: str = "light") -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_pictures_and_curves_on_any_screen(run: Path, visit: Any, width: int, scheme: str):
    page = visit(write_report(run), width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator(".view img").evaluate_all("all => all.map(one => one.naturalWidth)") == [100, 100]
    assert page.locator(".chart").count() == 9
    drawn = page.locator(".chart").first.locator("path").evaluate_all("all => all.map(one => one.getTotalLength())")
    assert len(drawn) == 4  # raw and smooth of two series
    assert min(drawn) > 200
    assert page.locator(".chart").nth(5).locator("circle").count() == 6
    assert "(logarithmic)" in page.locator(".chart h3").nth(4).inner_text()
    assert page.locator(".warning").inner_text().startswith("discriminator won")
    assert page.locator("#stale").inner_text().startswith("The run did not reach its last step")
    ground, text = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    bright = {name: sum(map(int, re.findall(r"\d+", colour))) for name, colour in (("ground", ground), ("text", text))}
    assert (bright["ground"] > bright["text"]) == (scheme == "light")


def test_curves_fit_a_screen_that_is_turned(run: Path, visit: Any):
    page = visit(write_report(run))
    page.set_viewport_size({"width": 390, "height": 800})
    right = "document.querySelector('.plot svg').getBoundingClientRect().right"  # the page forbids wait_for_function
    frames = f"for (let i = 0; i < 100 && {right} > 390; i++) await new Promise(requestAnimationFrame)"
    assert 300 < page.evaluate(f"(async () => {{ {frames}; return {right}; }})()") <= 390
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_the_sliders_show_other_pictures_and_stay_over_a_refresh(tmp_path: Path, visit: Any):
    run = make_run(tmp_path / "run", grids=4)
    page = visit(write_report(run, state="running"))

    def pictures() -> list[str]:
        return page.locator(".view img").evaluate_all("all => all.map(one => one.alt)")

    def steps(*numbers: int) -> list[str]:
        return [f"Sample grid of step {number}" for number in numbers]

    assert pictures() == steps(30, 120)
    source = page.locator("#left img").get_attribute("src")
    page.locator("#left input").focus()
    page.keyboard.press("ArrowRight")
    assert pictures() == steps(60, 120)
    assert page.locator("#left output").inner_text() == "step 60"
    assert page.locator("#left img").get_attribute("src") != source
    page.locator("#right input").press("ArrowLeft")
    page.locator("#right input").press("End")
    page.evaluate("scrollTo(0, 300)")
    save_grid(run / "samples" / "step_0000150.png", 200)
    write_report(run, state="running")
    page.reload()
    assert pictures() == steps(60, 150)  # one stays where it was put, the other follows the run
    assert page.evaluate("scrollY") == 300


def test_a_picture_is_shown_at_full_size(run: Path, visit: Any):
    page = visit(write_report(run))
    page.locator("#right button").click()
    assert page.locator("#large").is_visible()
    assert page.locator("#large img").evaluate("one => [one.naturalWidth, one.clientWidth]") == [100, 100]
    page.keyboard.press("Escape")
    assert not page.locator("#large").is_visible()


@pytest.mark.parametrize("x", [50, 160, 320])
def test_values_beside_the_pointer_stay_on_a_phone(tmp_path: Path, visit: Any, x: int):
    run = make_run(tmp_path / "run")
    text = csv_text(60).replace("gan_ab", "gan_" + "of_a_very_long_name_" * 4)
    (run / "losses.csv").write_text(text)
    page = visit(write_report(run), width=390)
    page.locator(".plot").first.hover(position={"x": x, "y": 80})
    box = page.locator(".tip").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_pointing_at_a_curve_and_arrow_keys_read_its_values(run: Path, visit: Any):
    page = visit(write_report(run))
    plot = page.locator(".plot").first
    plot.hover(position={"x": 300, "y": 80})
    step = int(re.findall(r"step (\d+)", page.locator(".tip").inner_text())[0])
    assert "gan_ab " in page.locator(".tip").inner_text()
    assert 40 < step < 80
    page.mouse.move(0, 0)
    assert page.locator(".tip").count() == 0
    plot.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert "step 118" in page.locator(".tip").inner_text()


def test_a_browser_reads_nothing_of_a_file_as_html(tmp_path: Path, visit: Any):
    page = visit(write_report(make_evil(tmp_path / "evil")), width=390)
    assert page.title() == "evil: stopped or crashed"
    assert page.locator("td", has_text=EVIL).count() >= 3
    assert page.locator(".warning", has_text=EVIL).count() == 1
    assert page.locator("img[src=x]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("row", ["nan,nan,nan,nan,nan,nan,nan,nan,nan,nan,nan,nan", "0,0,0,0,0,0,0,0,0,0,0,0"])
@pytest.mark.parametrize("rows", [1, 30])
def test_a_browser_draws_curves_without_a_single_good_value(tmp_path: Path, visit: Any, row: str, rows: int):
    run = make_run(tmp_path / "run")
    (run / "losses.csv").write_text(csv_text(rows, **{f"row_{i}": row for i in range(1, rows + 1)}))
    page = visit(write_report(run))
    assert page.locator(".chart").count() == 9
    assert "NaN" not in page.locator("#curves").inner_html()
    assert ("not finite, first at step 2" in page.locator("#curves").inner_text()) == ("nan" in row)


def test_an_old_page_of_a_running_run_says_that_it_may_be_dead(run: Path, visit: Any):
    path = write_report(run, state="running")
    path.write_text(re.sub(r'"written": "\d{4}', '"written": "2020', path.read_text()))
    assert "the run may have been killed" in visit(path).locator("#stale").inner_text()


def test_an_empty_folder_and_a_refused_session_still_show(tmp_path: Path, browser: Any, visit: Any):
    path = write_report(tmp_path)
    assert visit(path).locator(".note").count() >= 4
    run = write_report(make_run(tmp_path / "run"))
    page = browser.new_context().new_page()
    page.add_init_script("Object.defineProperty(window, 'sessionStorage', {get() { throw new Error('refused'); }})")
    page.goto(run.as_uri())
    page.locator("#left input").press("ArrowRight")
    assert page.locator("#left output").inner_text() == "step 60"
    assert page.locator(".chart").count() == 9
    page.context.close()
