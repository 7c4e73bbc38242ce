"""docs/extending.md, carried out in copies of the project: what it says is all that has to be done."""

from pathlib import Path

import pytest

from tests.support.copies import Copy, recipe

pytestmark = [pytest.mark.one_database, pytest.mark.slow]

# What looks at every route, model and migration, and not only at the new ones.
OF_ALL = ("tests/http/test_route_table.py", "tests/http/test_openapi.py", "tests/database/test_migrations.py")


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path / "muster")


def test_a_new_resource_passes_at_once_and_takes_another_field(copy: Copy) -> None:
    copy.run("scripts.new_resource", "note", "--scope", "notes")
    notes = ["app/models/note.py", "app/routers/notes.py", "tests/resources/test_notes.py"]
    copy.check(*notes, newest_migration(copy))
    copy.patch(recipe("Add a field to it", "diff"))
    assert "migrations/versions" in copy.run("scripts.migrate", "notes have a color")
    copy.check(*notes, newest_migration(copy))
    copy.test("tests/resources/test_notes.py", *OF_ALL)
    assert "already give" in copy.run("scripts.migrate", "nothing more")


def newest_migration(copy: Copy) -> Path:
    return max((copy.root / "migrations" / "versions").glob("*.py"))
