"""Sections of settings about recordings. The balancer writes them for its agents, as it does `settings_sections`."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from gpu_balancer.runtime.settings_values import AbsolutePath, Distinct, Hours, Many, Seconds, Section, refuse

_USER_IDS = re.compile(r"(\d{1,10})-(\d{1,10})", re.ASCII)
_LARGEST_USER_ID = 2**32 - 2

_Named = TypeVar("_Named", "ApplicationSettings", "DestinationSettings")

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,39}$"
"""Of an application or a destination."""


def parse_user_ids(text: str) -> range:
    """Reads a range of user ids: "61184-65519".

    Raises:
        ValueError: When it does not parse, goes backwards, or has root in it.
    """
    match = _USER_IDS.fullmatch(text)
    if match is None:
        raise ValueError(f'must be a range of user ids such as "61184-65519", not {text!r}')
    first, last = int(match[1]), int(match[2])
    if not 1 <= first <= last <= _LARGEST_USER_ID:
        raise ValueError(f"must be a rising range of user ids from 1 on, not {text!r}")
    return range(first, last + 1)


def _checked_user_ids(text: str) -> str:
    parse_user_ids(text)
    return text


def _checked_command(command: tuple[str, ...]) -> tuple[str, ...]:
    if not command or not command[0].startswith("/"):
        raise ValueError("must begin with the absolute path of a program")
    return command


def _checked_program(program: str) -> str:
    if not program or ("/" in program and not program.startswith("/")):
        raise ValueError(f"must be the name of a program or an absolute path, not {program!r}")
    return program


class RecordingSettings(Section):
    """Displays, and what may be shown on them."""

    enabled: bool = True
    """Whether recordings are made at all."""
    displays: Annotated[int, Field(ge=1, le=256)] = 4
    """Displays of one agent that may be in use at once."""
    warm_displays: Annotated[int, Field(ge=0, le=64)] = 1
    """Displays of one agent that stand ready with a browser, so that a recording begins within half a second."""
    prewarm: bool = False
    """Makes them ready when the agent starts. Otherwise when a first recording has come, so that who records nothing
    pays nothing."""
    largest_width: Annotated[int, Field(ge=640, le=16384)] = 3840
    """Pixels of a display at most; its memory is taken for this size."""
    largest_height: Annotated[int, Field(ge=360, le=16384)] = 2160
    """Pixels of a display at most."""
    largest_memory_mib: Annotated[int, Field(ge=256)] = 4096
    """Memory that one display may take with all that runs on it, in MiB. A recording that takes more is ended."""
    largest_folder_mib: Annotated[int, Field(ge=64)] = 2048
    """Disk that the browser of one display may take, in MiB: its profile, its caches, and what pages store."""
    acquire_timeout_s: Seconds = 15.0
    """Seconds until a display must be ready for a recording."""
    url_schemes: Distinct[Literal["http", "https", "file", "data"]] = ("http", "https")
    """Schemes of pages that may be recorded. Whether pages may be on private networks, [inputs] says."""
    sound_delay_ms: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] | None = None
    """Milliseconds by which the sound of recordings is delayed against its picture. Not given: as a calibration of
    sound found (`gpu-balancer devices calibrate --sound`), else 20."""
    user_ids: Annotated[str, AfterValidator(_checked_user_ids)] = "61184-65519"
    """User ids for displays and what runs on them when the agent runs as root: each display gets one of its own."""
    run_dir: AbsolutePath | None = None
    """Folder for sockets, browser profiles and the like while they are in use. Not given: /run/gpu-balancer for root,
    else below XDG_RUNTIME_DIR, else below /tmp."""


class BrowserSettings(Section):
    """The browser that shows pages."""

    candidates: Annotated[Distinct[Annotated[str, AfterValidator(_checked_program)]], Field(min_length=1)] = (
        "chromium",
        "chromium-browser",
        "google-chrome-stable",
        "google-chrome",
    )
    """Chromium programs in order of preference: names on the PATH, or absolute paths."""
    arguments: Many[str] = ()
    """Further arguments of the operator's. --no-sandbox is refused."""
    rendering: Literal["auto", "vulkan", "software"] = "auto"
    """What draws pages: the GPU by Vulkan, or the host's cores. "auto": the GPU of a GPU's agent, where programs see no
    other one. Where the browser turns out not to draw on a GPU, cores do."""

    @model_validator(mode="after")
    def _sandboxed(self) -> Self:
        for index, argument in enumerate(self.arguments):
            if argument.lstrip("-").split("=")[0] in ("no-sandbox", "disable-setuid-sandbox", "disable-web-security"):
                refuse([(("arguments", index), f"must not be {argument!r}: pages are strangers")])
        return self


class ApplicationSettings(Section):
    """A program that clients may ask to be recorded, by its name."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    """What clients ask for: lower-case letters, digits, '-', '_'."""
    command: Annotated[Many[str], AfterValidator(_checked_command)]
    """Absolute path of the program, then its arguments. Clients cannot add any."""


class DestinationSettings(Section):
    """Where artifacts are copied when a client asks for it by name."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    """What clients ask for: lower-case letters, digits, '-', '_'."""
    kind: Literal["folder", "s3"]
    """A folder of this machine, or a bucket of an S3-compatible store."""
    path: AbsolutePath | None = None
    """The folder; copies go to {path}/{session}/{artifact}. For "folder"."""
    bucket: Annotated[str, Field(pattern=r"^[A-Za-z0-9.][A-Za-z0-9._-]{1,254}$")] | None = None
    """The bucket. For "s3"."""
    prefix: str = ""
    """Put before {session}/{artifact} in the key, as it is. For "s3"."""
    endpoint: str | None = None
    """URL of the store. Not given: Amazon's. For "s3"."""
    region: str = "us-east-1"
    """For "s3"."""
    credentials_file: AbsolutePath | None = None
    """A file with the lines access_key_id = … and secret_access_key = …, readable by the agent only. Not given: the
    agent's environment, or the machine's role. For "s3"."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "folder" and self.path is None:
            refuse([(("path",), 'must be given for kind = "folder"')])
        if self.kind == "s3" and self.bucket is None:
            refuse([(("bucket",), 'must be given for kind = "s3"')])
        return self


class DeliverySettings(Section):
    """How copies to destinations are made."""

    first_pause_s: Seconds = 2.0
    """Seconds before a failed copy is tried again; doubled each further time."""
    longest_pause_s: Seconds = 300.0
    """Seconds between tries at most."""
    give_up_after_h: Hours = 72.0
    """Hours after which a copy is given up; its artifact is kept all the same."""
    spill_dir: AbsolutePath | None = None
    """Folder to which artifacts are put when their destination is away, so that sessions may be deleted. Not given:
    they stay where they are, and their sessions cannot be deleted meanwhile."""


def named_once(entries: tuple[_Named, ...]) -> tuple[_Named, ...]:
    """Refuses two entries of one name."""
    names = [entry.name for entry in entries]
    refuse(
        ((index, "name"), f"must not be used twice: {name!r}")
        for index, name in enumerate(names)
        if name in names[:index]
    )
    return entries


Applications = Many[ApplicationSettings]
Destinations = Many[DestinationSettings]
