<% code = (upgrades or "") + (downgrades or "") %>\
"""${message[0].upper()}${message[1:].rstrip(".")}.

Before merging: does it lock a large table? (migrations/env.py gives up on a lock after 5 s.) Does it keep every row,
down and up again, on both databases? Does the running version of the code work with the new schema?
"""

% if "sa." in code:
import sqlalchemy as sa
% endif
% if "sqlmodel." in code:
import sqlmodel
% endif
from alembic import op
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
