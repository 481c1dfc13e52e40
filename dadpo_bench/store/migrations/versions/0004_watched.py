"""A run is watched from elsewhere: what it is at is kept. Responses keep the seconds they took."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "activities",
        sa.Column("run_id", sa.Integer(), sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("position", sa.Integer(), primary_key=True),
        sa.Column("label", sa.String(300).with_variant(sa.Text(), "postgresql"), nullable=False),
        sa.Column("unit", sa.String(40), nullable=False),
        sa.Column("behind", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("began", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended", sa.Boolean(), nullable=False),
        sa.Column("derivation_key", sa.String(32), nullable=True),
    )
    op.add_column("responses", sa.Column("seconds", sa.Double(), nullable=True))
