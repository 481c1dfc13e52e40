"""Alembic's entry: migrate over the connection that `open_store` holds."""

from alembic import context

from dadpo_bench.store.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
