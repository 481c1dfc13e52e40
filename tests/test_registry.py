"""Registries: entries of other packages beside ours, typed and lazy; unknown names answered with near ones."""

from importlib.metadata import EntryPoint

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.registry import JudgeEntry, MethodEntry, Registry, unknown

mine = MethodEntry(name="mine", summary="for tests", target="no_such_package.at_all:method")
judge = JudgeEntry(name="judge", summary="for tests", target="math:pi", kind="pointwise")


def points(monkeypatch: pytest.MonkeyPatch, **targets: str) -> Registry[MethodEntry]:
    """A registry of methods that finds these entry points."""
    found = [EntryPoint(name, f"{__name__}:{attribute}", "dadpo_bench.methods") for name, attribute in targets.items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: found)
    return Registry("methods", MethodEntry)


@pytest.mark.parametrize(
    "found", [registry.methods, registry.judges, registry.backends, registry.tasks], ids=lambda r: r.kind
)
def test_every_entry_of_ours_is_found_and_can_be_loaded(found: Registry[registry.Entry]) -> None:
    assert found.names() == sorted(found.names()) != []
    for entry in found:
        assert entry.summary
        assert "\n" not in entry.summary
        assert found.load(entry.name) is not None
        if entry.config:
            assert all(field.description for field in registry.config_class(entry, {}).model_fields.values())


def test_an_entry_is_read_without_importing_its_target(monkeypatch: pytest.MonkeyPatch) -> None:
    found = points(monkeypatch, mine="mine")
    assert [entry.summary for entry in found] == ["for tests"]
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        found.load("mine")


def test_a_method_starts_where_its_data_come_from_unless_it_says_so() -> None:
    given = {"name": "x", "summary": "y", "target": "z"}
    assert MethodEntry(**given).start == "student"
    assert MethodEntry(**given, data="pairs").start == "dsft"
    assert MethodEntry(**given, start="dsft").start == "dsft"


def test_an_entry_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"method 'judge': entry point .*:judge is no MethodEntry"):
        points(monkeypatch, judge="judge")["judge"]


@pytest.mark.parametrize(("name", "near"), [("dadp", "dadpo"), ("DADPO", None), ("dop", "dpo"), ("sfft", "sft")])
def test_a_near_name_is_suggested_and_otherwise_all_are_named(name: str, near: str | None) -> None:
    with pytest.raises(UserError) as caught:
        registry.methods[name]
    expected = f"did you mean '{near}'?" if near else f"known: {', '.join(registry.methods.names())}"
    assert str(caught.value) == f"unknown method '{name}'; {expected}"


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=5))
def test_any_unknown_name_is_answered(name: str, known: list[str]) -> None:
    assert unknown("thing", name, known).startswith(f"unknown thing '{name}'; ")


@pytest.mark.parametrize("field", ["nmae", "kind", "signals"])
def test_an_entry_with_a_wrong_field_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        registry.Entry.model_validate({"name": "x", "summary": "y", "target": "z", field: "?"})
