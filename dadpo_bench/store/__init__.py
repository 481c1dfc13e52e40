"""The store: SQLAlchemy over SQLite or a server, the single source of truth of every stage."""

from dadpo_bench.store.connection import Store, open_store, publish, upgrade
from dadpo_bench.store.rows import insert_missing, judged_boards, known_responses, save_task, scored_boards

__all__ = [
    "Store",
    "insert_missing",
    "judged_boards",
    "known_responses",
    "open_store",
    "publish",
    "save_task",
    "scored_boards",
    "upgrade",
]
