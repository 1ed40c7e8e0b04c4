"""Workflows: nodes tied together, enqueued as a whole, and what becomes of them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from itertools import pairwise

import pytest
from tests.weaving import (
    Page,
    add,
    app,
    broken,
    count,
    double,
    double_small,
    fetch,
    finish,
    forgetful,
    numbers,
    seen,
    states,
    tell,
    total,
    total_of_some,
)

from backlane import (
    Backlane,
    BadOption,
    JobFailed,
    QueueFull,
    ResultGone,
    State,
    TooLarge,
    Unencodable,
    WorkflowProgress,
    WrongUse,
    chain,
    chord,
    group,
)
from backlane.model.workflow import LEAVES, WINDOW
from backlane.testing import Testing, testing


@pytest.fixture
def t() -> Iterator[Testing]:
    broken.clear()
    seen.clear()
    with testing(app) as kit:
        yield kit


# -- shapes --


def test_a_node_alone_is_a_workflow(t: Testing) -> None:
    run = double.node(4).enqueue()

    t.drain()

    assert run.result() == 8
    assert run.progress == WorkflowProgress(State.SUCCEEDED, 1, 1)
    assert app.job(run.id).result() == 8


def test_a_chain_hands_each_result_to_the_next(t: Testing) -> None:
    run = chain(fetch.node("a.org"), count.node(), add.node()).enqueue()
    before = states(run)

    ran = t.drain()

    assert [task for task, _ in before] == ["fetch", "count", "add"]
    assert [state for _, state in before] == [State.READY, State.BLOCKED, State.BLOCKED]
    assert [one.task for one in ran] == ["fetch", "count", "add"]
    assert run.result() == 6


def test_in_a_chain_a_node_with_all_arguments_only_waits(t: Testing) -> None:
    run = chain(double.node(1), double.node(5), finish.node()).enqueue()

    ran = t.drain()

    assert [one.task for one in ran] == ["double", "double", "finish"]
    assert run.result() == "finished"


def test_an_explicit_graph_takes_results_wherever_they_go(t: Testing) -> None:
    left, right = double.node(1), double.node(2)
    last = total.node([left.out, 10, right.out])

    run = last.enqueue()
    t.drain()

    assert run.result() == 16
    assert len(run.nodes()) == 3


def test_a_result_may_be_used_twice(t: Testing) -> None:
    page = fetch.node("b.org")

    run = add.node(count.node(page.out).out, second=count.node(page.out).out).enqueue()
    ran = t.drain()

    assert [one.task for one in ran] == ["fetch", "count", "count", "add"]
    assert run.result() == 10


def test_a_group_results_in_a_list(t: Testing) -> None:
    run = group([double.node(3), chain(fetch.node("c"), count.node()), double.node(1)]).enqueue()

    t.drain()

    assert run.result() == [6, 1, 2]
    assert run.progress == WorkflowProgress(State.SUCCEEDED, 4, 4)


def test_a_group_keeps_the_types_of_its_results(t: Testing) -> None:
    run = group([fetch.node("d"), fetch.node("ee")]).enqueue()

    t.drain()

    assert app.workflow(run.id).result() == [Page("d", 1), Page("ee", 2)]


def test_groups_nest(t: Testing) -> None:
    inner = group([double.node(1), double.node(2)])

    run = group([inner, double.node(3), group([double.node(4)])]).enqueue()
    t.drain()

    assert run.result() == [[2, 4], 6, [8]]


def test_a_chord_gathers(t: Testing) -> None:
    run = chord([double.node(n) for n in range(5)], total.node()).enqueue()

    t.drain()

    assert run.result() == 20
    assert run.progress.total == 6


def test_a_chord_of_nothing_still_calls_its_last_node(t: Testing) -> None:
    run = chord([], total.node()).enqueue()

    t.drain()

    assert run.result() == 0


def test_a_chord_is_a_part_like_any_other(t: Testing) -> None:
    inner = chord([double.node(), double.node()], total.node())

    run = chain(double.node(1), inner, double.node()).enqueue()
    t.drain()

    assert run.result() == 16


def test_a_chain_goes_on_behind_a_group(t: Testing) -> None:
    run = chain(double.node(2), group([double.node(), add.node()]), total.node()).enqueue()

    t.drain()

    assert run.result() == 13


def test_nodes_wait_for_others_whose_results_they_do_not_use(t: Testing) -> None:
    first, second = double.node(1), double.node(2)

    run = finish.node().after(first, second).enqueue()
    ran = t.drain()

    assert [one.task for one in ran] == ["double", "double", "finish"]
    assert run.result() == "finished"


def test_a_node_may_run_however_others_end(t: Testing) -> None:
    broken.add(1)

    run = finish.node().after(double.node(1), when="ended").enqueue()
    t.drain()

    assert run.result() == "finished"
    assert run.state is State.SUCCEEDED


def test_the_same_nodes_may_be_enqueued_again(t: Testing) -> None:
    work = chain(double.node(1), double.node())

    first, second = work.enqueue(), work.enqueue()
    t.drain()

    assert first != second
    assert first.result() == second.result() == 4


# -- maps --


def test_a_map_calls_the_task_with_each_item(t: Testing) -> None:
    run = double.map([3, 1, 2]).enqueue()

    t.drain()

    assert run.result() == [6, 2, 4]
    assert run.progress == WorkflowProgress(State.SUCCEEDED, 3, 3)


def test_a_starmap_spreads_the_arguments(t: Testing) -> None:
    run = add.starmap([(1, 2), [3, 4]]).enqueue()

    t.drain()

    assert run.result() == [3, 7]


def test_chunks_give_lists_of_items(t: Testing) -> None:
    run = total.chunks(range(10), 4).enqueue()

    t.drain()

    assert run.result() == [6, 22, 17]


def test_a_large_map_is_cut_into_slices_that_run_some_at_a_time(t: Testing) -> None:
    number = LEAVES * (WINDOW + 2) + 7
    run = chain(double.map(range(number)), total.node()).enqueue()
    slices = [node for node in run.nodes() if node.task == "backlane.slice"]

    blocked = [node.state for node in slices].count(State.BLOCKED)
    before = run.progress
    t.drain()

    assert (len(slices), blocked) == (WINDOW + 3, 3)
    assert before == WorkflowProgress(State.READY, 0, number + 1)
    assert run.result() == number * (number - 1)
    assert run.progress == WorkflowProgress(State.SUCCEEDED, number + 1, number + 1)


def test_items_may_come_from_a_generator(t: Testing) -> None:
    run = double.map(n * n for n in range(4)).enqueue()

    t.drain()

    assert run.result() == [0, 2, 8, 18]


@pytest.mark.parametrize("number", [0, 3, LEAVES, LEAVES * 2 + 5])
def test_a_map_goes_over_what_another_node_results_in(t: Testing, number: int) -> None:
    run = total.node(double.map(numbers.node(number).out).out).enqueue()

    t.drain()

    assert run.result() == number * (number - 1)


def test_a_map_takes_its_items_from_the_chain(t: Testing) -> None:
    run = chain(numbers.node(4), double.map()).enqueue()

    t.drain()

    assert run.result() == [0, 2, 4, 6]


def test_a_map_of_nothing_results_in_nothing(t: Testing) -> None:
    run = chain(double.map([]), total.node()).enqueue()

    t.drain()

    assert run.result() == 0


def test_a_map_goes_on_in_a_queue_that_has_little_room(t: Testing) -> None:
    run = chain(double_small.map(range(300)), total.node()).enqueue()

    t.drain()
    t.advance(minutes=2)

    assert run.result() == 300 * 299
    assert run.progress == WorkflowProgress(State.SUCCEEDED, 301, 301)


def test_leaves_have_the_options_of_the_node(t: Testing) -> None:
    double.using(queue="other", priority=8, group="acme").map([1, 2]).enqueue()

    t.drain()

    leaves = [leaf.job.record() for leaf in t.jobs(double)]
    assert {(leaf.queue, leaf.priority, leaf.group) for leaf in leaves} == {("other", 8, "acme")}


def test_a_map_fails_by_its_leaves_and_names_the_first(t: Testing) -> None:
    broken.update([2, 3])
    run = chain(double.map(range(5)), total.node()).enqueue()

    t.drain()

    with pytest.raises(JobFailed, match=r"2 of 5 jobs did not succeed.*2 is broken"):
        run.result()
    assert run.progress == WorkflowProgress(State.FAILED, 6, 6, failed=3)


def test_a_partial_map_has_none_for_what_failed(t: Testing) -> None:
    broken.add(1)
    run = chain(double.map(range(3), partial=True), total_of_some.node()).enqueue()
    alone = double.map(range(3), partial=True).enqueue()

    t.drain()

    assert run.result() == 4
    assert alone.result() == [0, None, 4]


def test_an_item_that_does_not_fit_is_refused_with_its_number(t: Testing) -> None:
    with pytest.raises(Unencodable) as caught:
        double.map([1, "two"]).enqueue()

    assert "item 1" in caught.value.__notes__[0]
    assert t.jobs() == []


# -- results by reference --


def test_a_result_that_is_needed_is_kept_though_its_task_keeps_none(t: Testing) -> None:
    run = count.node(forgetful.node(7).out).enqueue()
    alone = forgetful.node(7).enqueue()

    t.drain()

    assert run.result() == 7
    with pytest.raises(ResultGone):
        alone.result()


def test_leaves_keep_what_is_needed(t: Testing) -> None:
    counts = [count.node(forgetful.node(n).out) for n in range(3)]
    run = chord(counts, total.node()).enqueue()

    t.drain()

    assert run.result() == 3


def test_bodies_hold_ids_and_not_results(t: Testing) -> None:
    run = count.node(fetch.node("https://example.org").out).enqueue()

    t.drain()

    (record,) = [node for node in run.nodes() if node.task == "count"]
    body = app.job(uuid.UUID(bytes=record.id)).record().body
    assert b"example.org" not in body


def test_a_result_that_was_deleted_is_a_clear_error(t: Testing) -> None:
    from backlane.engine.selection import Delete, Selection

    first = double.node(1)
    run = double.using(delay=60).node(first.out).enqueue()
    t.drain()
    (record,) = [node for node in run.nodes() if node.state is State.SUCCEEDED]
    t.engine.run(t.engine.amend(Selection(ids=(record.id,)), Delete()))

    t.advance(minutes=2)

    with pytest.raises(JobFailed, match=r"argument 'number'.*is not stored any more"):
        run.result()


# -- errors --


def test_what_waits_for_a_failure_is_skipped(t: Testing) -> None:
    broken.add(1)
    run = chain(double.node(1), double.node(), double.node()).enqueue()

    ran = t.drain()

    assert len(ran) == 1
    assert run.progress == WorkflowProgress(State.FAILED, 3, 3, failed=3)
    with pytest.raises(JobFailed, match="1 is broken") as caught:
        run.result()
    assert caught.value.error is not None
    assert caught.value.error.kind == "ValueError"


def test_a_handler_is_told_the_failure(t: Testing) -> None:
    broken.add(1)
    first = double.node(1).on_error(tell.node(more="!"))

    run = chain(first, double.node()).enqueue()
    t.drain()

    ((failure, more),) = seen
    assert more == "!"
    assert (failure.task, failure.kind, failure.message) == ("double", "ValueError", "1 is broken")
    assert failure.state is State.FAILED
    assert run.state is State.FAILED


def test_the_handler_of_a_chain_is_told_what_failed_first(t: Testing) -> None:
    broken.add("x")
    run = chain(fetch.node("x"), count.node(), add.node()).on_error(tell.node()).enqueue()

    t.drain()

    assert [(failure.task, failure.kind) for failure, _ in seen] == [("fetch", "OSError")]
    assert run.state is State.FAILED


def test_a_handler_that_is_not_needed_does_not_count(t: Testing) -> None:
    run = double.node(1).on_error(tell.node()).enqueue()
    before = run.progress

    t.drain()

    assert before == WorkflowProgress(State.READY, 0, 1)
    assert run.progress == WorkflowProgress(State.SUCCEEDED, 1, 1)
    assert seen == []


def test_a_map_has_a_handler(t: Testing) -> None:
    broken.add(3)
    run = double.map(range(LEAVES + 10)).on_error(tell.node()).enqueue()

    t.drain()

    ((failure, _),) = seen
    assert failure.task == "backlane.slice"
    assert "3 is broken" in failure.message
    assert run.state is State.FAILED


def test_a_partial_chord_has_none_for_what_failed(t: Testing) -> None:
    broken.add(1)
    run = chord([double.node(1), double.node(2)], total_of_some.node(), partial=True).enqueue()

    t.drain()

    assert run.result() == 4
    assert run.progress == WorkflowProgress(State.SUCCEEDED, 3, 3, failed=1)


def test_a_node_may_do_without_a_result(t: Testing) -> None:
    broken.add(1)
    run = total_of_some.node([double.node(1).out_or_none, 5]).enqueue()

    t.drain()

    assert run.result() == 5


# -- what is refused --


def test_a_node_that_lacks_an_argument_is_refused(t: Testing) -> None:
    with pytest.raises(TypeError, match="count"):
        count.node().enqueue()
    assert t.jobs() == []


def test_arguments_are_looked_at_where_they_are_written() -> None:
    with pytest.raises(TypeError):
        double.node(1, 2)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        double.node(numer=1)  # type: ignore[call-overload]
    with pytest.raises(Unencodable, match="number"):
        double.node("one")  # type: ignore[call-overload]


def test_nodes_that_wait_for_each_other_are_refused_where_it_is_written() -> None:
    first, last = finish.node(), count.node()
    chain(first, fetch.node("a.org"), last)
    handler = finish.node().after(last)
    for close in (
        lambda: first.after(first),
        lambda: first.after(last),
        lambda: first.on_error(first),
        lambda: handler.on_error(last),
        lambda: chain(last, first),
        lambda: chord([last], first),
        lambda: total.node([first.out, last.out]).on_error(first),
    ):
        with pytest.raises(BadOption, match="would wait for itself, by way of"):
            close()
    assert first.edges == []


def test_nodes_of_many_are_looked_at_quickly() -> None:
    began = time.perf_counter()
    nodes = [finish.node() for _ in range(5_000)]
    chain(*nodes)
    for one, before in pairwise([finish.node() for _ in range(5_000)]):
        one.after(before)

    assert time.perf_counter() - began < 5


def test_a_node_that_could_never_run_is_refused_where_it_is_written() -> None:
    first = double.node(1)
    with pytest.raises(BadOption, match="to succeed, and for it to fail, so it would never run"):
        double.node(first.out).after(first, when="failed")
    with pytest.raises(BadOption, match="never run"):
        first.on_error(double.node(first.out))
    with pytest.raises(BadOption, match="never run"):
        finish.node().after(first, when="failed").after(first)


def test_of_two_ties_to_one_node_the_stricter_counts(t: Testing) -> None:
    broken.add(1)
    first = double.node(1)
    strict = finish.node().after(first, when="ended").after(first)
    loose = finish.node().after(strict, when="ended").after(strict, when="failed")

    run = loose.enqueue()
    t.drain()

    assert [state for _, state in states(run)] == ["failed", "cancelled", "succeeded"]


@pytest.mark.parametrize("option", [{"key": "k"}, {"id": uuid.uuid4()}, {"idempotency_key": "k"}])
def test_a_node_has_no_option_that_lets_another_job_stand_for_it(option) -> None:
    if "id" in option:
        option = {"id": "01890000-0000-7000-8000-000000000000"}
    with pytest.raises(BadOption, match="does not go with a node"):
        double.using(**option).node(1)


def test_a_graph_of_too_many_nodes_is_refused(t: Testing) -> None:
    with pytest.raises(TooLarge, match="map a task over the items"):
        group([finish.node() for _ in range(10_001)]).enqueue()
    assert t.jobs() == []


def test_a_workflow_that_does_not_fit_its_queue_is_stored_not_at_all(t: Testing) -> None:
    with pytest.raises(QueueFull) as caught:
        group([double_small.node(n) for n in range(50)]).enqueue()
    assert not caught.value.can_fit
    assert t.jobs() == []


@pytest.mark.parametrize(
    "build",
    [
        lambda: chain(),
        lambda: group([]).enqueue(),
        lambda: chain(double.node(1), 7),
        lambda: group(double.node(1)),
        lambda: double.node(1).after(7),
        lambda: double.node(1).after(double.node(2), when="never"),
        lambda: double.node(1).on_error(double),
        lambda: double.map("text"),
        lambda: double.map().enqueue(),
        lambda: total.chunks([1], 0),
        lambda: add.starmap([1]).enqueue(),
    ],
)
def test_what_is_no_workflow_is_refused(t: Testing, build) -> None:
    with pytest.raises(BadOption):
        build()
    assert t.jobs() == []


def test_a_result_is_not_gone_through_before_it_is_there() -> None:
    with pytest.raises(WrongUse, match=r"task\.map"):
        list(numbers.node(3).out)


def test_nothing_is_decided_by_a_result_before_it_is_there() -> None:
    with pytest.raises(WrongUse, match="decide in the job"):
        _ = "yes" if double.node(1).out else "no"


def test_nodes_of_two_applications_are_refused(t: Testing) -> None:
    other = Backlane("memory://")

    @other.task(name="elsewhere")
    def elsewhere(number: int) -> int:
        return number

    for both in (
        chain(double.node(1), elsewhere.node()),
        double.node(elsewhere.node(1).out),
        group([double.node(1), elsewhere.node(1)]),
        double.node(1).on_error(elsewhere.node(2)),
    ):
        with pytest.raises(BadOption, match="of another application"):
            both.enqueue()
    assert t.jobs() == []


def test_tags_and_names_of_our_own_are_refused() -> None:
    with pytest.raises(BadOption, match="are our own"):
        double.using(tags=["backlane:leaves=many"])
    with pytest.raises(BadOption, match="our own"):
        app.task(name="backlane.slice")(stray)


def stray() -> None: ...


def test_a_group_has_no_handler_of_its_own() -> None:
    with pytest.raises(WrongUse, match="several ends"):
        group([double.node(1), double.node(2)]).on_error(tell.node())
