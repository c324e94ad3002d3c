"""The eight steps of the story. Each says what it does, does it, checks it, and hands on what the next ones need."""

import asyncio
import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from engine import Done, Engine, StoryError
from load import scale_up_and_down
from places import Place
from report import Report, Step
from scoring import Tally, score, score_each, within_binomial_bound
from train import Training, train

ROWS_WHILE_APPLYING = 1_000
ROWS_FOR_SPLIT = 1_000
ROWS_PER_S = 60
TOLERANCE = 1e-9
SCALE_DOWN_DELAY_S = 5


@dataclass
class Story:
    """What the steps share."""

    engine: Engine
    report: Report
    work: Path
    place: Place
    training: Training | None = None

    @property
    def trained(self) -> Training:
        """The models of step 1."""
        if self.training is None:
            raise StoryError("no model was trained")
        return self.training

    @property
    def rows(self) -> list[list[float]]:
        """Rows that the models have not seen in training."""
        return self.trained.rows

    def on_line(self, step: Step) -> Callable[[str], None] | None:
        """Shows the engine's output as it comes, to a person."""
        return None if self.report.as_json else step.show

    async def preview(self, step: Step, *arguments: str) -> tuple[Done, dict[str, Any]]:
        """A preview: shown to a person, and its digest as JSON."""
        if not self.report.as_json:
            await self.engine.run("preview", *arguments, on_line=step.show)
        done = await self.engine.run("preview", "--json")
        digest = json.loads(done.stdout) if done.stdout.strip().startswith("{") else {}
        return done, digest

    async def outputs(self) -> dict[str, Any]:
        """The stack's outputs, with addresses that are reached from here."""
        found = await self.engine.outputs()
        for name in ("serviceUri", "endpointUri"):
            found[name] = await self.place.address(found[name])
        return found

    async def up(self, step: Step, *arguments: str) -> None:
        """Applies the program."""
        await self.engine.must("up", "--yes", "--skip-preview", *arguments, on_line=self.on_line(step))


async def train_models(story: Story) -> None:
    """1: two real models."""
    with story.report.step("train", "Train two models on the diabetes data of scikit-learn") as step:
        story.training = await asyncio.to_thread(train, story.work / "models")
        for model in story.training.models:
            step.say(f"{model.name}: {model.estimator}, R² {model.r2:.3f} on {len(story.rows)} rows not seen")
        step.result(models={m.name: {"estimator": m.estimator, "r2": round(m.r2, 3)} for m in story.training.models})


async def preview_first(story: Story) -> None:
    """2: everything that will be, before anything is."""
    with story.report.step("preview", "Preview the stack: checks, resources, effective traffic") as step:
        await story.engine.must("stack", "init")
        await story.engine.configure(
            {
                "modelsDirectory": str(story.work / "models"),
                **story.place.configuration,
                "scaleDownDelaySeconds": str(SCALE_DOWN_DELAY_S),
                "traffic.ridge": "100",
            }
        )
        done, digest = await story.preview(step)
        if done.code:
            raise StoryError(f"the preview failed:\n{done.text}")
        step.result(changes=digest.get("changeSummary", {}), checks=_messages(digest))


async def apply_first(story: Story) -> None:
    """3: models, service, endpoint."""
    title = f"Apply it {story.place.name} (the first time builds the scoring environment)"
    with story.report.step("apply", title) as step:
        await story.up(step)
        outputs = await story.outputs()
        uris = {name: outputs[name] for name in ("serviceUri", "endpointUri")}
        for name, uri in uris.items():
            step.say(f"{name}: {uri}")
        step.result(**uris)


async def score_rows(story: Story) -> None:
    """4: the router answers as the model in this process does, and only to who has the key."""
    with story.report.step("score", "Score real rows through the router; try a wrong key") as step:
        outputs = await story.outputs()
        rows, wanted = story.rows, story.trained.models[0].predictions
        try:
            async with aiohttp.ClientSession() as session:
                right = await score(session, outputs["endpointUri"], outputs["endpointKey"], rows)
                wrong = await score(session, outputs["endpointUri"], "wrong-key", rows[:1])
        except aiohttp.ClientError as error:
            raise StoryError(f"no answer from {outputs['endpointUri']}: {error}") from error
        if right.status != 200:
            raise StoryError(f"scoring answered {right.status} ({right.reason})")
        gap = max(abs(a - b) for a, b in zip(right.predictions, wanted, strict=True))
        step.say(f"{len(rows)} rows: 200, version {right.version}; largest difference to the trained model {gap:.1e}")
        step.say(f"wrong key: {wrong.status} ({wrong.reason})")
        step.result(rows=len(rows), largest_difference=gap, wrong_key=wrong.status, version=right.version)
        if gap > TOLERANCE or wrong.status != 401:
            raise StoryError("the endpoint does not answer as it must")


async def roll_out(story: Story) -> None:
    """5: version `boosted` at 10 %, while requests go on."""
    with story.report.step("rollout", "Change it: a second version at 10 %, under traffic") as step:
        await story.engine.configure({"traffic.ridge": "90", "traffic.boosted": "10"})
        done, digest = await story.preview(step, "--diff")
        if done.code:
            raise StoryError(f"the preview failed:\n{done.text}")
        outputs = await story.outputs()
        uri, key = outputs["endpointUri"], outputs["endpointKey"]
        applied = asyncio.Event()

        async def apply() -> None:
            try:
                await story.up(step)
            finally:
                applied.set()

        step.say(f"scoring {ROWS_WHILE_APPLYING} rows, {ROWS_PER_S} a second, while it is applied …")
        during, _ = await asyncio.gather(
            score_each(uri, key, story.rows, ROWS_WHILE_APPLYING, ROWS_PER_S, until=applied), apply()
        )
        step.say(f"scoring {ROWS_FOR_SPLIT} more …")
        after = await score_each(uri, key, story.rows, ROWS_FOR_SPLIT, ROWS_PER_S)
        step.say(f"{during.sent} rows while it was applied: {during.failed} failed; {_by_version(story, during)}")
        step.say(f"{after.sent} rows after: {after.failed} failed; {_by_version(story, after)}")
        fair = within_binomial_bound(after.versions["boosted"], after.sent, 0.1)
        if not fair and not after.failed:
            # Chance alone is outside once in a thousand runs, and twice running once in a million.
            step.say(f"{_by_version(story, after)}, outside of the 99.9 % bound; {ROWS_FOR_SPLIT} more …")
            after = await score_each(uri, key, story.rows, ROWS_FOR_SPLIT, ROWS_PER_S)
            fair = within_binomial_bound(after.versions["boosted"], after.sent, 0.1)
        step.say(f"10 % within the 99.9 % binomial bound: {'yes' if fair else 'no'}")
        step.result(
            changes=digest.get("changeSummary", {}),
            diff=_differences(digest),
            during=_figures(during),
            after=_figures(after),
            within_bound=fair,
        )
        failed = [
            f"{one.failed} of {one.sent} requests failed: {_by_text(one)} {one.failures[:3]}"
            for one in (during, after)
            if one.failed
        ]
        if failed or not fair:
            raise StoryError("; ".join(failed) or "the split is not what was declared")


async def scale(story: Story) -> None:
    """6: load, more replicas, no load, one replica."""
    with story.report.step("scale", "Put load on the service: replicas follow, up and down") as step:
        outputs = await story.outputs()
        seen, tally = await scale_up_and_down(
            story.place, outputs["serviceUri"], outputs["serviceKey"], story.rows, step.say
        )
        step.say(
            f"{tally.sent} requests: {tally.statuses[200]} answered, {tally.statuses[503]} refused with 503 after "
            f"500 ms in the queue, {tally.failed - tally.statuses[503]} failed"
        )
        step.result(replicas=seen, peak=max(seen), requests=tally.sent, statuses=_by_text(tally))
        if tally.failed > tally.statuses[503]:
            raise StoryError(f"requests failed: {_by_text(tally)} {tally.failures[:3]}")


async def apply_again(story: Story) -> None:
    """7: nothing to do; and a mistake that goes no further than its preview."""
    with story.report.step("again", "Apply the same program again; then preview two mistakes") as step:
        await story.up(step, "--expect-no-changes")
        before = await _generations(story)
        await story.engine.configure({"traffic.boosted": "40", "productionNodes": "2"})
        done = await story.engine.run("preview", on_line=story.on_line(step))
        await story.engine.configure({"traffic.boosted": "10"})
        await story.engine.must("config", "rm", "productionNodes")
        found = [text for text in ("needs at least 12", "130") if text in done.text]
        untouched = await _generations(story) == before
        step.say(f"exit {done.code}; nothing touched: {'yes' if untouched else 'no'}")
        step.result(changes=0, mistake_exit=done.code, mistakes_named=len(found), untouched=untouched)
        if done.code == 0 or len(found) != 2 or "Traceback" in done.text or not untouched:
            raise StoryError(f"the mistakes were not refused as they must be:\n{done.text}")


async def destroy(story: Story) -> None:
    """8: as if it had never been."""
    with story.report.step("destroy", "Destroy everything, and look for what is left") as step:
        serving = await story.place.serving()
        step.say(f"{serving} {story.place.what} serve now")
        await story.engine.must("destroy", "--yes", "--skip-preview", on_line=story.on_line(step))
        await story.engine.must("stack", "rm", "--yes")
        left = await story.place.left()
        shutil.rmtree(story.work)
        step.say(f"left: {', '.join(f'{count} {kind}' for kind, count in left.items())}")
        step.result(serving_before=serving, left=left)
        if any(left.values()):
            raise StoryError(f"something is left: {left}")


async def keep(story: Story) -> None:
    """8, with --keep: what runs, where the keys are, how to end it."""
    with story.report.step("keep", "Left running, as asked") as step:
        outputs = await story.outputs()
        ending = f"{story.engine.destroy_command} && rm -r {shlex.quote(str(story.work))}"
        hints = dict(story.place.hints())
        uris = {name: outputs[name] for name in ("serviceUri", "endpointUri")}
        for name, text in {"service": uris["serviceUri"], "endpoint": uris["endpointUri"], **hints}.items():
            step.say(f"{name + ':':<9} {text}")
        step.say(f"destroy:  {ending}")
        step.result(**uris, **hints, destroy=ending, work=str(story.work))


async def _generations(story: Story) -> dict[str, int]:
    views = await story.place.status()
    return {view["name"]: view["generation"] for view in views}


def _messages(digest: dict[str, Any]) -> list[str]:
    found = digest.get("diagnostics", [])
    return [d["message"].strip() for d in found if d.get("severity") in ("info", "warning")]


def _differences(digest: dict[str, Any]) -> dict[str, dict[str, str]]:
    """By resource name: property path → kind of change."""
    found = {}
    for step in digest.get("steps", []):
        if step["op"] in ("create", "same", "read") or not step.get("detailedDiff"):
            continue
        found[step["urn"].rpartition("::")[2]] = {path: diff["kind"] for path, diff in step["detailedDiff"].items()}
    return found


def _figures(tally: Tally) -> dict[str, Any]:
    told = {"sent": tally.sent, "failed": tally.failed, "versions": dict(tally.versions)}
    return {**told, "statuses": _by_text(tally), "failures": tally.failures[:3]} if tally.failed else told


def _by_version(story: Story, tally: Tally) -> str:
    """All versions in their order, also one that has not answered yet: who answers first is chance."""
    return "by version " + ", ".join(f"{model.name} {tally.versions[model.name]}" for model in story.trained.models)


def _by_text(tally: Tally) -> dict[str, int]:
    return {str(status): count for status, count in tally.statuses.items()}
