from pathlib import Path

from streamtrain.network import support_table

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_the_page_has_the_table():
    header, rows = support_table()
    lines = [header, ["---"] * len(header), *rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines).replace(
        "| --- | --- | --- |", "|---|---|---|"
    )
    page = PAGE.read_text(encoding="utf-8")
    shown = page.partition("<!-- support -->\n")[2].partition("\n<!-- /support -->")[0]
    assert shown == text, f"docs/models.md should have\n{text}"
