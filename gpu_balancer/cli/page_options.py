"""From typed options to a page with everything that it is given. What is secret is never repeated."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_balancer.cli.invocation import Misuse, spelled
from gpu_balancer.client.recording_specs import make_cookie
from gpu_balancer.client.recording_spelling import parse_cookie, parse_header, parse_page_url
from gpu_balancer.v1 import recording_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpu_balancer.cli.record_options import PageOptions, SourceOptions

PASSWORD_VARIABLE = "GPU_BALANCER_PAGE_PASSWORD"  # noqa: S105 - the name of it
"""The environment variable for the password of --basic-auth."""

_FILE_BYTES_MAX = 64 * 1024
"""Of any file that options name: a script of a page may have no more, and nothing else needs as much."""


def typed_source(
    source: SourceOptions, page: PageOptions
) -> recording_pb2.PageSource | recording_pb2.ApplicationSource:
    """Makes a recording's source of its options; asks for a password when one is needed and nowhere to be found.

    Raises:
        Misuse: When something typed cannot be meant.
        OSError: When a file cannot be read.
    """
    if (source.url is None) == (source.application is None):
        raise Misuse("Cannot tell what to record. Try either the URL of a page, or --application NAME.")
    if source.url is None:
        named = _given(page)
        if named:
            raise Misuse(f"Cannot use {', '.join(named)} with --application: these are for pages.")
        return recording_pb2.ApplicationSource(name=source.application or "")
    with spelled("the URL"):
        made = recording_pb2.PageSource(url=parse_page_url(source.url))
    _add_looks(made, page)
    with spelled("--header"):
        made.headers.update(parse_header(line) for line in _lines("--header", page.header))
    with spelled("--cookie"):
        made.cookies.extend(make_cookie(parse_cookie(line)) for line in _lines("--cookie", page.cookie))
    if page.init_script is not None:
        made.init_script = _text("--init-script", page.init_script)
    if page.basic_auth is not None:
        if ":" in page.basic_auth:
            raise Misuse(
                "Cannot use --basic-auth: it takes the user alone, because other users can read what is typed. "
                f"Try --password-file, or {PASSWORD_VARIABLE}."
            )
        made.basic_auth.username = page.basic_auth
        made.basic_auth.password = _password(page)
    elif page.password_file is not None:
        raise Misuse("Cannot use --password-file without --basic-auth USER.")
    return made


def _given(page: PageOptions) -> list[str]:
    """Names the options of a page that were typed."""
    told = {
        "--scale": page.scale is not None,
        "--locale": page.locale,
        "--timezone": page.timezone,
        "--user-agent": page.user_agent,
        "--header": page.header,
        "--cookie": page.cookie,
        "--basic-auth": page.basic_auth,
        "--password-file": page.password_file,
        "--init-script": page.init_script,
        "--dark": page.dark,
        "--scrollbars": page.scrollbars,
        "--accept-http-errors": page.accept_http_errors,
        "--insecure": page.insecure,
    }
    return [option for option, value in told.items() if value]


def _add_looks(made: recording_pb2.PageSource, page: PageOptions) -> None:
    if page.scale is not None:
        made.device_scale_factor = page.scale
    if page.dark:
        made.color_scheme = recording_pb2.COLOR_SCHEME_DARK
    made.locale, made.timezone, made.user_agent = page.locale, page.timezone, page.user_agent
    made.show_scrollbars, made.accept_http_errors = page.scrollbars, page.accept_http_errors
    made.ignore_certificate_errors = page.insecure


def _lines(option: str, told: Sequence[str]) -> Iterator[str]:
    """Gives what was typed, in the place of @FILE its lines."""
    for one in told:
        if one.startswith("@"):
            yield from (line for line in _text(option, one[1:]).splitlines() if line.strip())
        else:
            yield one


def _text(option: str, file: str) -> str:
    """Reads a small file, which may be a pipe, or one that never ends."""
    with Path(file).expanduser().open("rb") as opened:
        data = opened.read(_FILE_BYTES_MAX + 1)
    if len(data) > _FILE_BYTES_MAX:
        raise Misuse(f"Cannot use {option}: {file} has more than {_FILE_BYTES_MAX:,} bytes. Try a smaller file.")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        problem = f"{file} is no UTF-8 text, from byte {error.start:,} on"
        raise Misuse(f"Cannot use {option}: {problem}. Try to convert it.") from error


def _password(page: PageOptions) -> str:
    """Finds the password: in a file, in the environment, or with whoever sits at the terminal."""
    if page.password_file is not None:
        text = _text("--password-file", page.password_file)
        return text.splitlines()[0] if text else ""
    told = os.environ.get(PASSWORD_VARIABLE)
    if told is not None:
        return told
    if not sys.stdin.isatty():
        raise Misuse(
            f"Cannot ask for the password of --basic-auth: there is no terminal. Try --password-file, or "
            f"{PASSWORD_VARIABLE}."
        )
    return getpass.getpass(f"Password of {page.basic_auth}: ", stream=sys.stderr)
