"""Several equal servers: who is asked next, who is left out and for how long, and what a dead one costs."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.types import JudgeContext, Outcome
from judges.backends.asking import PATIENCE
from judges.backends.pool import LONGEST_PAUSE, Fault, Pool, Server
from judges.backends.window import Window
from judges.chat import Chat
from tests.judges.configs import chat_config, comparison, judge_of
from tests.judges.scripted_server import Act, fails, says, serving
from tests.judges.test_window import Clock

# --- who is asked next ---


def pool(count: int, most: int = 4) -> tuple[Pool, Clock]:
    clock = Clock()
    return Pool([Server(f"http://{n}", str(n), Window(most, clock), clock) for n in range(count)]), clock


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def status(code: int, **headers: str) -> openai.APIStatusError:
    request = httpx2.Request("POST", "http://127.0.0.1/")
    return openai.APIStatusError("no", response=httpx2.Response(code, headers=headers, request=request), body=None)


def lost() -> openai.APIConnectionError:
    return openai.APIConnectionError(request=httpx2.Request("POST", "http://127.0.0.1/"))


async def fail(pool: Pool, error: Exception, failed: Server | None = None) -> Server:
    with pytest.raises(Fault) as caught:
        async with pool.place(failed):
            raise error
    return caught.value.server


async def who(pool: Pool, failed: Server | None = None) -> str:
    async with pool.place(failed) as server:
        return server.name


async def hold(pool: Pool, count: int) -> list[AbstractAsyncContextManager[Server]]:
    places = [pool.place() for _ in range(count)]
    for place in places:
        await place.__aenter__()
    return places


async def leave(*places: AbstractAsyncContextManager[Server]) -> None:
    for place in places:
        await place.__aexit__(None, None, None)


def test_the_least_busy_server_is_asked_by_what_it_may_hold() -> None:
    async def work() -> None:
        servers, _ = pool(2, most=4)
        narrow, wide = servers.servers
        narrow.window.limit = 2
        places = await hold(servers, 5)
        assert (narrow.window.in_flight, wide.window.in_flight) == (2, 3)  # ½ against ½ at (1, 2): the first one's turn
        await leave(*places)

    run(work)


def test_who_finds_all_servers_full_waits_for_the_first_place_anywhere() -> None:
    async def work() -> None:
        servers, _ = pool(2, most=1)
        first, second = await hold(servers, 2)
        waiting = [asyncio.create_task(who(servers)) for _ in range(2)]
        await settle()
        assert not any(task.done() for task in waiting)
        await leave(second)
        assert await asyncio.gather(*waiting) == ["1", "1"]
        await leave(first)

    run(work)


def test_whoever_gives_up_waiting_takes_no_place() -> None:
    async def work() -> None:
        servers, _ = pool(1, most=1)
        (held,) = await hold(servers, 1)
        quitter, patient = (asyncio.create_task(who(servers)) for _ in range(2))
        await settle()
        await leave(held)  # wakes the quitter, who is gone before it can go in
        quitter.cancel()
        assert await patient == "0"

    run(work)


def test_a_pause_that_is_over_lets_those_in_who_wait() -> None:
    async def work() -> None:
        servers = Pool([Server("", "0", Window(2))])
        await fail(servers, status(429, **{"retry-after": "0.5"}))
        assert servers.servers[0].window.places == 0
        assert await asyncio.gather(who(servers), who(servers)) == ["0", "0"]

    run(work)


def test_a_question_goes_on_to_a_server_that_has_not_failed_it() -> None:
    async def work() -> None:
        servers, _ = pool(2)
        failed = await fail(servers, status(500))
        assert failed.name == "0"
        assert await who(servers, failed) == "1"
        assert await who(servers) == "0"  # one 500 is no reason to leave it out

    run(work)


# --- who is left out ---


def test_a_server_that_asks_for_a_pause_holds_up_no_other() -> None:
    async def work() -> None:
        servers, clock = pool(2)
        await fail(servers, status(429, **{"retry-after": "30"}))
        assert [await who(servers) for _ in range(3)] == ["1"] * 3
        clock.now = 30.0
        assert await who(servers) == "0"

    run(work)


@pytest.mark.parametrize(
    ("error", "times"),
    [(lost(), 1), (status(500), 3), (status(503), 3), (TimeoutError(), 3), (ValueError(), 3), (status(408), 3)],
    ids=["lost", "500", "503", "late", "unreadable", "408"],
)
def test_a_server_is_left_out_for_one_lost_connection_or_three_faults_in_a_row(error: Exception, times: int) -> None:
    async def work() -> None:
        servers, _ = pool(2)
        for _ in range(2):
            for _ in range(times - 1):
                assert (await fail(servers, error)).name == "0"
            assert await who(servers) == "0"  # which answers: no row
        for _ in range(times):
            assert (await fail(servers, error)).name == "0"
        assert await who(servers) == "1"
        assert servers.servers[0].left_out

    run(work)


@pytest.mark.parametrize("code", [400, 401, 404, 422, 429])
def test_a_server_that_answers_no_is_not_left_out(code: int) -> None:
    async def work() -> None:
        servers, _ = pool(2)
        for _ in range(9):
            await fail(servers, status(code))
        assert not servers.servers[0].left_out

    run(work)


def test_a_server_that_stays_dead_is_tried_ever_more_rarely_by_one_question_at_a_time() -> None:
    async def work() -> None:
        servers, clock = pool(2)
        rests = []
        for _ in range(10):
            assert (await fail(servers, lost())).name == "0"
            assert await who(servers) == "1"
            rests.append(servers.servers[0].rests)
            clock.now += rests[-1]
        assert rests == [1, 2, 4, 8, 16, 32, 64, *[LONGEST_PAUSE] * 3]
        trial = await hold(servers, 3)
        assert [server.window.in_flight for server in servers.servers] == [1, 2]
        await leave(*trial)  # it answered
        await hold(servers, 4)
        assert [server.window.in_flight for server in servers.servers] == [2, 2]

    run(work)


def test_an_answer_behind_a_burst_of_failures_brings_a_server_back_until_it_fails_again() -> None:
    async def work() -> None:
        servers, _ = pool(2)
        late, other = await hold(servers, 2)
        await fail(servers, lost())
        assert await who(servers) == "1"
        await leave(late)
        assert (await fail(servers, lost())).name == "0"
        assert await who(servers) == "1"
        await leave(other)

    run(work)


def test_failures_of_one_burst_are_one_rest() -> None:
    async def work() -> None:
        servers, _ = pool(2)
        places = await hold(servers, 8)
        for place in places:
            with suppress(Fault):
                await place.__aexit__(type(error := lost()), error, None)
        assert [server.rests for server in servers.servers] == [1, 1]

    run(work)


def test_where_all_are_dead_all_are_asked_so_that_the_work_ends() -> None:
    async def work() -> None:
        servers, _ = pool(2)
        failed = await fail(servers, lost())
        assert (await fail(servers, lost(), failed)).name == "1"
        assert await who(servers) == "0"

    run(work)


# --- a judge of several servers ---


def dead_url() -> str:
    """Nobody listens there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


def comparisons(count: int) -> list[Any]:
    return [comparison(str(n)) for n in range(count)]


def test_servers_share_the_questions_each_with_so_many_in_flight() -> None:
    barrier = threading.Barrier(6, timeout=30)

    def script(_number: int, _body: dict[str, Any]) -> Act:
        barrier.wait()  # passes only if six are in flight at once
        return says("[[A]]")

    with serving(script) as one, serving(script) as other:
        judge = judge_of(one, base_url=[one.url, other.url], concurrency=3)
        verdicts = dict(judge.judge(comparisons(12)))
        assert (one.most_open, other.most_open) == (3, 3)
        assert len(one.bodies) + len(other.bodies) == 12
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.win}


def test_of_a_dead_server_nothing_is_lost_and_the_bill_names_it() -> None:
    dead = dead_url()
    with serving(says("[[A]]")) as server:
        judge = judge_of(server, base_url=[dead, server.url], concurrency=2)
        verdicts = dict(judge.judge(comparisons(20)))
        assert len(server.bodies) == 20
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.win}
    assert judge.bill().endswith(f"left out for a while: {dead.removeprefix('http://').removesuffix('/v1')}")


def test_a_server_that_dies_half_way_gives_its_questions_to_the_others() -> None:
    def dying(number: int, _: dict[str, Any]) -> Act:
        return says("[[A]]") if number < 5 else Act(dropped=True)

    with serving(dying) as sick, serving(says("[[A]]")) as sound:
        judge = judge_of(sick, base_url=[sick.url, sound.url], concurrency=4)
        verdicts = dict(judge.judge(comparisons(60)))
        assert len(sound.bodies) == 55
    assert sorted(verdicts) == list(range(60))
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.win}


def test_all_dead_end_with_one_error_that_names_them() -> None:
    urls = [dead_url(), dead_url()]
    config = chat_config(model="judge", base_url=urls, backoff_seconds=0, attempts=2, concurrency=1)
    hosts = ", ".join(url.removeprefix("http://").removesuffix("/v1") for url in urls)
    with pytest.raises(WorkError, match=rf"^judge endpoint {hosts} failed {PATIENCE} questions in a row, last with"):
        list(Chat(config, JudgeContext(Path, None)).judge(comparisons(99)))


def test_a_refusal_names_the_server() -> None:
    with serving(says("[[A]]")) as good, serving(fails(401)) as bad, pytest.raises(UserError) as caught:
        list(judge_of(good, base_url=[good.url, bad.url]).judge(comparisons(99)))
    assert str(caught.value).startswith(f"judge endpoint 127.0.0.1:{bad.server_address[1]} answered 401")


def test_equal_servers_are_one_judge_by_the_first_ones_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0")

    def identity(base_url: Any) -> Any:
        return Chat(chat_config(model="j", base_url=base_url), JudgeContext(Path, None)).identity()

    first, second = "http://a.example:1/v1", "https://b.example/v1"
    assert identity([first, second]) == identity([first]) == identity(first) != identity([second, first])


def test_every_url_is_checked_and_any_that_is_not_local_needs_the_key() -> None:
    local = "http://127.0.0.1:1/v1"
    no_url, no_key = "base_url must start with http", "no API key: set OPENAI_API_KEY"
    wrong = {"127.0.0.1:2": no_url, "": no_url, "http://a.example/v1": no_key}
    for url, remedy in wrong.items():
        config = chat_config(model="j", base_url=[local, url])
        with pytest.raises(UserError, match=remedy):
            Chat(config, JudgeContext(Path, None))
    with pytest.raises(UserError, match="empty list"):  # not OpenAI's own, which is asked where nothing is given
        Chat(chat_config(model="j", base_url=[]), JudgeContext(Path, None))
