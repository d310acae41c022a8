"""The texts in ``tests/core/programs``, which the core's own tests run, are what the cells say."""

from tests.core.make_programs import FOLDER, texts


def test_the_programs_of_the_cores_tests_are_what_cells_encode_to() -> None:
    """If not: ``python tests/core/make_programs.py``, and look at what changed."""
    committed = {path.stem: path.read_text() for path in FOLDER.glob("*.txt")}
    assert committed == texts()
