"""An application whose workflows are tested."""

from __future__ import annotations

from dataclasses import dataclass

from backlane import Backlane, Failure, Queue, Retry, State, WorkflowHandle

ONCE = Retry(attempts=1)


@dataclass
class Page:
    url: str
    words: int


app = Backlane("memory://", queues=[Queue("small", max_jobs=40), Queue("other")], retry=ONCE)
broken: set[object] = set()  # arguments that fail
seen: list[object] = []


@app.task(name="fetch")
async def fetch(url: str) -> Page:
    if url in broken:
        raise OSError(f"{url} is down")
    return Page(url, len(url))


@app.task(name="count")
def count(page: Page) -> int:
    return page.words


@app.task(name="add")
def add(first: int, second: int = 1) -> int:
    return first + second


@app.task(name="total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="total_of_some")
def total_of_some(numbers: list[int | None]) -> int:
    return sum(number or 0 for number in numbers)


@app.task(name="double")
def double(number: int) -> int:
    if number in broken:
        raise ValueError(f"{number} is broken")
    return 2 * number


@app.task(name="double_small", queue="small")
def double_small(number: int) -> int:
    return 2 * number


@app.task(name="forgetful", keep_result=False)
def forgetful(number: int) -> Page:
    return Page(str(number), number)


@app.task(name="numbers")
def numbers(upto: int) -> list[int]:
    return list(range(upto))


@app.task(name="tell")
def tell(failure: Failure, more: str = "") -> None:
    seen.append((failure, more))


@app.task(name="finish")
def finish() -> str:
    return "finished"


def states(run: WorkflowHandle[object]) -> list[tuple[str | None, State]]:
    return [(node.task, node.state) for node in run.nodes()]
