"""docs/extending.md, carried out in a copy of the project: what it says is all that has to be done."""

from pathlib import Path

import pytest

from tests.support.copies import Copy, recipe
from tests.support.servers import free_port

pytestmark = [pytest.mark.one_database, pytest.mark.slow]

ADDED = ("tests/resources/test_notes.py", "tests/jobs/test_census.py", "tests/pages/test_help.py")
ROUTES, MIGRATIONS = "tests/http/test_route_table.py", "tests/database/test_migrations.py"
# The tests that check every route, model and migration, and not only the new ones.
OF_ALL = (ROUTES, "tests/http/test_openapi.py", MIGRATIONS)
# The tests that a field, a removed part or another name affects.
TOKENS, SETTINGS = "tests/oauth2/test_token_endpoint.py", "tests/core/test_settings.py"
TOUCHED = (
    "tests/ledger/test_operations_csv.py",
    f"{TOKENS}::test_a_password_grant_returns_a_pair_of_tokens",
    f"{TOKENS}::test_a_sign_in_gets_the_scopes_it_asked_for_as_far_as_its_role_has_them",
    f"{TOKENS}::test_a_token_of_one_kind_is_not_accepted_as_another",
    "tests/pages/test_pages.py",
    "tests/pages/test_texts.py",
    "tests/resources",
    f"{SETTINGS}::test_the_documentation_and_the_example_list_every_setting_and_nothing_else",
    f"{SETTINGS}::test_the_documentation_gives_each_default_as_it_is",
    f"{SETTINGS}::test_the_example_can_be_used_as_it_is",
    f"{SETTINGS}::test_production_starts_once_all_is_set",
)
# The tests that no recipe affects and that take seconds.
NOT_THESE = (
    "another_site",
    "others_write",
    "slow_reader",
    "does_not_take",
    "public_route",
    "condition_of_a_check",
    "each_step",
)
ONE_SCOPE = "not one_scope or one_scope and notes"
ARCHIVED = '''"""The archive of everything has the rows of a resource that was added."""

from app.jobs.export import exported_lists


def test_the_archive_has_notes_as_the_api_shows_them() -> None:
    fields = ["text", "color", "due_on", "link", "is_pinned", "id", "created_at"]
    assert list(exported_lists()["note"].schema.model_fields) == fields
'''


def test_the_recipes_are_enough(tmp_path: Path) -> None:
    """One after the other in one copy, as in a project that starts from it: types and tests are checked once."""
    copy = Copy(tmp_path / "muster")
    add_a_resource_fields_a_job_a_setting_and_a_page(copy)
    remove_heroes_tasks_and_the_chat(copy)
    assert "already match" in copy.run("scripts.migrate", "nothing is missing or left over")
    copy.check()
    copy.run("importlinter.cli", "lint", "--no-cache")
    rename(copy)
    mine, its = free_port(), "from tests.support.servers import free_port as port; print(*(port() for _ in range(50)))"
    assert str(mine) not in copy.shell(f".venv/bin/python -c '{its}'").split()
    # The copy's quick lane leaves out none of what looks at every route and migration.
    copy.shell(f"sed -i.orig '/^@pytest.mark.slow$/d' {ROUTES} {MIGRATIONS}")
    which = " and ".join([f"({ONE_SCOPE})", *(f"not {name}" for name in NOT_THESE)])
    copy.test(*ADDED, "tests/jobs/test_archived_notes.py", *OF_ALL, *TOUCHED, "-k", which)


def add_a_resource_fields_a_job_a_setting_and_a_page(copy: Copy) -> None:
    assert copy.run("scripts.new_resource", "note", "--scope", "notes").count("Written: ") == 6
    copy.check_form()
    for heading in ("Add a field to it", "Add a field to operations", "Add a job kind", "Add a setting", "Add a page"):
        copy.patch(recipe(heading, "diff"))
    (copy.root / "tests" / "jobs" / "test_archived_notes.py").write_text(ARCHIVED)
    assert "migrations/versions" in copy.run("scripts.migrate", "notes have a color, so have operations, census jobs")


def remove_heroes_tasks_and_the_chat(copy: Copy) -> None:
    copy.check_form()
    copy.shell(recipe("Remove what you do not need", "sh"))
    assert not list(copy.root.glob("migrations/versions/*_chat.py"))


def rename(copy: Copy) -> None:
    copy.shell(recipe("Rename the project", "sh"))
    others = " ".join(f"--exclude-dir='{name}'" for name in (".venv", ".*_cache", "__pycache__", "swagger"))
    assert copy.shell(f"grep -rIil {others} muster . || true") == ""
    copy.run("ruff", "check", "--quiet", ".")
