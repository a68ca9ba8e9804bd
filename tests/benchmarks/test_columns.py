from columns import columns


def test_aligns_the_first_column_to_the_left():
    text = columns(("net", "cycles\nsimulated"), [("M", "1,234"), ("larger", "5")])
    assert text.splitlines() == [
        "net        cycles",
        "        simulated",
        "------  ---------",
        "M           1,234",
        "larger          5",
    ]
