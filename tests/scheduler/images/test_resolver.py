"""Answers are remembered for a while, asked for once, and outlive a registry that is down."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from scheduler.errors import ImageError
from scheduler.images import CachedImages, EngineImages, ImageName, ResolvedImage, engine, pinned
from scheduler.images import resolver as resolver_module
from scheduler.requests import GpuRequest, TaskRequest
from tests.scheduler.programs import physical, shell

DIGEST = "sha256:" + "ab" * 32


@dataclass
class Source:
    """Answers with what is set, after a moment."""

    down: bool = False
    asked: list[str] = field(default_factory=list)

    async def resolve(self, name: str) -> ResolvedImage:
        self.asked.append(name)
        await asyncio.sleep(0)
        if self.down:
            raise ImageError(f"nobody tells of {name}")
        return ResolvedImage(name, str(ImageName.parse(name).at(DIGEST)), DIGEST)


@pytest.fixture
async def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the loop's clock go on by so much."""
    loop = asyncio.get_running_loop()
    ahead = [0.0]
    real = loop.time
    monkeypatch.setattr(loop, "time", lambda: real() + ahead[0])

    def later(seconds: float) -> None:
        ahead[0] += seconds

    return later


async def test_an_answer_holds_for_a_while_and_is_asked_for_once(
    later: Callable[[float], None],
) -> None:
    source = Source()
    images = CachedImages(source, fresh=50)
    answers = await asyncio.gather(*(images.resolve("cal") for _ in range(5)))
    assert len(set(map(id, answers))) == 1
    assert source.asked == ["cal"]
    await images.resolve("cal")
    assert source.asked == ["cal"]
    later(51)
    await images.resolve("cal")
    assert source.asked == ["cal", "cal"]


async def test_the_last_answer_holds_longer_when_the_source_fails(
    later: Callable[[float], None],
) -> None:
    source = Source()
    images = CachedImages(source, fresh=10, stale=100)
    before = await images.resolve("cal")
    source.down = True
    later(50)
    assert await images.resolve("cal") == before
    later(51)
    with pytest.raises(ImageError, match="nobody tells"):
        await images.resolve("cal")


async def test_a_refusal_is_not_asked_for_again_at_once(later: Callable[[float], None]) -> None:
    source = Source(down=True)
    images = CachedImages(source, refused=10)
    for _ in range(3):
        with pytest.raises(ImageError):
            await images.resolve("cal")
    assert source.asked == ["cal"]
    source.down = False
    later(11)
    assert (await images.resolve("cal")).digest == DIGEST


async def test_an_override_is_run_instead() -> None:
    source = Source()
    images = CachedImages(source, overrides={"cal": "registry:5000/cal:fixed"})
    found = await images.resolve("cal")
    assert (found.name, found.reference) == ("cal", f"registry:5000/cal:fixed@{DIGEST}")


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "MAX_KEPT", 3)
    source = Source()
    images = CachedImages(source)
    for name in ("a", "b", "c", "d", "a", "d"):
        await images.resolve(name)
    assert source.asked == ["a", "b", "c", "d", "a"]


async def test_one_who_gives_up_does_not_take_the_answer_from_others() -> None:
    source = Source()
    images = CachedImages(source)
    one, other = (asyncio.ensure_future(images.resolve("cal")) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    assert (await other).digest == DIGEST
    await images.close()


async def test_what_code_an_image_is_made_of_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Labelled(Source):
        async def resolve(self, name: str) -> ResolvedImage:
            labels = {"org.opencontainers.image.version": "1.2\n", "other": "x"}
            return replace(await super().resolve(name), labels=labels)

    with caplog.at_level("INFO", logger="scheduler.images.pin"):
        await pinned(physical("g", shell("a", "true", image="cal")), Labelled())
    assert caplog.messages == [f"g: cal is {DIGEST} (version '1.2\\n')"]


async def test_a_graph_is_pinned_as_a_whole() -> None:
    source = Source()
    on_gpu = TaskRequest.of(gpus=[GpuRequest.of(0.5, 10)])
    graph = physical(
        "g",
        shell("a", "true", image="cal"),
        shell("b", "true", image="cal", gpu_images={"*A100*": "cal-a100"}, request=on_gpu),
        shell("c", "true"),
    )
    found = await pinned(graph, CachedImages(source))
    assert sorted(source.asked) == ["cal", "cal-a100"]
    reference = f"docker.io/library/cal:latest@{DIGEST}"
    assert [task.image for task in found.logical.tasks] == [reference, reference, None]
    assert found.tasks["b"].template.gpu_images == {
        "*A100*": f"docker.io/library/cal-a100:latest@{DIGEST}"
    }
    assert found.tasks["a"].task_id == graph.tasks["a"].task_id
    source.down = True
    with pytest.raises(ImageError, match="nobody tells"):
        await pinned(graph, source)


# ---------------------------------------------------------------------- a real engine


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def image(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A tiny image with a label, in the engine of this machine."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        pytest.skip("there is no Docker engine")
    archive = tmp_path / "image.tar"
    with tarfile.open(archive, "w"):
        pass
    name = f"localhost/sdp-test-images:{tmp_path.name.lower()}"
    image_id = docker("import", "--change", "LABEL version=7", str(archive), name)
    yield name, image_id
    docker("rmi", name)


async def test_the_engine_tells_of_what_it_has(image: tuple[str, str]) -> None:
    name, image_id = image
    found = await EngineImages().resolve(name)
    assert found.labels == {"version": "7"}
    assert found.digest in (image_id, found.reference, found.reference.rpartition("@")[2])
    with pytest.raises(ImageError, match="has no image"):
        await EngineImages().resolve(name + "-not")


@pytest.mark.parametrize("digests", [["<none>@<none>"], [5, None], {"a": 1}, None])
def test_digests_of_an_engine_that_are_none_are_passed_over(digests: object) -> None:
    found = {"Id": DIGEST, "RepoDigests": digests}
    assert engine._read("cal", ImageName.parse("cal"), found).digest == DIGEST


async def test_an_engine_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"Docker engine .*none\.sock"):
        await EngineImages(f"unix://{tmp_path}/none.sock").resolve("cal")
