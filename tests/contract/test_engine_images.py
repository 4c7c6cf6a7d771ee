"""What any `Engine` does with images: one body, over the fake and over every real engine."""

from __future__ import annotations

import anyio
import pytest

from pocket_dock_mcp.errors import EngineConflictError, ImageArchiveError, ImageBuildError, ImageNotFoundError
from tests import behaviours
from tests.engines import LABELS, unique
from tests.lab import NOBODY_IS_THERE, Lab, in_pieces, tar_of

pytestmark = [pytest.mark.anyio, pytest.mark.contract]


async def test_an_image_is_found_by_reference_and_by_id(lab: Lab) -> None:
    """And is the same one."""
    state = await lab.engine.image(lab.image)

    assert (await lab.engine.image(state.id)).id == state.id
    assert (await lab.engine.image(state.tags[0])).id == state.id
    assert state.size_bytes > 0


async def test_an_unknown_image_is_reported_missing(lab: Lab) -> None:
    """It is not looked for anywhere else."""
    with pytest.raises(ImageNotFoundError):
        await lab.engine.image(NOBODY_IS_THERE)


_ODD_VALUE = "a.b:c/d@e+f-1_2"


async def test_a_commit_is_an_image_with_these_labels_and_no_others(lab: Lab) -> None:
    """Labels of the container do not come along with content; those asked for do, literally."""
    labels = {**LABELS, "pocket-dock.snapshot": _ODD_VALUE, "pocket-dock.empty": ""}
    container_id = await lab.create(lab.spec(labels={"pocket-dock.owner": "somebody", "pocket-dock.x": "y"}))
    tag = lab.tag()

    image_id = await lab.engine.commit(container_id, tag, labels=labels)

    state = await lab.engine.image(tag)
    assert state.id == image_id
    assert tag in state.tags
    ours = {key: value for key, value in state.labels.items() if key.startswith("pocket-dock.") and value}
    assert ours == {key: value for key, value in labels.items() if value}


async def test_images_of_the_same_files_come_and_go_at_the_same_time(lab: Lab) -> None:
    """Podman finds that it has their layer already, and does not have it any more when it needs it."""
    container_id = await lab.create(lab.spec())

    async def come_and_go(number: int) -> None:
        for turn in range(8):
            tag = lab.tag()
            labels = {**LABELS, "pocket-dock.mark": f"{number}-{turn}"}
            image_id = await lab.engine.commit(container_id, tag, labels=labels)
            assert (await lab.engine.image(tag)).id == image_id
            await lab.engine.remove_image(tag)

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(come_and_go, number)


async def test_a_running_container_can_be_committed_and_goes_on(lab: Lab) -> None:
    """A snapshot does not end what it is of."""
    container_id, stream = await lab.start("/bin/cat")

    await lab.engine.commit(container_id, lab.tag(), labels=LABELS)

    assert await lab.echo(stream, [b"still here"]) == b"still here"


async def test_a_committed_image_can_be_started(lab: Lab) -> None:
    """A container of a snapshot runs what it is told to, and nothing that the image says."""
    source = await lab.create(lab.spec())
    tag = lab.tag()
    await lab.engine.commit(source, tag, labels=LABELS)

    container_id = await lab.create(lab.spec("/bin/echo", "again", image=tag))
    stream = await lab.attach(container_id)
    await lab.engine.start(container_id)

    assert await lab.output(stream) == (b"again\n", b"")


async def test_images_are_found_by_label(lab: Lab) -> None:
    """By key and value, and no others."""
    mark = unique("mark")
    tag = lab.tag()
    source = await lab.create(lab.spec())
    image_id = await lab.engine.commit(source, tag, labels={**LABELS, "pocket-dock.mark": mark})

    found = await lab.engine.images(f"pocket-dock.mark={mark}")

    assert [state.id for state in found] == [image_id]
    assert tag in found[0].tags
    assert found[0].labels["pocket-dock.mark"] == mark
    assert image_id in {state.id for state in await lab.engine.images("pocket-dock.mark")}
    assert await lab.engine.images(f"pocket-dock.mark={mark}-other") == []


async def test_a_removed_image_is_gone_and_removing_it_again_is_quiet(lab: Lab) -> None:
    """Twice is as good as once."""
    tag = lab.tag()
    await lab.engine.commit(await lab.create(lab.spec()), tag, labels=LABELS)

    for _ in range(2):
        await lab.engine.remove_image(tag)

        with pytest.raises(ImageNotFoundError):
            await lab.engine.image(tag)


async def test_an_image_that_a_container_lives_on_is_not_removed(lab: Lab) -> None:
    """Neither the image nor the container goes."""
    tag = lab.tag()
    await lab.engine.commit(await lab.create(lab.spec()), tag, labels=LABELS)
    container_id = await lab.create(lab.spec(image=tag))
    await lab.attach(container_id)
    await lab.engine.start(container_id)

    with pytest.raises(EngineConflictError):
        await lab.engine.remove_image(tag)

    assert (await lab.engine.inspect(container_id)).status == "running"
    assert tag in (await lab.engine.image(tag)).tags


async def test_pulling_what_cannot_be_had_says_so(lab: Lab) -> None:
    """A registry that does not answer is the same to us as one without the image."""
    with pytest.raises(ImageNotFoundError), anyio.fail_after(lab.deadline(60)):
        async for _ in lab.engine.pull(NOBODY_IS_THERE):
            pass


async def test_a_root_filesystem_becomes_an_image(lab: Lab) -> None:
    """From a tar that arrives in pieces."""
    tag = lab.tag("rootfs")

    image_id = await lab.engine.import_rootfs(in_pieces(tar_of({"etc/hello": b"hello"})), tag, labels=LABELS)

    state = await lab.engine.image(tag)
    assert state.id == image_id
    assert tag in state.tags
    assert state.labels.items() >= LABELS.items()


async def test_what_is_no_tar_becomes_no_image(lab: Lab) -> None:
    """And does not pass for the image that had the tag before."""
    tag = lab.tag("rootfs")
    before = await lab.engine.import_rootfs(in_pieces(tar_of({"etc/hello": b"hello"})), tag, labels=LABELS)

    with pytest.raises(ImageBuildError):
        await lab.engine.import_rootfs(in_pieces(b"this is no tar archive" * 1000), tag, labels=LABELS)

    assert (await lab.engine.image(tag)).id == before


async def test_images_leave_in_one_archive_and_come_back_from_it(lab: Lab) -> None:
    """Two at once; with their names and labels, and what is in them."""
    tags = [lab.tag("moved"), lab.tag("moved")]
    for tag in tags:
        await lab.engine.import_rootfs(in_pieces(tar_of({"etc/name": tag.encode()})), tag, labels=LABELS)

    archive = b"".join([piece async for piece in lab.engine.save_images(tags)])
    for tag in tags:
        await lab.engine.remove_image(tag)
    loaded = await lab.engine.load_images(in_pieces(archive))

    assert set(loaded) == set(tags)
    for tag in tags:
        assert (await lab.engine.image(tag)).labels.items() >= LABELS.items()
        assert tag.encode() in archive
    assert await lab.engine.load_images(in_pieces(archive)), "what is there already is no obstacle"


async def test_of_what_is_missing_no_archive_is_begun(lab: Lab) -> None:
    """Nor of what is there."""
    tag = lab.tag("moved")
    await lab.engine.import_rootfs(in_pieces(tar_of({"etc/hello": b"hello"})), tag, labels=LABELS)

    with pytest.raises(ImageNotFoundError):
        await anext(aiter(lab.engine.save_images([tag, NOBODY_IS_THERE])))


@pytest.mark.parametrize("kind", ["noise", "empty", "no images", "cut"])
async def test_what_is_no_archive_of_images_is_refused(lab: Lab, kind: str) -> None:
    tag = lab.tag("moved")
    await lab.engine.import_rootfs(in_pieces(tar_of({"etc/hello": b"hello" * 5000})), tag, labels=LABELS)
    archive = b"".join([piece async for piece in lab.engine.save_images([tag])])
    await lab.engine.remove_image(tag)
    broken = {
        "noise": b"this is no tar archive" * 1000,
        "empty": b"",
        "no images": tar_of({"etc/hello": b"hello"}),
        "cut": archive[: len(archive) // 2 // 512 * 512 + 100],
    }[kind]

    with pytest.raises(ImageArchiveError):
        await lab.engine.load_images(in_pieces(broken))

    with pytest.raises(ImageNotFoundError):
        await lab.engine.image(tag)


async def test_a_build_shows_its_steps_and_labels_its_image(lab: Lab) -> None:
    """Progress comes as lines; the result can be started."""
    tag = lab.tag("build")
    context = tar_of({"Containerfile": f"FROM {lab.image}\nRUN {behaviours.STEP}\n".encode()})

    with anyio.fail_after(lab.deadline(60)):
        lines = [line async for line in lab.engine.build(context, tag, build_args={}, labels=LABELS)]

    assert any("step-42" in line for line in lines)
    assert (await lab.engine.image(tag)).labels.items() >= LABELS.items()
    assert "" not in lines


async def test_a_build_that_fails_says_what_its_last_words_were(lab: Lab) -> None:
    """The message has the output of the step that failed, and no image comes of it."""
    tag = lab.tag("build")
    context = tar_of({"Containerfile": f"FROM {lab.image}\nRUN {behaviours.FAILING_STEP}\n".encode()})

    with pytest.raises(ImageBuildError, match="reason-42"), anyio.fail_after(lab.deadline(60)):
        async for _ in lab.engine.build(context, tag, build_args={}, labels=LABELS):
            pass

    with pytest.raises(ImageNotFoundError):
        await lab.engine.image(tag)


async def test_a_failed_build_does_not_pass_for_the_image_that_had_the_tag_before(lab: Lab) -> None:
    """An old image of the name is no success."""
    tag = lab.tag("build")
    await lab.engine.import_rootfs(in_pieces(tar_of({"etc/hello": b"hello"})), tag, labels=LABELS)
    context = tar_of({"Containerfile": f"FROM {lab.image}\nRUN {behaviours.FAILING_STEP}\n".encode()})

    with pytest.raises(ImageBuildError), anyio.fail_after(lab.deadline(60)):
        async for _ in lab.engine.build(context, tag, build_args={}, labels=LABELS):
            pass


async def test_progress_can_be_read_line_by_line_under_deadlines_of_the_readers_own(lab: Lab) -> None:
    """The scope of a verb's deadline must not leak into whoever reads its progress."""
    context = tar_of({"Containerfile": f"FROM {lab.image}\nRUN {behaviours.STEP}\n".encode()})
    lines = lab.engine.build(context, lab.tag("build"), build_args={}, labels=LABELS).__aiter__()
    count = 0

    while True:
        with anyio.fail_after(lab.deadline(30)):
            try:
                await lines.__anext__()
            except StopAsyncIteration:
                break
        count += 1

    assert count >= 2
