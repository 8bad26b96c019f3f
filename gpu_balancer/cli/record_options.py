"""What may be typed to describe a recording, besides what it shares with a transcode."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import typer

from gpu_balancer.cli.job_options import LabelOption, SoftwareEncodeOption, WaitOption
from gpu_balancer.cli.restart_options import RestartOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What is recorded."""

    url: Annotated[str | None, typer.Argument(metavar="URL", help="A web page.", show_default=False)] = None
    application: Annotated[
        str | None,
        typer.Option("--application", metavar="NAME", help="A program of the operator's, instead of a page."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureOptions:
    """How it is looked at, when it begins, and when it ends."""

    size: Annotated[
        str | None, typer.Option("--size", metavar="WxH", help="Of the display; 720p is 1280x720. Default: 1280x720.")
    ] = None
    fps: Annotated[
        str | None, typer.Option("--fps", metavar="RATE", help="Pictures per second: 30, 29.97. Default: 30.")
    ] = None
    cursor: Annotated[bool, typer.Option("--cursor", help="Show the mouse pointer.")] = False
    no_sound: Annotated[bool, typer.Option("--no-sound", help="Record no sound.")] = False
    gate: Annotated[
        str | None,
        typer.Option(
            "--gate",
            metavar="GATE",
            help="What is awaited before the first picture: immediately, paint, network-idle, selector:CSS, "
            "signal[:WORD], window. Default: paint; for an application window.",
        ),
    ] = None
    gate_timeout: Annotated[
        str | None, typer.Option("--gate-timeout", metavar="TIME", help="How long it is awaited. Default: 30.")
    ] = None
    duration: Annotated[
        str | None,
        typer.Option(
            "--duration",
            "--max-duration",
            metavar="TIME",
            help="End after so much recorded time: 30s, 10m, 1:30:00. Default: go on until it is stopped.",
        ),
    ] = None
    until_signal: Annotated[
        str,
        typer.Option(
            "--until-signal",
            metavar="WORD",
            help="What a page logs to end it. Default: END_RECORDING.",
            show_default=False,
        ),
    ] = ""
    stop_on_silence: Annotated[
        str | None, typer.Option("--stop-on-silence", metavar="TIME", help="End after so long without sound.")
    ] = None
    stop_on_idle: Annotated[
        str | None, typer.Option("--stop-on-idle", metavar="TIME", help="End after so long without a change.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """What a page is given and told."""

    scale: Annotated[
        float | None,
        typer.Option("--scale", metavar="X", min=0.5, max=4, help="Pixels for each of the page's own. Default: 1."),
    ] = None
    locale: Annotated[str, typer.Option("--locale", metavar="TAG", help="de-DE. Default: en-US.")] = ""
    timezone: Annotated[
        str, typer.Option("--timezone", metavar="NAME", help="Europe/Berlin. Default: the agent's own.")
    ] = ""
    user_agent: Annotated[
        str, typer.Option("--user-agent", metavar="TEXT", help="What the browser calls itself. Default: what it is.")
    ] = ""
    header: Annotated[
        list[str],
        typer.Option(
            "--header",
            metavar="'NAME: VALUE'",
            help="Sent to the page's own origin. @FILE: one per line, hidden from other users. Repeatable.",
        ),
    ] = field(default_factory=list)
    cookie: Annotated[
        list[str],
        typer.Option(
            "--cookie",
            metavar="NAME=VALUE",
            help="May go on as in '; Domain=.example.org; Path=/; Secure; HttpOnly'. @FILE: one per line. Repeatable.",
        ),
    ] = field(default_factory=list)
    basic_auth: Annotated[
        str | None,
        typer.Option(
            "--basic-auth",
            metavar="USER",
            help="User for the page's server. The password is asked for, or in GPU_BALANCER_PAGE_PASSWORD.",
        ),
    ] = None
    password_file: Annotated[
        str | None,
        typer.Option("--password-file", metavar="FILE", help="Whose first line is the password of --basic-auth."),
    ] = None
    init_script: Annotated[
        str | None,
        typer.Option("--init-script", metavar="FILE", help="JavaScript run in every document before its own."),
    ] = None
    dark: Annotated[bool, typer.Option("--dark", help="Tell the page that its viewer prefers dark.")] = False
    scrollbars: Annotated[bool, typer.Option("--scrollbars", help="Show scroll bars.")] = False
    accept_http_errors: Annotated[
        bool, typer.Option("--accept-http-errors", help="Record the page also when its server answers with an error.")
    ] = False
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Record the page also when its certificate is not valid.")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishOptions(RestartOptions):
    """What is added to it, and what the session is like besides."""

    watermark: Annotated[
        str | None,
        typer.Option(
            "--watermark",
            metavar="PATH[:CORNER]",
            help="A picture of the daemon's machine over every frame: top-left, top-right, bottom-left, bottom-right.",
        ),
    ] = None
    thumbnails: Annotated[
        str | None, typer.Option("--thumbnails", metavar="TIME", help="Leave a JPEG each so much time: 10s.")
    ] = None
    to: Annotated[
        list[str],
        typer.Option(
            "--to", metavar="DESTINATION", help="Copy every file to this place of the operator's. Repeatable."
        ),
    ] = field(default_factory=list)
    wait_for_device: WaitOption = None
    label: LabelOption = field(default_factory=list)
    allow_software_encode: SoftwareEncodeOption = False
