def pytest_addoption(parser):
    parser.addoption(
        "--update-hashes",
        action="store_true",
        help="write tests/pipeline/reference_hashes.txt anew, after gates were meant to change",
    )
