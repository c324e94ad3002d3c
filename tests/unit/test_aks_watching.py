"""What is told while Azure works."""

import asyncio

from aks_inference.aks_cluster.watching import Work, watch

WORK = Work("AKS cluster prod", 10, 60)


def test_its_words() -> None:
    assert WORK.text(20, None) == "AKS cluster prod: asked for 20 s ago; usually about 10 min, given up after 60"
    assert WORK.text(185, "Creating") == (
        "AKS cluster prod: Creating, since 3 min; usually about 10 min, given up after 60"
    )


class Azure:
    """Answers so many questions, then it is done."""

    def __init__(self, answers: list[str | None], end: Exception | None = None) -> None:
        self.answers, self.end = answers, end
        self.begun: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.over: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.said: list[tuple[str, bool]] = []

    async def state(self) -> str | None:
        answer = self.answers.pop(0)
        if not self.answers:
            asyncio.get_running_loop().call_soon(self._done)
        return answer

    def _done(self) -> None:
        if self.end is None:
            self.over.set_result("id")
        else:
            self.over.set_exception(self.end)

    async def watched(self, line_s: float) -> list[tuple[str, bool]]:
        def say(text: str, passing: bool) -> None:
            self.said.append((text, passing))

        await asyncio.wait_for(watch(WORK, self.begun, self.over, self.state, say, 0.001, line_s), 10)
        return self.said


async def test_state_by_state_until_it_is_done() -> None:
    azure = Azure([None, "Creating", "Creating"])
    azure.begun.set_result(None)
    said = await azure.watched(line_s=3600)
    assert [passing for _, passing in said] == [False, True, True, False]
    assert "Creating, since" in said[1][0]
    assert said[-1][0] == "AKS cluster prod: done after 1 min"


async def test_a_log_gets_a_line_a_while() -> None:
    azure = Azure(["Creating", "Creating"])
    azure.begun.set_result(None)
    assert [passing for _, passing in await azure.watched(line_s=0)] == [False, False, False]


async def test_what_fails_is_told_by_its_error_alone() -> None:
    azure = Azure(["Creating"], RuntimeError("quota"))
    azure.begun.set_result(None)
    assert len(await azure.watched(line_s=0)) == 1


async def test_what_never_begins_is_not_watched() -> None:
    azure = Azure([])
    azure.begun.set_exception(RuntimeError("no role"))
    azure.over.set_exception(RuntimeError("no role"))
    assert await azure.watched(line_s=0) == []
    azure.over.exception()
    azure = Azure([])
    azure.over.set_result("it was there already")
    assert await azure.watched(line_s=0) == []
