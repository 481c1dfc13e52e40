"""`judging.py STORE URL COUNT`: for each line on stdin a process that judges what is owed; prints its id, then its end.

They are forked from here, as those of `dying.py`. A process ends with 130 where Ctrl-C stopped it.
"""

import os
import sys
from typing import Any

from dadpo_bench.engine import LocalEngine
from dadpo_bench.judging.comparisons import Match, ask, note_judge
from dadpo_bench.progress import silent
from dadpo_bench.stages.bench import Bench
from dadpo_bench.stages.responses import Stored
from dadpo_bench.store import insert_missing, open_store, schema
from dadpo_bench.store.rows import save_prompts
from dadpo_bench.types import JudgeContext, Prompt, Reply, Response
from judges.chat import Chat
from judges.entries import chat
from tests.judges.configs import chat_config

CONCURRENCY = 8


def matches(count: int) -> list[Match]:
    """Two responses to each of so many prompts."""
    found = []
    for n in range(count):
        prompt = Prompt(id=f"q{n}", turns=(f"Question {n}?",))
        ours, theirs = (
            Stored(f"{side}{n}", Response(prompt=prompt, replies=(Reply(text=f"{side} says {n}"),)))
            for side in ("ours", "theirs")
        )
        found.append((ours, theirs))
    return found


def judge_all(store: str, url: str | list[str], count: int, **settings: Any) -> None:
    """Have all matches judged that are not yet, both orders."""
    bench = Bench(open_store(store), LocalEngine(), silent())
    wanted = matches(count)
    with bench.store.write() as session:
        save_prompts(session, [ours.response.prompt for ours, _ in wanted])
        insert_missing(
            session,
            schema.Response,
            (
                {
                    "key": s.key,
                    "batch_key": "b",
                    "model_key": "m",
                    "prompt_key": s.response.prompt.key,
                    "sampling": {},
                    "replies": [reply.model_dump(mode="json") for reply in s.response.replies],
                }
                for match in wanted
                for s in match
            ),
        )
    config = chat_config(
        **{"model": "judge", "base_url": url, "concurrency": CONCURRENCY, "backoff_seconds": 0, **settings}
    )
    judge = note_judge(bench, "chat:judge", chat, Chat(config, JudgeContext(lambda: None, None)))  # type: ignore[arg-type, return-value]
    ask(bench, judge, wanted, "judge")
    bench.store.close()


def main(store: str, url: str, count: str) -> None:
    """Serve stdin."""
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            try:
                judge_all(store, url, int(count))
            except KeyboardInterrupt:
                os._exit(130)
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
