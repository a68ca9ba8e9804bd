# amaranth: UnusedElaboratable=no
"""README and pages: their programs run, their links lead somewhere, and they name what there is.

The word behind the language of a fenced block says what is done with it:

- ``python``: runs, after those before it on the page and with their names.
- ``python no-run``: is only shown.
- ``text output``: is what the block before it prints.
- ``python FILE`` and ``diff FILE``: a new file and changes of one, for a copy of the sources.
- ``python copy``: runs there.
"""

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from amaranth.lib.wiring import In

import streamtrain as st
from streamtrain.pipeline.core import TrainingPipeline

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LAYER_PAGE = ROOT / "docs" / "adding-a-layer.md"
API_PAGE = ROOT / "docs" / "api.md"


class Block(NamedTuple):
    """A fenced block: its language, the word behind that, its text, and the line it begins in."""

    language: str
    word: str
    text: str
    line: int


def blocks(page):
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2].strip(), found[3], text.count("\n", 0, found.start(3)) + 1)
        for found in re.finditer(r"^```(\w+)([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


def page_name(page):
    return page.relative_to(ROOT).as_posix()


def grouped(page):
    """Pages that compile the same design run one after the other, so that only the first does."""
    compiles = any(call in page.read_text(encoding="utf-8") for call in (".simulate()", ".verify("))
    return pytest.param(page, marks=pytest.mark.xdist_group("hello") if compiles else ())


@pytest.mark.parametrize("page", [grouped(page) for page in PAGES], ids=page_name)
def test_programs_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    printed = None
    for block in blocks(page):
        where = f"{page_name(page)}, line {block.line}"
        if block.language == "python" and block.word not in {"no-run", "copy"}:
            printed = StringIO()
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            with redirect_stdout(printed):
                exec(code, module.__dict__)
        elif block.language == "text" and block.word == "output":
            assert printed is not None, f"{where}: no program comes before this output"
            assert lines(block.text) == lines(printed.getvalue()), where


def lines(text):
    return [line.rstrip() for line in text.strip().splitlines()]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent.name == "docs"], ids=page_name
)
def test_page_opens_with_a_program(page):
    opening = page.read_text(encoding="utf-8")[:1200]
    assert re.search(r"^```python$", opening, re.MULTILINE), "the smallest program comes first"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page):
    text = re.sub(
        r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page_name(page)} links to {target}"
        if anchor:
            assert anchor in anchors(file), f"{page_name(page)} links to {target}"


def anchors(page):
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_pages_and_images_are_linked():
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    for page in PAGES[1:]:
        assert f"docs/{page.name}" in texts[PAGES[0]], f"README does not link to {page.name}"
    for image in (ROOT / "docs" / "images").iterdir():
        assert any(f"images/{image.name}" in text for text in texts.values()), image.name


def test_results_are_those_of_the_plans(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from nets import NETS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| \*\*(\w)\*\*[^|]*\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|", text, re.MULTILINE
    )
    assert len(rows) >= 4
    for name, *figures in rows:
        design = NETS[name].design()
        expected = (design.multipliers, round(design.bound_cycles), design.estimate().cycles)
        assert tuple(int(figure.replace(",", "")) for figure in figures) == expected, name


def test_architecture_has_every_stream():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    net = st.Network((1, 2, 2), [st.Flatten(), st.Linear(2)])
    members = TrainingPipeline(st.plan(net, multipliers=1).plan).signature.members
    streams = {name: member.flow for name, member in members.items() if member.is_signature}
    rows = re.findall(r"^\| `(\w+)` \| (in|out) \|", page, re.MULTILINE)
    assert dict(rows) == {name: "in" if flow is In else "out" for name, flow in streams.items()}


# -- docs/api.md ----------------------------------------------------------------------------------

RETURNED = {
    "History": "streamtrain.host.results",
    "Step": "streamtrain.host.results",
    "Evaluation": "streamtrain.host.results",
    "Checkpoint": "streamtrain.host.checkpoint",
    "Estimate": "streamtrain.pipeline.schedule",
    "FormatStudy": "streamtrain.explore.formats",
    "Trial": "streamtrain.explore.formats",
    "TensorRange": "streamtrain.explore.ranges",
    "Front": "streamtrain.explore.front",
    "Point": "streamtrain.explore.points",
    "Verification": "streamtrain.simulate",
    "BuildResult": "streamtrain.build",
    "Dataset": "streamtrain.data",
}
"""Classes of the page that are given to the user, and where they are."""

EVERYWHERE = {"to_json", "from_json", "table"}
"""Members that the page describes once for all."""


def api_rows():
    """(heading, signature) of each row: the heading's name, and what the first column says."""
    heading, rows = None, []
    for line in API_PAGE.read_text(encoding="utf-8").splitlines():
        if found := re.match(r"#+ (.*)", line):
            name = re.search(r"`(?:st\.)?([\w.]+)`", found[1])
            heading = name[1] if name else None
        elif found := re.match(r"\| `([^`]+)` \|", line):
            rows.append((heading, found[1]))
    return rows


def name_of(signature):
    return re.match(r"(?:st)?\.?([\w.]+)", signature)[1]


def test_api_has_every_name():
    named = [name_of(signature) for _, signature in api_rows() if signature.startswith("st.")]
    front = [name for name in named if "." not in name]
    assert sorted(front) == sorted(st.__all__)
    data = [name.partition(".")[2] for name in named if name.startswith("data.")]
    assert sorted(data) == sorted(st.data.__all__)


def documented_classes():
    return sorted({heading for heading, signature in api_rows() if signature.startswith(".")})


@pytest.mark.parametrize("name", documented_classes())
def test_api_has_every_member(name):
    cls = find(name)
    named = {
        name_of(signature)
        for heading, signature in api_rows()
        if heading == name and signature.startswith(".")
    }
    members = {member for member in dir(cls) if not member.startswith("_")}
    members |= set(inspect.signature(cls).parameters)
    if name in {"Fixed", "Float"}:
        members -= {"as_shape", "const", "format", "from_bits"}  # what Amaranth asks of a shape
    assert named - EVERYWHERE == members - EVERYWHERE


def find(name):
    if name in RETURNED:
        return getattr(import_module(RETURNED[name]), name)
    thing = st
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


def test_api_signatures_are_those_of_the_code():
    checked = 0
    for heading, signature in api_rows():
        owner = find(heading) if signature.startswith(".") else st
        name, bracket, rest = signature.removeprefix("st").removeprefix(".").partition("(")
        if not bracket:
            continue
        thing = owner
        for part in name.split("."):
            thing = getattr(thing, part)
        if inspect.isclass(owner) and not isinstance(
            inspect.getattr_static(owner, name), classmethod
        ):
            actual = list(inspect.signature(thing).parameters.values())[1:]
        else:
            actual = list(inspect.signature(thing).parameters.values())
        arguments = ast.parse(f"def f({rest}: pass").body[0].args
        shown = {**dict.fromkeys(a.arg for a in [*arguments.args, *arguments.kwonlyargs])}
        first = len(arguments.args) - len(arguments.defaults)
        shown.update(zip([a.arg for a in arguments.args[first:]], arguments.defaults, strict=True))
        shown.update(zip([a.arg for a in arguments.kwonlyargs], arguments.kw_defaults, strict=True))
        variable = {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
        assert list(shown) == [p.name for p in actual if p.kind not in variable], signature
        for parameter in actual:
            if parameter.kind in variable:
                continue
            default = shown[parameter.name]
            assert (default is None) == (parameter.default is inspect.Parameter.empty), signature
            if isinstance(default, ast.Constant) and default.value is not ...:
                assert default.value == parameter.default, signature
        checked += 1
    assert checked > 20


# -- docs/adding-a-layer.md -----------------------------------------------------------------------


def test_layer_of_the_walk_through_trains_bit_for_bit(tmp_path):
    for part in ("src", "boards"):
        shutil.copytree(
            ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    program = []
    for block in blocks(LAYER_PAGE):
        if block.language == "diff":
            change(tmp_path / block.word, block.text)
        elif block.language == "python" and block.word.endswith(".py"):
            assert not (tmp_path / block.word).exists()
            (tmp_path / block.word).write_text(block.text, encoding="utf-8")
        elif block.language == "python" and block.word == "copy":
            program.append(block.text)
    assert program
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(program)],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "bit-exact" in done.stdout


def change(path, diff):
    """Apply the hunks of a diff, which are separated by lines that begin with @@."""
    text = path.read_text(encoding="utf-8")
    for hunk in re.split(r"^@@.*\n", diff, flags=re.MULTILINE):
        rows = hunk.splitlines()
        before = "".join(f"{row[1:]}\n" for row in rows if not row.startswith("+"))
        after = "".join(f"{row[1:]}\n" for row in rows if not row.startswith("-"))
        assert before.strip(), f"{path.name}: a hunk has no context"
        assert text.count(before) == 1, f"{path.name} has not, or more than once:\n{before}"
        text = text.replace(before, after)
    path.write_text(text, encoding="utf-8")
