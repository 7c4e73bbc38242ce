"""docs/extending.md, carried out in a copy of the project: what it says is all that has to be done."""

from pathlib import Path

import pytest

from tests.support.copies import Copy, recipe

pytestmark = [pytest.mark.one_database, pytest.mark.slow]

ADDED = ("tests/resources/test_notes.py", "tests/jobs/test_census.py", "tests/pages/test_help.py")
# What looks at every route, model and migration, and not only at the new ones.
OF_ALL = ("tests/http/test_route_table.py", "tests/http/test_openapi.py", "tests/database/test_migrations.py")
# What a field, a removed part or another name reaches.
TOUCHED = (
    "tests/ledger/test_operations_csv.py",
    "tests/oauth2/test_token_endpoint.py",
    "tests/pages/test_pages.py",
    "tests/pages/test_texts.py",
    "tests/resources",
    "tests/scripts/test_settings.py",
)
# What no recipe reaches, and takes seconds.
NOT_THESE = ("another_site", "invalid_utf8", "others_write", "slow_reader")


def test_the_recipes_are_enough(tmp_path: Path) -> None:
    """One after the other in one copy, as somebody who starts from it goes on: types and tests are checked once."""
    copy = Copy(tmp_path / "muster")
    add_a_resource_fields_a_job_a_setting_and_a_page(copy)
    remove_heroes_tasks_and_the_chat(copy)
    assert "already give" in copy.run("scripts.migrate", "nothing is missing or left over")
    copy.check()
    copy.run("importlinter.cli", "lint", "--no-cache")
    rename(copy)
    copy.test(*ADDED, *OF_ALL, *TOUCHED, "-k", " and ".join(f"not {name}" for name in NOT_THESE))


def add_a_resource_fields_a_job_a_setting_and_a_page(copy: Copy) -> None:
    assert copy.run("scripts.new_resource", "note", "--scope", "notes").count("Written: ") == 6
    assert "none of Python's own" in copy.shell(".venv/bin/python -m scripts.new_resource class 2>&1 || true")
    archive = 'from app.jobs.export import parts; print(*parts()["note"].schema.model_fields)'
    assert copy.shell(f".venv/bin/python -c '{archive}'").split() == ["text", "id", "created_at"]
    copy.check_form()
    copy.patch(recipe("Add a field to it", "diff"))
    assert "migrations/versions" in copy.run("scripts.migrate", "notes have a color")
    for heading in ("Add a field to operations", "Add a job kind", "Add a setting", "Add a page"):
        copy.patch(recipe(heading, "diff"))
    copy.run("scripts.migrate", "notes on operations, and census jobs")


def remove_heroes_tasks_and_the_chat(copy: Copy) -> None:
    copy.check_form()
    copy.shell(recipe("Remove what you do not need", "sh"))
    assert not list(copy.root.glob("migrations/versions/*_chat.py"))


def rename(copy: Copy) -> None:
    copy.shell(recipe("Rename the project", "sh"))
    others = " ".join(f"--exclude-dir='{name}'" for name in (".venv", ".*_cache", "__pycache__", "swagger"))
    assert copy.shell(f"grep -rIil {others} muster . || true") == ""
    copy.run("ruff", "check", "--quiet", ".")
