"""What a task carries is read by the controllers that come after: its form is a promise."""

from __future__ import annotations

from scheduler.graph import TaskTemplate
from scheduler.labels import PLACE, PROGRAM, Found, Place, place_of, program, written
from scheduler.placement import Assignment
from scheduler.requests import TaskRequest

TEMPLATE = TaskTemplate(
    name="f.0",
    kind="f",
    command=("f", "--antenna=M000", "--name=Käse {cores}"),
    request=TaskRequest.of(cpus=1),
    env={"B": "2", "A": "{host}"},
    image="registry/f:1",
    gpu_images={"RTX*": "registry/f:2"},
)
ASSIGNMENT = Assignment(
    task="f.0",
    agent_id="S0",
    host="kühl-0",
    numa=1,
    cores=(3, 4),
    ports=(31000,),
    gpus=(0,),
    nics=(1,),
    role="sdp",
    held_cores=(5,),
)
URL = "http://10.0.0.1:5051/slave(1)"


def labels() -> dict[str, str]:
    return written(TEMPLATE, "g", ASSIGNMENT, "10.0.0.1", URL, "secret")


def read(told: dict[str, str]) -> Place | None:
    return place_of(Found("g.f.0.0", "TASK_RUNNING", "S0", told))


def test_a_program_has_the_digest_that_earlier_controllers_gave_it() -> None:
    """Else tasks that run through an upgrade would be taken for other programs, and ended."""
    assert labels()[PROGRAM] == program(TEMPLATE) == "861b841a0d657ed9"


def test_a_place_is_read_as_it_was_written() -> None:
    assert read(labels()) == Place(ASSIGNMENT, "10.0.0.1", URL)


def test_a_place_is_read_as_earlier_controllers_wrote_it() -> None:
    place = (
        '{"host":"k\\u00fchl-0","numa":1,"cores":[3,4],"ports":[31000],"gpus":[0],"nics":[1],"role":"sdp",'
        f'"held_cores":[5],"address":"10.0.0.1","url":"{URL}"}}'
    )
    assert read({**labels(), PLACE: place}) == Place(ASSIGNMENT, "10.0.0.1", URL)
