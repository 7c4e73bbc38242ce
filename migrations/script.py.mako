"""${message}

Revision: ${up_revision}, after ${down_revision | comma,n}. Made ${create_date}.

Before it lands: does it hold a lock on a large table? (migrations/env.py gives up on a lock after 5 s.) Does it keep
every row, down and up again, on both databases? Would the running version of the code work on the new schema?
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
