"""The part of the adapter that is about images: looked up, pulled, built, moved and removed."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from urllib.parse import urlencode

import aiodocker
import anyio

from pocket_dock_mcp.engine import docker_answers as answers
from pocket_dock_mcp.engine.base import ImageState
from pocket_dock_mcp.engine.docker_connection import CALL_DEADLINE, asked, engine_call, in_our_words
from pocket_dock_mcp.engine.translate import Verb
from pocket_dock_mcp.errors import ImageBuildError, ImageNotFoundError

IMAGE_DEADLINE = 600.0
"""Seconds for moving or building an image; progress is shown meanwhile."""
LAST_LINES = 10
"""Lines of a failed build that its error shows."""


_WHOLE_ID = re.compile(r"[0-9a-f]{64}")


class DockerImages:
    """What an engine of this API does with images."""

    _client: aiodocker.Docker

    async def image(self, reference: str) -> ImageState:
        """Look up an image; see the port."""
        # Podman takes a whole id for one only where it is there, and else for a name that none may have.
        name = f"sha256:{reference}" if _WHOLE_ID.fullmatch(reference) else reference

        async def ask() -> ImageState:
            async with engine_call("image", reference, CALL_DEADLINE):
                data = await self._client.images.inspect(name)
                return answers.image(data, data.get("Config") or {})

        return await asked(ask)

    async def images(self, label: str) -> list[ImageState]:
        """List images by label; see the port."""

        async def ask() -> list[ImageState]:
            async with engine_call("list", label, CALL_DEADLINE):
                found = await self._client.images.list(filters={"label": [label]})
                return [answers.image(item, item) for item in found]

        return await asked(ask, may_go=True)

    async def pull(self, reference: str) -> AsyncIterator[str]:
        """Fetch an image; see the port."""
        params = [("fromImage", reference)]
        if not any(mark in reference.rpartition("/")[2] for mark in ":@"):
            params.append(("tag", "latest"))  # without one Docker fetches all tags
        async with aclosing(self._progress("pull", reference, "images/create", params)) as lines:
            async for line in lines:
                yield line
        # Podman reports some failures as progress only.
        await self.image(reference)

    async def build(
        self,
        context: bytes,
        tag: str,
        *,
        build_args: Mapping[str, str],
        labels: Mapping[str, str],
        no_cache: bool = False,
    ) -> AsyncIterator[str]:
        """Build an image; see the port."""
        params = [("t", tag), ("dockerfile", "Containerfile"), ("rm", "1"), ("forcerm", "1")]
        params += [("buildargs", json.dumps(dict(build_args))), ("labels", json.dumps(dict(labels)))]
        params += [("nocache", "1")] if no_cache else []
        last: deque[str] = deque(maxlen=LAST_LINES)
        try:
            async with aclosing(self._progress("build", tag, "build", params, context)) as lines:
                async for line in lines:
                    last.append(line)
                    yield line
        except ImageBuildError as error:
            raise ImageBuildError(f"{error.message} Its last lines: {' | '.join(last)}") from error
        await self.image(tag)

    async def import_rootfs(
        self, tar: AsyncIterable[bytes], tag: str, *, labels: Mapping[str, str] | None = None
    ) -> str:
        """Make an image of a root filesystem's tar; see the port."""
        # Not as "repo" and "tag": Podman 4.3 looks at the first only. One label in a change: Podman again.
        params = [("fromSrc", "-"), ("repo", tag)]
        params += [("changes", answers.label(key, value)) for key, value in (labels or {}).items()]
        async for _ in self._progress("import", tag, "images/create", params, tar):
            pass
        return (await self.image(tag)).id

    async def save_images(self, references: Sequence[str]) -> AsyncIterator[bytes]:
        """Yield an archive; see the port."""
        for reference in references:
            # Podman says 500 to one that it lacks, and Docker 404.
            await self.image(reference)
        query = urlencode([("names", reference) for reference in references])
        async with aclosing(self._download("save", ", ".join(references), f"images/get?{query}")) as pieces:
            async for piece in pieces:
                yield piece

    async def load_images(self, archive: AsyncIterable[bytes]) -> list[str]:
        """Take in the images of an archive; see the port."""
        lines: list[str] = []
        async with aclosing(
            self._progress("load", "archive", "images/load", [("quiet", "1")], archive)
        ) as events:
            lines += [line async for line in events]
        return answers.loaded(lines)

    async def _download(self, verb: Verb, subject: str, path: str) -> AsyncGenerator[bytes, None]:
        """Yield what an engine sends, for as long as it goes on sending."""
        headers = {"Connection": "keep-alive"}
        query = self._client._query(path, headers=headers, timeout=None)  # noqa: SLF001  # as in `_progress`
        async with AsyncExitStack() as stack:
            async with engine_call(verb, subject, IMAGE_DEADLINE):
                response = await stack.enter_async_context(query)
            stack.callback(response.close)
            while True:
                # Docker looks through all layers before the first byte.
                async with in_our_words(verb, subject, IMAGE_DEADLINE):
                    piece = await response.content.readany()
                if not piece:
                    return
                yield piece

    async def _progress(
        self,
        verb: Verb,
        subject: str,
        path: str,
        params: Sequence[tuple[str, str]],
        data: bytes | AsyncIterable[bytes] | None = None,
    ) -> AsyncGenerator[str, None]:
        """Make a request that takes long, and yield the lines of its progress.

        The engine gives up what it does when the reader stops reading. No deadline's scope is open across a
        yield: it would be the reader's as well.
        """
        ends = anyio.current_time() + IMAGE_DEADLINE
        # Measured: with "Connection: close", which a connector without a pool says by itself, Docker does
        # not notice that its client has gone, and goes on.
        headers = {"Connection": "keep-alive", "Content-Type": "application/x-tar"}
        # aiodocker has no method for the import, no parameters that repeat, and it does not close responses.
        query = self._client._query(  # noqa: SLF001
            f"{path}?{urlencode(params)}", "POST", data=data, headers=headers, timeout=None
        )
        async with AsyncExitStack() as stack:
            async with engine_call(verb, subject, IMAGE_DEADLINE):
                response = await stack.enter_async_context(query)
            stack.callback(response.close)
            while True:
                async with in_our_words(verb, subject, max(0, int(ends - anyio.current_time()))):
                    event = await response.content.readline()
                    lines = answers.progress_lines(verb, subject, json.loads(event)) if event else []
                if not event:
                    return
                for line in lines:
                    yield line

    async def remove_image(self, reference: str) -> None:
        """Remove an image; see the port."""

        async def remove() -> None:
            async with engine_call("remove_image", reference, CALL_DEADLINE):
                # Not by force: Podman would remove the containers with it, Docker leave it without a name.
                await self._client.images.delete(reference, force=False)

        try:
            await asked(remove)
        except ImageNotFoundError:
            pass
