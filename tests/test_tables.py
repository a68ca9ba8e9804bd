from streamtrain.tables import html_table, text_table

HEADER = ("layer", "weights", "share")
ROWS = [("conv1", 12345, 0.5), ("<x>", "", 1234.5)]


def test_text_aligns_numbers_to_the_right():
    assert text_table(HEADER, ROWS).splitlines() == [
        "layer  weights  share",
        "-----  -------  -----",
        "conv1   12,345    0.5",
        "<x>             1,234",
    ]


def test_html_escapes_text():
    html = html_table(HEADER, ROWS)
    assert html.count("<tr>") == 3
    assert '<td style="text-align:right">12,345</td>' in html
    assert '<td style="text-align:left">&lt;x&gt;</td>' in html


def test_a_table_may_be_empty():
    assert text_table(("a", "b"), []).splitlines() == ["a  b", "-  -"]
    assert html_table(("a",), []).endswith("<tbody></tbody></table>")


def test_halves_are_exact():
    rows = [(139.5,), (12.0,), (0.125,), (999.5,), (53.21,)]
    assert [line.strip() for line in text_table(("a",), rows).splitlines()[2:]] == [
        "139.5", "12", "0.125", "999.5", "53.2",
    ]  # fmt: skip
