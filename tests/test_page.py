from streamtrain.page import page


def test_page_has_its_parts_in_order():
    text = page("<a>", ["<p>one</p>", "<p>two</p>"], style=".x {}", script="run();\n")
    assert text.startswith("<!DOCTYPE html>\n")
    assert "<title>&lt;a&gt;</title>" in text
    places = [
        text.index(part) for part in (".x {}</style>", "<p>one", "<p>two", "run();\n</script>")
    ]
    assert places == sorted(places)
    assert "prefers-color-scheme: dark" in text


def test_a_page_without_script_has_none():
    assert "<script" not in page("a", [])
