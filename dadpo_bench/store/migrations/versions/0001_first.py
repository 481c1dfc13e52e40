"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ANY = sa.String(length=200).with_variant(sa.Text(), "postgresql")
"""SQLite holds nobody to a length."""


def upgrade() -> None:
    op.create_table(
        "divergences",
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("nats", sa.Double(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "judges",
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("name", _ANY, nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("proxy", sa.Boolean(), nullable=False),
        sa.Column("identity", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "metrics",
        sa.Column("derivation_key", sa.String(length=32), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("derivation_key", "step"),
    )
    op.create_table(
        "models",
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("name", _ANY, nullable=False),
        sa.Column("parameters", sa.Integer(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "prompts",
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("turns", sa.JSON(), nullable=False),
        sa.Column("system", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "protocols",
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("name", _ANY, nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "signals",
        sa.Column("model_key", sa.String(length=32), nullable=False),
        sa.Column("tokens_key", sa.String(length=32), nullable=False),
        sa.Column("precision", sa.String(length=40), nullable=False),
        sa.Column("scorer_version", sa.Integer(), nullable=False),
        sa.Column("total", sa.Double(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("model_key", "tokens_key", "precision", "scorer_version"),
    )
    op.create_table(
        "tasks",
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("name", _ANY, nullable=False),
        sa.Column("domain", sa.String(length=8), nullable=False),
        sa.Column("split", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "contestants",
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("protocol_key", sa.String(length=32), nullable=False),
        sa.Column("name", _ANY, nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=True),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("model_key", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["protocol_key"],
            ["protocols.key"],
        ),
        sa.PrimaryKeyConstraint("key"),
    )
    with op.batch_alter_table("contestants", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_contestants_protocol_key"), ["protocol_key"], unique=False)

    op.create_table(
        "derivations",
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("model_key", sa.String(length=32), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_key"],
            ["models.key"],
        ),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "responses",
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("batch_key", sa.String(length=32), nullable=False),
        sa.Column("model_key", sa.String(length=32), nullable=False),
        sa.Column("prompt_key", sa.String(length=32), nullable=False),
        sa.Column("sampling", sa.JSON(), nullable=False),
        sa.Column("replies", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["prompt_key"],
            ["prompts.key"],
        ),
        sa.PrimaryKeyConstraint("key"),
    )
    with op.batch_alter_table("responses", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_responses_batch_key"), ["batch_key"], unique=False)

    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("protocol_key", sa.String(length=32), nullable=False),
        sa.Column("started", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished", sa.DateTime(timezone=True), nullable=True),
        sa.Column("arguments", sa.JSON(), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("environment", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["protocol_key"],
            ["protocols.key"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "scores",
        sa.Column("protocol_key", sa.String(length=32), nullable=False),
        sa.Column("judge_key", sa.String(length=32), nullable=False),
        sa.Column("task_key", sa.String(length=32), nullable=False),
        sa.Column("baseline", _ANY, nullable=False),
        sa.Column("contestant", _ANY, nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["judge_key"],
            ["judges.key"],
        ),
        sa.ForeignKeyConstraint(
            ["protocol_key"],
            ["protocols.key"],
        ),
        sa.ForeignKeyConstraint(
            ["task_key"],
            ["tasks.key"],
        ),
        sa.PrimaryKeyConstraint("protocol_key", "judge_key", "task_key", "baseline", "contestant"),
    )
    op.create_table(
        "task_prompts",
        sa.Column("task_key", sa.String(length=32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("prompt_key", sa.String(length=32), nullable=False),
        sa.Column("prompt_id", _ANY, nullable=False),
        sa.Column("category", sa.String(length=80).with_variant(sa.Text(), "postgresql"), nullable=False),
        sa.ForeignKeyConstraint(
            ["prompt_key"],
            ["prompts.key"],
        ),
        sa.ForeignKeyConstraint(
            ["task_key"],
            ["tasks.key"],
        ),
        sa.PrimaryKeyConstraint("task_key", "position"),
    )
    op.create_table(
        "answers",
        sa.Column("contestant_key", sa.String(length=32), nullable=False),
        sa.Column("task_key", sa.String(length=32), nullable=False),
        sa.Column("prompt_key", sa.String(length=32), nullable=False),
        sa.Column("response_key", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["contestant_key"],
            ["contestants.key"],
        ),
        sa.ForeignKeyConstraint(
            ["prompt_key"],
            ["prompts.key"],
        ),
        sa.ForeignKeyConstraint(
            ["response_key"],
            ["responses.key"],
        ),
        sa.ForeignKeyConstraint(
            ["task_key"],
            ["tasks.key"],
        ),
        sa.PrimaryKeyConstraint("contestant_key", "task_key", "prompt_key"),
    )
    with op.batch_alter_table("answers", schema=None) as batch_op:
        batch_op.create_index("answers_by_response", ["response_key"], unique=False)

    op.create_table(
        "contestant_divergences",
        sa.Column("contestant_key", sa.String(length=32), nullable=False),
        sa.Column("task_key", sa.String(length=32), nullable=False),
        sa.Column("from_teacher", sa.Double(), nullable=False),
        sa.Column("to_teacher", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["contestant_key"],
            ["contestants.key"],
        ),
        sa.ForeignKeyConstraint(
            ["task_key"],
            ["tasks.key"],
        ),
        sa.PrimaryKeyConstraint("contestant_key", "task_key"),
    )
    op.create_table(
        "ratings",
        sa.Column("judge_key", sa.String(length=32), nullable=False),
        sa.Column("response_key", sa.String(length=32), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("reason", _ANY, nullable=False),
        sa.ForeignKeyConstraint(
            ["judge_key"],
            ["judges.key"],
        ),
        sa.ForeignKeyConstraint(
            ["response_key"],
            ["responses.key"],
        ),
        sa.PrimaryKeyConstraint("judge_key", "response_key"),
    )
    op.create_table(
        "stage_times",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("stage", sa.String(length=80), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("peak_bytes", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["runs.id"],
        ),
        sa.PrimaryKeyConstraint("run_id", "position"),
    )
    op.create_table(
        "verdicts",
        sa.Column("judge_key", sa.String(length=32), nullable=False),
        sa.Column("contestant_response", sa.String(length=32), nullable=False),
        sa.Column("baseline_response", sa.String(length=32), nullable=False),
        sa.Column("order", sa.String(length=2), nullable=False),
        sa.Column("outcome", sa.String(length=10), nullable=False),
        sa.Column("reason", _ANY, nullable=False),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.Column("resolved_model", _ANY, nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("asked", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["baseline_response"],
            ["responses.key"],
        ),
        sa.ForeignKeyConstraint(
            ["contestant_response"],
            ["responses.key"],
        ),
        sa.ForeignKeyConstraint(
            ["judge_key"],
            ["judges.key"],
        ),
        sa.PrimaryKeyConstraint("judge_key", "contestant_response", "baseline_response", "order"),
    )


def downgrade() -> None:
    op.drop_table("verdicts")
    op.drop_table("stage_times")
    op.drop_table("ratings")
    op.drop_table("contestant_divergences")
    with op.batch_alter_table("answers", schema=None) as batch_op:
        batch_op.drop_index("answers_by_response")

    op.drop_table("answers")
    op.drop_table("task_prompts")
    op.drop_table("scores")
    op.drop_table("runs")
    with op.batch_alter_table("responses", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_responses_batch_key"))

    op.drop_table("responses")
    op.drop_table("derivations")
    with op.batch_alter_table("contestants", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_contestants_protocol_key"))

    op.drop_table("contestants")
    op.drop_table("tasks")
    op.drop_table("signals")
    op.drop_table("protocols")
    op.drop_table("prompts")
    op.drop_table("models")
    op.drop_table("metrics")
    op.drop_table("judges")
    op.drop_table("divergences")
