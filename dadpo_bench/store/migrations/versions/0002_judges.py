"""What judges are shown and say beyond a verdict: references, checklists, graded preferences, ratings' own words."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    text, number = sa.String(length=200).with_variant(sa.Text(), "postgresql"), sa.Integer()
    for name in ("reference", "checklist"):
        op.add_column("prompts", sa.Column(name, sa.JSON(), nullable=False, server_default="[]"))
    for table in ("verdicts", "ratings"):
        op.add_column(table, sa.Column("fingerprint", text, nullable=False, server_default=""))
        op.add_column(table, sa.Column("answer_tokens", number, nullable=False, server_default="0"))
    op.add_column("verdicts", sa.Column("preference", sa.Double(), nullable=True))
    op.add_column("ratings", sa.Column("raw", sa.Text(), nullable=False, server_default=""))
    op.add_column("ratings", sa.Column("resolved_model", text, nullable=False, server_default=""))
    op.add_column("ratings", sa.Column("tokens", number, nullable=False, server_default="0"))
    op.add_column("ratings", sa.Column("seconds", sa.Double(), nullable=False, server_default="0"))
    op.add_column("ratings", sa.Column("asked", sa.DateTime(timezone=True), nullable=True))
    op.add_column("ratings", sa.Column("by_turn", sa.JSON(), nullable=False, server_default="[]"))
    op.create_table(
        "judge_evaluations",
        sa.Column("judge_key", sa.String(length=32), nullable=False),
        sa.Column("set_key", sa.String(length=32), nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("made", sa.DateTime(timezone=True), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["judge_key"], ["judges.key"]),
        sa.PrimaryKeyConstraint("judge_key", "set_key"),
    )
