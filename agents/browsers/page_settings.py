"""What a page is told of its viewer, as DevTools commands. Pure.

They hold while the connection that sent them does, so a later agent sends them again. What need not be said is not
said, so that a page without wishes stays as it is also while no agent is there; scroll bars a script hides meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agents.browsers.kiosk_window import NARROWEST_WINDOW
from agents.browsers.page_url import plain_url

if TYPE_CHECKING:
    from agents.displays.display import Display
    from agents.pipelines.recording import PageSource

_USUAL_LOCALE = "en-US"

Command = tuple[str, dict[str, Any]]
"""Method and parameters."""


def emulation_commands(source: PageSource, display: Display, user_agent: str) -> list[Command]:
    """Makes the commands for a page.

    Args:
        source: What is wished.
        display: Where it is shown, of the size that the page is to have.
        user_agent: What the browser calls itself.
    """
    commands: list[Command] = []
    scale = source.device_scale_factor
    if scale != 1 or display.width < NARROWEST_WINDOW:
        # Drawn at that scale, into a window that keeps its size.
        metrics = {"width": round(display.width / scale), "height": round(display.height / scale)}
        drawn = {"deviceScaleFactor": scale, "scale": scale, "dontSetVisibleSize": True, "mobile": False}
        commands.append(("Emulation.setDeviceMetricsOverride", {**metrics, **drawn}))
    if source.locale != _USUAL_LOCALE:
        commands.append(("Emulation.setLocaleOverride", {"locale": source.locale.replace("-", "_")}))
    if source.locale != _USUAL_LOCALE or source.user_agent is not None:
        agent = {"userAgent": source.user_agent or user_agent, "acceptLanguage": accepted_languages(source.locale)}
        commands.append(("Emulation.setUserAgentOverride", agent))
    if source.timezone is not None:
        commands.append(("Emulation.setTimezoneOverride", {"timezoneId": source.timezone}))
    if not source.show_scrollbars:
        # Not by --hide-scrollbars, which cannot be taken back.
        commands.append(("Emulation.setScrollbarsHidden", {"hidden": True}))
    if source.ignore_certificate_errors:
        commands.append(("Security.setIgnoreCertificateErrors", {"ignore": True}))
    return commands


def accepted_languages(locale: str) -> str:
    """Makes what Accept-Language says: "de-DE" gives "de-DE,de"."""
    language = locale.partition("-")[0]
    return locale if language == locale else f"{locale},{language}"


def cookie_command(source: PageSource) -> Command:
    """Makes the command that gives a page its cookies; one without a domain is sent to the page's very host only."""
    cookies = []
    for cookie in source.cookies:
        made: dict[str, Any] = {"name": cookie.name, "value": cookie.value, "path": cookie.path}
        made |= {"secure": cookie.secure, "httpOnly": cookie.http_only}
        made |= {"url": plain_url(source.url)} if cookie.domain is None else {"domain": cookie.domain}
        cookies.append(made)
    return "Network.setCookies", {"cookies": cookies}
