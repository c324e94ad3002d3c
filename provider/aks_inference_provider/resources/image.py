"""Image: what pods run from, found in a registry or built and pushed. Check looks, so that a preview says which."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from aks_inference_provider import PACKAGE
from aks_inference_provider.differences import Change, Diff, Difference, changes, top
from aks_inference_provider.fields import Failure, Field, Kind, check_fields, failures_of
from aks_inference_provider.resources.base import Caution, Checked, Computed, Made, Operation, Raw, State, Urn
from aks_inference_provider.resources.folder_limits import folder_failures, limit_failures, limits_of
from aks_inference_provider.resources.image_inputs import login_of, reach, settings_of, wanted_of
from aks_inference_provider.resources.image_packages import missing_packages
from aks_inference_provider.wire import UNKNOWN, has_unknown, plain
from aks_inference_runtime.api.errors import AksInferenceError, InvalidInput
from aks_inference_runtime.azure.arm import AzureFailed
from aks_inference_runtime.images.build.acr import resource_problem
from aks_inference_runtime.images.build.choose import Builder, Choice, choose
from aks_inference_runtime.images.build.tools import require_folder
from aks_inference_runtime.images.context import context_files
from aks_inference_runtime.images.environment.model import BuildContext
from aks_inference_runtime.images.errors import AccessDenied, BuildFailed
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry import Silence
from aks_inference_runtime.images.registry.client import RegistryClient
from aks_inference_runtime.images.service import Found, Wanted, ensure, look_up

LOOKS = Silence()
"""Of registries, in a preview: one that does not answer refuses nothing."""
LOGINS = ("password", "baseLogin")
"""What may be known only at apply: all else is looked at without."""
BUILDERS = tuple(builder.value for builder in Builder)
INPUTS = (
    Field("registry", Kind.STRING, "Required. `host` or `host/repository` of the workspace's registry.", required=True),
    Field("registryId", Kind.STRING, "Optional. Resource id of an Azure registry, for acr-tasks. Default: looked up."),
    Field("sharedRegistries", Kind.STRINGS, "Optional. Registries that are asked after it, in order. Default: none."),
    Field("registryTier", Kind.STRING, "Optional. Basic, Standard or Premium, for a note on pull time."),
    Field("username", Kind.STRING, "Optional. At the registry. Default: the logins of `docker login`."),
    Field("password", Kind.STRING, "Optional. Of `username`.", secret=True),
    Field("caFile", Kind.STRING, "Optional. Certificate authorities (PEM) to trust beside the machine's."),
    Field("plainHttp", Kind.BOOLEAN, "Optional. The registry has no TLS. Default: false; this machine's own has none."),
    Field("environment", Kind.OBJECT, "Conditional. An environment object; this or `runtime` is required."),
    Field("baseLogin", Kind.OBJECT, "Optional. `address`, `username`, `password` of a private base.", secret=True),
    Field("baseDirectory", Kind.STRING, "Optional. What files of the environment are relative to. Default: `/`."),
    Field("runtime", Kind.BOOLEAN, "Conditional. The inference runtime itself, in place of an environment."),
    Field("baseImage", Kind.STRING, "Optional. The base of an environment without one of its own."),
    Field("scoringServer", Kind.BOOLEAN, "Optional. Adds the scoring server where the environment has none."),
    Field("alias", Kind.STRING, "Optional. A name of its own, made of its content: where it is there, all is."),
    Field("entryScript", Kind.STRING, "Optional. Adds the application's files as a layer of their own."),
    Field("sourceDirectory", Kind.STRING, "Optional. Absolute; the folder of `entryScript`, without ignored files."),
    Field("maxMb", Kind.INTEGER, "Optional. Limit of the folder and of a build context, MB. Default: 300."),
    Field("maxFiles", Kind.INTEGER, "Optional. The same for the number of files. Default: 2,000."),
    Field("builder", Kind.STRING, f"Optional. {', '.join(BUILDERS)}. Default: auto."),
    Field("buildArguments", Kind.STRINGS, "Optional. Further arguments of a build tool. Default: none."),
    Field("key", Kind.STRING, "The image key of the environment.", computed=True),
    Field("definition", Kind.STRING, "The key by what is written, without digests of bases.", computed=True),
    Field("content", Kind.STRING, "`sha256:<hex>` over the application's files; empty without.", computed=True),
    Field("packages", Kind.INTEGER, "How many packages are listed.", computed=True),
    Field("found", Kind.STRING, "Where the image was when it was asked for; empty: nowhere.", computed=True),
)
OUTPUTS = (Field("image", Kind.STRING, "The image with its digest.", required=True),)
_NAMED = ("environment", "entryScript", "sourceDirectory")
IDENTITY = ("registry", "key", "content", "alias")
"""What makes it another image; how it is reached and built does not."""


def check(news: Mapping[str, Any]) -> list[Failure]:
    """All that is wrong with plain inputs, short of files and registries."""
    failures = check_fields(INPUTS, news) + limit_failures(news)
    if (news.get("environment") is None) == (not news.get("runtime")):
        given = "is given beside runtime; give one" if news.get("runtime") else "is required, or runtime"
        failures.append(Failure("environment", given))
    builder = news.get("builder")
    if isinstance(builder, str) and builder not in (*BUILDERS, UNKNOWN):
        failures.append(Failure("builder", f"{builder!r} is none of {', '.join(BUILDERS)}"))
    identity = news.get("registryId")
    if isinstance(identity, str) and identity != UNKNOWN and (problem := resource_problem(identity)):
        failures.append(Failure("registryId", f"{identity!r} {problem}"))
    if (news.get("username") is None) != (news.get("password") is None):
        failures.append(Failure("username", "needs password, and password it: give both or neither"))
    return failures


def diff(olds: Mapping[str, Any], news: Mapping[str, Any]) -> Diff:
    """What has to happen, from plain inputs: the image's identity counts, and whether it is still there."""
    found = {path: Difference(change) for path, change in changes(olds, news).items() if top(path) in IDENTITY}
    if not found and news.get("found") == "":
        found["image"] = Difference(Change.UPDATE, of_input=False)
    return Diff(found)


class Image:
    """An image, as a resource. Its id is `<registry>/<name>`. What was pushed stays when it is deleted."""

    token = f"{PACKAGE}:index:Image"
    description = "The image of an environment, a service or the runtime: found in a registry, or built and pushed."
    inputs = INPUTS
    outputs = OUTPUTS

    async def check(self, urn: Urn, olds: Raw, news: Raw) -> Checked:
        """See `check`; then files and registries are looked at."""
        values = plain(news)
        failures = check(values)
        unknown = dict.fromkeys(("key", "content", "definition", "packages"), UNKNOWN)
        if failures or has_unknown([value for name, value in values.items() if name not in LOGINS]):
            return Checked({**news, **unknown}, failures)
        logins_known = not has_unknown([values.get(name) for name in LOGINS])
        try:
            wanted = await asyncio.to_thread(wanted_of, values)
        except InvalidInput as error:
            return Checked({**news, **unknown}, folder_failures(error, _NAMED, "environment"))
        found = {
            "definition": wanted.offline_key,
            "content": wanted.packed.digest if wanted.packed else "",
            "packages": wanted.definition.package_count,
        }
        try:
            looked = await _look(values, wanted)
        except AksInferenceError as error:
            # The key needs the base's digest: what it was is the best that is known.
            inputs = {**news, **found, **_kept(plain(olds), found, wanted)}
            # A helper's login may get its role from this very program, which has not run yet.
            given = isinstance(error, AccessDenied) and values.get("username") and logins_known
            if given and _is_needed(plain(olds), plain(inputs)):
                return Checked(inputs, [Failure("username", str(error))])
            return Checked(inputs, notes=[_not_asked(values, error)])
        if looked.pinned and wanted.alias is None:
            found["key"] = looked.lookup.key
        else:
            found |= _kept(plain(olds), found, wanted)
        found["found"] = str(looked.image or "")
        if looked.image is not None:
            return Checked({**news, **found})
        choice, failures, notes = await asyncio.to_thread(_builder, values, wanted)
        failures = [*failures, *await asyncio.to_thread(_context, values, wanted)]
        if choice is not None and logins_known:
            failures = [*failures, *_closed(values, wanted, looked, choice.builder)]
        return Checked({**news, **found}, failures, notes)

    async def diff(self, state: State, news: Raw) -> Diff:
        """See `diff`."""
        return diff(plain(state.inputs), plain(news))

    def preview(self, inputs: Raw, state: State | None) -> Computed:
        """The image where it is there already."""
        news = plain(inputs)
        if state is not None and not diff(plain(state.inputs), news).properties:
            return {"image": state.outputs.get("image", UNKNOWN)}
        return {"image": news.get("found") or UNKNOWN}

    async def notes(self, inputs: Raw, state: State | None) -> Sequence[str]:
        """`image found in …` or `will build: about N packages`."""
        values = plain(inputs)
        if has_unknown(values.get("key")) or (state and not diff(plain(state.inputs), values).properties):
            return []
        try:
            wanted = await asyncio.to_thread(wanted_of, values)
            looked = await _look(values, wanted)
        except AksInferenceError as error:
            return [Caution(_not_asked(values, error))]
        files = "" if wanted.packed is None else f"; application: {_files(wanted)}"
        return [f"{looked.text}{files}", *looked.lookup.notes]

    async def create(self, operation: Operation, inputs: Raw) -> Made:
        """Finds or builds it."""
        values = plain(inputs)
        return Made(f"{values['registry']}/{operation.urn.name}", await self._ensure(operation, values))

    async def update(self, operation: Operation, state: State, inputs: Raw) -> Computed:
        """As create; the former image stays."""
        return await self._ensure(operation, plain(inputs))

    async def read(self, operation: Operation, state: State) -> State | None:
        """Whether it is still there."""
        image = plain(state.outputs.get("image"))
        if not image:
            return None
        try:
            async with _client(plain(state.inputs), silence=LOOKS) as client:
                there = await client.head(ImageReference.parse(str(image)))
        except AksInferenceError as error:
            operation.progress.warn(_not_asked(plain(state.inputs), error))
            return state
        return state if there is not None else None

    async def delete(self, operation: Operation, state: State) -> None:
        """Leaves the image: others find it by its content, and run from it."""

    async def _ensure(self, operation: Operation, values: Mapping[str, Any]) -> Computed:
        wanted = await asyncio.to_thread(wanted_of, values)
        async with _client(values, wanted) as client:
            made = await ensure(client, wanted, settings_of(values, wanted), operation.progress.status)
        if made.built:
            operation.progress.info(f"{made.text}: sent {made.pushed.sent_bytes / 1e6:.1f} MB")
        return {"image": str(made.image)}


def _builder(values: Mapping[str, Any], wanted: Wanted) -> tuple[Choice | None, list[Failure], list[str]]:
    """What would build it, why it cannot, and what of that could not be looked at."""
    try:
        settings = settings_of(values, wanted)
        no_tasks = settings.no_tasks(wanted.workspace.registry)
        choice = choose(wanted.definition, settings.builder, no_tasks=no_tasks)
    except (InvalidInput, AzureFailed) as error:
        return None, [Failure("builder", str(error).removeprefix("builder: "))], []
    return choice, *(missing_packages(wanted.definition) if choice.builder is Builder.ASSEMBLE else ([], []))


def _context(values: Mapping[str, Any], wanted: Wanted) -> list[Failure]:
    """A build context that cannot be built from: none is needed where the image is there."""
    base, at = wanted.definition.base, "environment.docker.buildContext.location"
    if not isinstance(base, BuildContext):
        return []
    try:
        context_files(require_folder(base), limits_of(values))
    except InvalidInput as error:
        return folder_failures(error, (), at)
    except BuildFailed as error:
        return failures_of(error, (), at)
    return []


def _closed(values: Mapping[str, Any], wanted: Wanted, looked: Found, builder: Builder) -> Iterator[Failure]:
    """Base images that it cannot be built on. A build tool, or Azure, has the same logins as we have; where there is
    none it may have rights of its own.
    """
    store = login_of(values, wanted.definition.base_login)
    where = "baseLogin" if values.get("baseLogin") else "environment" if values.get("environment") else "baseImage"
    for reference, error in looked.closed:
        if builder is Builder.ASSEMBLE or store.get(reference.registry) is not None:
            yield Failure(where, f"the base image {reference} cannot be read: {error}")


def _kept(olds: Mapping[str, Any], found: Mapping[str, Any], wanted: Wanted) -> dict[str, Any]:
    same = olds.get("definition") == found["definition"] and isinstance(olds.get("key"), str)
    return {"key": olds["key"] if same else wanted.offline_key}


async def _look(values: Mapping[str, Any], wanted: Wanted) -> Found:
    async with _client(values, wanted, LOOKS) as client:
        return await look_up(client, wanted)


@contextlib.asynccontextmanager
async def _client(
    values: Mapping[str, Any], wanted: Wanted | None = None, silence: Silence | None = None
) -> AsyncIterator[RegistryClient]:
    store = login_of(values, wanted.definition.base_login if wanted else None)
    async with RegistryClient(store, reach(values, silence)) as client:
        yield client


def _is_needed(olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
    """Whether an update would ask the registry that refuses us: what was made before stays as it is."""
    return not olds or bool(diff(olds, news).properties)


def _not_asked(values: Mapping[str, Any], error: BaseException) -> str:
    return f"registry {values.get('registry')}: not known whether the image is there ({error})"


def _files(wanted: Wanted) -> str:
    packed = wanted.packed
    assert packed is not None  # noqa: S101 - asked by the caller
    size = packed.size
    shown = f"{size} bytes" if size < 1_000 else f"{size / 1e3:,.1f} kB" if size < 100_000 else f"{size / 1e6:,.1f} MB"
    return f"{len(packed.files):,} file{'s' * (len(packed.files) != 1)}, {shown}"
