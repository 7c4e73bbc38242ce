"""scripts/new_resource and scripts/migrate, in copies of the project, apart from the recipes of docs/extending.md."""

from pathlib import Path

import pytest

from scripts.new_resource import parse
from tests.support.copies import Copy

pytestmark = [pytest.mark.one_database, pytest.mark.slow]

# Ever longer, so that lists that fit on one line no longer do. The second is a keyword of SQL.
NAMES = ("note", "order", "invoice", "reminder", "acknowledgement")
REQUIRED = "    rating: int = Field(default=3)\n"
WITH_DEFAULT = '    rating: int = Field(default=3, sa_column_kwargs={"server_default": "3"})\n'


def test_many_resources_can_be_added_one_after_the_other(tmp_path: Path) -> None:
    copy = Copy(tmp_path / "muster")
    before = sources(copy)
    for name in NAMES:
        assert copy.run("scripts.new_resource", name).count("Written: ") == 6
    copy.check_form()
    added = sources(copy) - before
    assert len(added) == 4 * len(NAMES)
    (tmp_path / "mine").touch()
    assert {path.stat().st_mode for path in added} == {(tmp_path / "mine").stat().st_mode}
    copy.test("tests/resources/test_orders.py", "tests/resources/test_acknowledgements.py")


def test_a_column_that_existing_rows_have_no_value_for_takes_its_default_from_the_model(tmp_path: Path) -> None:
    copy = Copy(tmp_path / "muster")
    model, before = copy.root / "app" / "models" / "task.py", sources(copy)
    old = "    title: Title = Field(max_length=200)\n"
    text = model.read_text()
    assert text.count(old) == 1
    model.write_text(text.replace(old, old + REQUIRED))
    said = copy.shell(".venv/bin/python -m scripts.migrate 'ratings' 2>&1")
    [written] = sources(copy) - before
    assert said.splitlines() == [
        f"Written: {written.relative_to(copy.root)}",
        "muster: existing rows need a value for task.rating: give the column"
        ' sa_column_kwargs={"server_default": …}, delete this migration and run this again',
    ]
    written.unlink()
    model.write_text(text.replace(old, old + WITH_DEFAULT))
    assert "muster: " not in copy.shell(".venv/bin/python -m scripts.migrate 'ratings' 2>&1")
    copy.run("scripts.check_migrations")


def test_nothing_is_written_if_a_place_to_edit_is_gone(tmp_path: Path) -> None:
    copy = Copy(tmp_path / "muster")
    copy.shell("sed -i.orig 's/^    USER: .*/    **{USER: []},/' app/core/scopes.py")
    before = {path: path.read_bytes() for path in sources(copy)}
    said = copy.shell("! .venv/bin/python -m scripts.new_resource note 2>&1")
    assert said == (
        "muster: app/core/scopes.py no longer has 'USER: [', so nothing is written:"
        " docs/extending.md says how to add a resource by hand\n"
    )
    assert {path: path.read_bytes() for path in sources(copy)} == before


def sources(copy: Copy) -> set[Path]:
    return {path for folder in ("app", "migrations", "tests") for path in (copy.root / folder).rglob("*.py")}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["class"], "class"),  # a word of Python
        (["filter"], "filter"),  # a function of Python
        (["session"], "session"),  # a parameter in the router
        (["index"], "index"),  # a class that the model imports
        (["setting"], "settings"),  # a variable in app/main.py
        (["identity", "--plural", "identities"], "identity"),  # a table
        (["doc"], "docs"),  # an address
    ],
)
def test_a_name_with_another_meaning_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    monkeypatch.setattr("sys.argv", ["new_resource", *arguments])
    with pytest.raises(SystemExit):
        parse()
    assert f"muster: {word}: " in capsys.readouterr().err
