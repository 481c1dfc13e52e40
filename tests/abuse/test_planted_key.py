"""A planted API key is looked for wherever it could lie: output, logs, errors, store, files, --dry-run."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.conftest import Run, environment
from tests.judges.scripted_server import Act, fails, says, serving

KEY, TOKEN = "sk-planted-0123456789abcdef", "planted-tenant-fedcba9876543210"


def test_limits_end_a_run_in_one_line_and_a_key_stays_with_the_requests(
    bench: Run, tiny_recipe: Path, tmp_path: Path
) -> None:
    script: list[Act] = []
    with serving(lambda _, __: script[-1]) as server:
        secrets = {"OPENAI_API_KEY": KEY, "TENANT_TOKEN": TOKEN}
        settings = {**environment(), **secrets, "OPENAI_LOG": "debug", "NO_PROXY": "127.0.0.1"}

        def call(act: Act, *options: str) -> tuple[int, str, str]:
            script.append(act)
            done = bench(
                *("run", "sft", "--recipe", tiny_recipe, "--store", "s.sqlite3", "--judge", "chat:judge"),
                *("--set", f"judge_settings.base_url=[{server.url}]", "--set", "judge_settings.attempts=1", *options),
                *("--set", "judge_settings.headers={X-Tenant: TENANT_TOKEN}"),
                env=settings,
            )
            assert not any(secret in done.stdout + done.stderr for secret in secrets.values())
            return done.returncode, done.stdout, done.stderr.splitlines()[-1] if done.stderr else ""

        code, shown, _ = call(says("[[A]]"), "--dry-run")
        assert (code, len(server.bodies)) == (0, 0)
        assert shown.count("--- question ") == 2
        assert "no price is known of 'judge' there" in shown

        code, shown, error = call(says("[[A]]"), "--max-calls", "3")
        assert (code, len(server.bodies)) == (1, 3)
        assert error.startswith("error: --max-calls 3 is reached: ")
        assert error.endswith(" are owed; raise the limit and run the same command again")
        with closing(sqlite3.connect(tmp_path / "s.sqlite3")) as connection:
            asked = "SELECT count(*) FROM verdicts WHERE outcome != 'unscored' AND reason = ''"
            assert connection.execute(asked).fetchone() == (3,)

        echoing = f"Incorrect API key provided: {KEY} {TOKEN}"
        assert call(fails(401, message=echoing))[0] == 2
        assert call(fails(500, message=echoing))[0] == 1

        code, shown, _ = call(says("[[A]]"))
        assert code == 0
        assert "calls, " in shown
        assert set(server.keys) == {f"Bearer {KEY}"}
        assert {head["x-tenant"] for head in server.headers} == {TOKEN}
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not any(secret.encode() in path.read_bytes() for secret in secrets.values()), path
