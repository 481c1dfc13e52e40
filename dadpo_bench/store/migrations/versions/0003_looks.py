"""What responses look like is kept beside them: a board of a million verdicts reads no text."""

import json

import sqlalchemy as sa
from alembic import op

from dadpo_bench.scoring.texts import looks

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_CHUNK = 1_000


def upgrade() -> None:
    for name in ("characters", "grams", "repeated"):
        op.add_column("responses", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.add_column("responses", sa.Column("cut", sa.Boolean(), nullable=False, server_default=sa.false()))
    connection = op.get_bind()
    keys = connection.execute(sa.text("SELECT key FROM responses")).scalars().all()
    read = sa.text("SELECT replies FROM responses WHERE key = :key")
    write = sa.text(
        "UPDATE responses SET characters = :characters, grams = :grams, repeated = :repeated, cut = :cut "
        "WHERE key = :key"
    )
    for start in range(0, len(keys), _CHUNK):
        rows = []
        for key in keys[start : start + _CHUNK]:
            stored = connection.execute(read, {"key": key}).scalar_one()
            replies = json.loads(stored) if isinstance(stored, str) else stored
            cut = any(reply["finish"] == "length" for reply in replies)
            rows.append({"key": key, "cut": cut, **looks([reply["text"] for reply in replies])._asdict()})
        connection.execute(write, rows)
