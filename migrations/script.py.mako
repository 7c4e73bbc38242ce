"""${message}

Revision ${up_revision}, after ${down_revision | comma,n}. Created ${create_date}.

Before merging: does it lock a large table? (migrations/env.py gives up on a lock after 5 s.) Does it keep every row,
down and up again, on both databases? Does the running version of the code work with the new schema?
"""

import sqlalchemy as sa
import sqlmodel
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
