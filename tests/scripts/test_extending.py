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


def test_a_new_resource_passes_at_once_and_fields_a_job_a_setting_and_a_page_are_added(copy: Copy) -> None:
    """One after the other in one copy: types and tests take a minute each time."""
    assert copy.run("scripts.new_resource", "note", "--scope", "notes").count("Written: ") == 6
    assert "none of Python's own" in copy.shell(".venv/bin/python -m scripts.new_resource class 2>&1 || true")
    archive = 'from app.jobs.export import parts; print(*parts()["note"].schema.model_fields)'
    assert copy.shell(f".venv/bin/python -c '{archive}'").split() == ["text", "id", "created_at"]
    copy.check_form()
    files: list[str | Path] = [newest_migration(copy), "app", "tests/resources/test_notes.py"]
    copy.patch(recipe("Add a field to it", "diff"))
    assert "migrations/versions" in copy.run("scripts.migrate", "notes have a color")
    files += [newest_migration(copy), "tests/jobs/test_census.py", "tests/pages/test_help.py"]
    for heading in ("Add a field to operations", "Add a job kind", "Add a setting", "Add a page"):
        copy.patch(recipe(heading, "diff"))
    copy.run("scripts.migrate", "notes on operations, and census jobs")
    copy.check(*files, newest_migration(copy))
    others = ["tests/ledger/test_operations_csv.py", "tests/pages/test_texts.py"]
    copy.test(*(str(file) for file in files if str(file).startswith("tests/")), *others, *OF_ALL)
    assert "already give" in copy.run("scripts.migrate", "nothing more")


def test_heroes_tasks_and_the_chat_are_removed_as_the_guide_says(copy: Copy) -> None:
    copy.shell(recipe("Remove what you do not need", "sh"))
    assert not list(copy.root.glob("migrations/versions/*_chat.py"))
    assert "already give" in copy.run("scripts.migrate", "nothing is left over")
    copy.check()
    copy.run("importlinter.cli", "lint", "--no-cache")
    copy.test("tests/pages/test_texts.py", "tests/resources", "tests/oauth2/test_token_endpoint.py", *OF_ALL)


def test_the_project_is_renamed_as_the_guide_says(copy: Copy) -> None:
    copy.shell(recipe("Rename the project", "sh"))
    others = " ".join(f"--exclude-dir='{name}'" for name in (".venv", ".*_cache", "__pycache__", "swagger"))
    assert copy.shell(f"grep -rIil {others} muster . || true") == ""
    copy.run("ruff", "check", "--quiet", ".")
    copy.test("tests/pages/test_pages.py", "tests/oauth2/test_token_endpoint.py", "tests/scripts/test_settings.py")


def newest_migration(copy: Copy) -> Path:
    return max((copy.root / "migrations" / "versions").glob("*.py"))
