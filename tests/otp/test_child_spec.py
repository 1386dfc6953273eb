"""Child specifications: their defaults, their errors, and what stands for one in a list of children."""

from __future__ import annotations

import pytest
from otp.kernel import Probe
from otp.trees import Worker, spec

from erps_gevent.errors import ConfigError
from erps_gevent.otp.child_spec import child_spec, child_spec_of, shutdown, spec_of, validated
from erps_gevent.otp.dynamic_supervisor import DynamicSupervisor
from erps_gevent.otp.names import Via
from erps_gevent.otp.supervisor import Supervisor

START = {"id": "a", "start": (Worker.start_link, ())}


def test_spec_defaults():
    """Case 105, SS sup_start_map; ES "init/2"."""
    assert validated(START) == {
        "id": "a",
        "start": (Worker.start_link, (), {}),
        "restart": "permanent",
        "shutdown": 5.0,
        "type": "worker",
        "modules": [Worker],
        "significant": False,
        "backoff": None,
    }
    assert validated({**START, "type": "supervisor"})["shutdown"] == "infinity"
    assert validated({**START, "type": "supervisor", "shutdown": 1})["shutdown"] == 1


ERRORS = [
    ({"id": "a"}, "child 'a': a child spec needs 'start'"),
    ({"start": (print, ())}, r"child \{'start': .*\}: a child spec needs 'id'"),
    ({**START, "id": []}, "child .*: id is a value that can be a key of a dict, not \\[\\]"),
    ({**START, "restart": "often"}, "child 'a': restart is one of 'permanent', 'transient', 'temporary', not 'often'"),
    ({**START, "shutdown": -1}, "child 'a': shutdown is seconds, 'brutal_kill' or 'infinity', not -1"),
    ({**START, "type": "boss"}, "child 'a': type is one of 'worker', 'supervisor', not 'boss'"),
    ({**START, "start": print}, r"child 'a': start is \(function, args\) .* not <built-in .*; write \(print, \(\)\)"),
    ({**START, "start": ("print", ())}, r"child 'a': start is \(function, args\) or \(function, args, kwargs\), not"),
    ({**START, "start": (print, (), 5)}, r"child 'a': start is \(function, args\)"),
    ({**START, "start": ("print", (), {})}, r"child 'a': start is \(function, args\)"),
    ({**START, "modules": Worker}, "child 'a': modules is a list of classes or 'dynamic', not <class"),
    ({**START, "significant": 1}, "child 'a': significant is True or False, not 1"),
    (
        {**START, "backoff": 1.0},
        r"child 'a': backoff is \(first, longest\) in seconds, with 0 < first <= longest, not 1.0",
    ),
    ({**START, "backoff": (0, 1)}, r"child 'a': backoff is \(first, longest\)"),
    ({**START, "backoff": (2, 1)}, r"child 'a': backoff is \(first, longest\)"),
    ({**START, "backoff": (1, "x")}, "child 'a': backoff is a number of at least 0, not 'x'"),
]


@pytest.mark.parametrize(("wrong", "text"), ERRORS)
def test_spec_errors(wrong, text):
    """Case 106, SS sup_start_map_faulty_specs, child_specs; ES "with invalid child spec"."""
    with pytest.raises(ConfigError, match=text):
        validated(wrong)


def test_significant_invalid():
    """Optional, SS nonsignificant_*, sup_flags; PR S25: a permanent child cannot be significant."""
    with pytest.raises(ConfigError, match=r"child 'a': significant=True: .*make it transient or temporary"):
        validated({**START, "significant": True})
    assert validated({**START, "significant": True, "restart": "temporary"})["significant"]


@pytest.mark.parametrize("given", [(print, [1], {"end": ""}), [print, (1,), {"end": ""}]])
def test_a_start_may_have_keywords_and_lists(given):
    assert validated({"id": 1, "start": given})["start"] == (print, (1,), {"end": ""})


def test_a_start_whose_keywords_are_none_has_none():
    assert validated({"id": 1, "start": (print, (), None)})["start"] == (print, (), {})


def test_an_unknown_key_is_ignored_with_a_warning(caplog):
    """Rule 12.10."""
    assert validated({**START, "restrat": "temporary"})["restart"] == "permanent"
    (record,) = caplog.records
    assert record.message == "child 'a': ignored the unknown key 'restrat' of its child spec; did you mean 'restart'?"


@pytest.mark.parametrize("given", [["x"], "dynamic", ("x",)])
def test_modules_are_shown_as_given(given):
    assert validated({**START, "modules": given})["modules"] == (given if given == "dynamic" else ["x"])


def test_a_start_function_that_belongs_to_no_class_has_no_modules():
    assert validated({"id": 1, "start": (spec, ())})["modules"] == []


def test_a_spec_that_needs_no_id_has_the_name_of_its_start_function():
    assert validated({"start": (Worker.start_link, ())}, ("start",))["id"] == "GenServer.start_link"


def test_a_backoff_is_two_durations():
    assert validated({**START, "backoff": (0.1, 5)})["backoff"] == (0.1, 5)
    assert validated({**START, "backoff": None})["backoff"] is None


def test_child_spec_function():
    """Case 108, ES "child_spec/2"."""
    own = {"id": Worker, "start": (Worker.start_link, ()), "restart": "permanent", "shutdown": 5.0, "type": "worker"}
    assert child_spec(Worker) == own
    assert child_spec((Worker,)) == own
    assert child_spec((Worker, 1, 2)) == {**own, "start": (Worker.start_link, (1, 2))}
    assert child_spec({"id": 1, "start": (print, ())}) == {"id": 1, "start": (print, ())}
    assert child_spec(Worker, id="x", restart="temporary", backoff=(1, 2)) == {
        **own,
        "id": "x",
        "restart": "temporary",
        "backoff": (1, 2),
    }


def test_an_override_that_there_is_not_is_refused():
    """Rule 12.10; ES "child_spec/2"."""
    with pytest.raises(TypeError, match=r"a child spec has no key 'restrat'; did you mean 'restart'\?"):
        child_spec(Worker, restrat="temporary")


def test_a_wrong_override_names_the_child():
    with pytest.raises(ConfigError, match="child 'x': restart is one of"):
        child_spec(Worker, id="x", restart="often")


class Odd:
    @classmethod
    def child_spec(cls):
        return ["no", "dict"]


NO_CHILDREN = [
    (7, "7 is no child: a child is a spec, a class with child_spec such as a GenServer, or a tuple"),
    ((), r"\(\) is no child"),
    ((7, 8), r"\(7, 8\) is no child"),
    (int, "int has no child_spec: a child is a spec"),
    ((int, 1), "int has no child_spec: a child is a spec"),
    (Odd, r"Odd.child_spec returned \['no', 'dict'\]; it returns a dict with at least id and start"),
]


@pytest.mark.parametrize(("entry", "text"), NO_CHILDREN)
def test_what_is_no_child_is_refused(entry, text):
    """Case 108, ES "child_spec/2": helpful errors."""
    with pytest.raises(ConfigError, match=text):
        spec_of(entry)


def test_a_spec_is_copied():
    assert spec_of(START) == START
    assert spec_of(START) is not START


def test_a_supervisor_is_a_child_that_is_waited_for():
    class Tree(Supervisor, strategy="one_for_one"):
        def init(self, port):
            return []

    assert Tree.child_spec(80) == {
        "id": Tree,
        "start": (Tree.start_link, (80,)),
        "restart": "permanent",
        "shutdown": "infinity",
        "type": "supervisor",
    }


def test_the_class_keywords_of_a_supervisor_are_in_its_child_spec():
    class Tree(Supervisor, strategy="one_for_one", id="tree", restart="transient", shutdown=1.0):
        """Another one."""

    assert child_spec((Tree, []), shutdown=2) == {
        "id": "tree",
        "start": (Tree.start_link, ([],)),
        "restart": "transient",
        "shutdown": 2,
        "type": "supervisor",
    }


@pytest.mark.parametrize(
    ("name", "id_"), [("rooms", "rooms"), (Via("registry", "key"), "key"), (None, DynamicSupervisor)]
)
def test_a_supervisor_that_is_given_a_name_has_it_for_its_id(name, id_):
    """ED "multiple supervisors can be supervised and identified with simple child spec"."""
    assert DynamicSupervisor.child_spec(name=name)["id"] == id_


def test_a_spec_has_the_class_keywords():
    """Case 22, EG "generates child_spec/1"."""
    options = {"id": None, "restart": "transient"}
    made = child_spec_of(Probe, Probe.start_link, (1,), {"a": 2}, options, "supervisor")
    assert made == {
        "id": Probe,
        "start": (Probe.start_link, (1,), {"a": 2}),
        "restart": "transient",
        "shutdown": 5.0,
        "type": "supervisor",
    }


@pytest.mark.parametrize("value", [0, 2.5, "infinity", "brutal_kill"])
def test_a_shutdown_is_seconds_or_one_of_two_words(value):
    assert shutdown("shutdown", value) == value
