"""Vivado's text reports, read into the figures that ``summary.json`` has.

Each function takes a file that ``report_utilization``, ``report_timing_summary`` or ``report_power``
wrote, and raises :exc:`ValueError` that names the file and what it lacks.
"""

import re
from pathlib import Path

__all__ = ["read_power", "read_reports", "read_timing", "read_utilization"]

# What rows are called in 7-series and in UltraScale+. A star refers to a footnote.
_ROWS = {
    "dsp": ("DSPs",),
    "bram36": ("Block RAM Tile",),
    "lut": ("Slice LUTs", "CLB LUTs"),
    "ff": ("Slice Registers", "CLB Registers"),
}
_POWER = {
    "total_w": "Total On-Chip Power (W)",
    "dynamic_w": "Dynamic (W)",
    "static_w": "Device Static (W)",
}
_TIMING = {
    "wns_ns": ("WNS(ns)", float),
    "tns_ns": ("TNS(ns)", float),
    "failing_endpoints": ("TNS Failing Endpoints", int),
    "endpoints": ("TNS Total Endpoints", int),
    "whs_ns": ("WHS(ns)", float),
    "ths_ns": ("THS(ns)", float),
    "hold_failing_endpoints": ("THS Failing Endpoints", int),
}


def read_reports(folder):
    """All three reports of a folder, as the parts of a summary.

    Returns a dict of ``resources``, ``timing`` and ``power``: what :func:`read_utilization`,
    :func:`read_timing` and :func:`read_power` return.

    Raises
    ------
    FileNotFoundError, ValueError
        If a report is missing, or cannot be read.
    """
    folder = Path(folder)
    return {
        "resources": read_utilization(folder / "utilization.rpt"),
        "timing": read_timing(folder / "timing_summary.rpt"),
        "power": read_power(folder / "power.rpt"),
    }


def read_utilization(path):
    """What a design takes, by the names of a summary: ``dsp``, ``bram36``, ``lut`` and ``ff``."""
    text, used = _text(path, "report_utilization"), {}
    column = None
    for cells in _table_rows(text):
        if cells[0] == "Site Type":
            column = cells.index("Used") if "Used" in cells else None
        elif column is not None and column < len(cells):
            used.setdefault(cells[0].rstrip("*"), cells[column])
    found = {}
    for name, rows in _ROWS.items():
        row = next((row for row in rows if row in used), None)
        if row is None:
            raise ValueError(f"{path}: there is no row {' or '.join(rows)}")
        found[name] = _number(path, row, used[row])
    return found


def read_timing(path):
    """Slacks, failing endpoints, and what they mean for the clock.

    Returns a dict. ``wns_ns``, ``tns_ns``, ``failing_endpoints``, ``endpoints``, ``whs_ns``,
    ``ths_ns`` and ``hold_failing_endpoints`` are those of the design; ``met`` says whether setup and
    hold are met. ``clock``, ``period_ns``, ``clock_mhz`` and ``fmax_mhz`` are those of the clock with
    most endpoints, which is the core's: the frequency at which its worst path would have no slack.
    """
    text = _text(path, "report_timing_summary")
    (summary,) = _columns(path, text, "Design Timing Summary")[:1] or [None]
    if summary is None:
        raise ValueError(f"{path}: Design Timing Summary is empty")
    found = {}
    for name, (column, kind) in _TIMING.items():
        value = summary.get(column)
        if value is None:
            raise ValueError(f"{path}: Design Timing Summary has no {column}")
        if value == "NA":
            raise ValueError(f"{path}: {column} is NA, as if no clock had a constraint")
        try:
            found[name] = kind(value)
        except ValueError:
            raise ValueError(f"{path}: {column} is no number, but {value!r}") from None

    periods = {row["Clock"]: row for row in _columns(path, text, "Clock Summary")}
    paths = [
        row
        for row in _columns(path, text, "Intra Clock Table")
        if row.get("TNS Total Endpoints", "").isdigit()
    ]
    if not paths:
        raise ValueError(f"{path}: Intra Clock Table has no clock with paths")
    core = max(paths, key=lambda row: int(row["TNS Total Endpoints"]))
    if core["Clock"] not in periods or "Period(ns)" not in periods[core["Clock"]]:
        raise ValueError(f"{path}: Clock Summary has no period of {core['Clock']}")
    period = _number(path, "Period(ns)", periods[core["Clock"]]["Period(ns)"])
    slack = _number(path, "WNS(ns)", core["WNS(ns)"])
    return found | {
        "met": found["failing_endpoints"] == 0 and found["hold_failing_endpoints"] == 0,
        "clock": core["Clock"],
        "period_ns": period,
        "clock_mhz": 1000 / period,
        "fmax_mhz": 1000 / (period - slack),
    }


def read_power(path):
    """Vivado's estimate in watts, ``total_w``, ``dynamic_w`` and ``static_w``, and its ``confidence``."""
    text = _text(path, "report_power")
    rows = {cells[0]: cells[1] for cells in _table_rows(text) if len(cells) == 2}
    for row in (*_POWER.values(), "Confidence Level"):
        if row not in rows:
            raise ValueError(f"{path}: there is no row {row}")
    found = {name: _number(path, row, rows[row].split(" ")[0]) for name, row in _POWER.items()}
    return {**found, "confidence": rows["Confidence Level"]}


def _text(path, command):
    """The report's text, if ``command`` wrote it."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no report {path}")
    text = path.read_text(encoding="utf-8", errors="replace")
    if not re.search(rf"^\| Command +: {command}\b", text, re.MULTILINE):
        raise ValueError(f"{path} is no report of {command}: its head does not name the command")
    return text


def _table_rows(text):
    """Cells of each row of a report's framed tables."""
    for line in text.splitlines():
        if line.startswith("|") and line.rstrip().endswith("|"):
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]


def _columns(path, text, title):
    """Rows of a table of the timing summary, as dicts by column.

    Such a table has no frame: columns begin where the dashes below their headings do, and are right
    or left aligned within two of these.
    """
    found = re.search(
        rf"^\| {title}\n\| -+\n-+\n\n*(.*?)(?=\n\n|\Z)", text, re.MULTILINE | re.DOTALL
    )
    lines = found[1].splitlines() if found else []
    if len(lines) < 2 or not re.fullmatch(r"[ -]+", lines[1]):
        raise ValueError(f"{path}: there is no table {title}")
    spans = [match.span() for match in re.finditer(r"-+", lines[1])]
    heads = [lines[0][start:end].strip() for start, end in spans]
    rows = []
    for line in lines[2:]:
        cells = {}
        for word in re.finditer(r"\{[^}]*\}|\S+", line):
            at = min(range(len(spans)), key=lambda i, w=word: _distance(spans[i], w.span()))
            cells[heads[at]] = word[0]
        rows.append(cells)
    return rows


def _distance(one, other):
    """How far two spans are from each other; less than 0 if they overlap."""
    return max(one[0], other[0]) - min(one[1], other[1])


def _number(path, row, text):
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{path}: {row} is no number, but {text!r}") from None
    return int(value) if value.is_integer() and "." not in text else value
