"""The browser's command line: one table of switches, with the versions that know them and the reason for each.

A switch that a version does not know is ignored by it without a word, so the table is held against the names inside
the program by a test. What must stay as it is while no agent drives the browser belongs here or into `preferences`,
because what is set over DevTools ends with the connection. --no-sandbox is never here: pages are strangers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

Rendering = Literal["software", "vulkan"]
"""What draws a page: the host's cores, or the device by Vulkan."""

OLDEST_VERSION = 120
"""Major version that is needed at least: the flags and the protocol as used here were not tried with older ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A switch, or a feature that is turned off."""

    text: str
    """The switch with its value, "--kiosk"; for a feature its name."""
    why: str
    """What goes wrong without it."""
    since: int = 0
    """First major version that has it."""
    until: int = 10_000
    """First major version that has it no longer."""


FLAGS: tuple[Flag, ...] = (
    Flag(text="--kiosk", why="the page fills the display, without bars, bubbles and info bars"),
    Flag(text="--start-fullscreen", why="the same, said again: --kiosk alone is lost on the window manager at times"),
    Flag(text="--window-position=0,0", why="the window begins where it stays, not where it is moved from"),
    Flag(text="--no-first-run", why="no welcome page"),
    Flag(text="--no-default-browser-check", why="no info bar about it"),
    Flag(text="--disable-infobars", why="no info bars: about API keys, for instance"),
    Flag(text="--hide-crash-restore-bubble", why="no question whether to restore pages"),
    Flag(text="--disable-search-engine-choice-screen", why="no question for a search engine", since=118),
    Flag(text="--noerrdialogs", why="no error dialogs in the picture"),
    Flag(text="--deny-permission-prompts", why="no permission prompts in the picture"),
    Flag(text="--disable-blink-features=WebAuth,FedCm", why="no question for a security key or an account"),
    Flag(text="--disable-hang-monitor", why="no question whether to end a busy page"),
    Flag(text="--disable-prompt-on-repost", why="no question whether to send a form again"),
    Flag(text="--disable-domain-blocking-for-3d-apis", why="a page whose WebGL crashed may try again, unasked"),
    Flag(text="--disable-gpu-process-crash-limit", why="pages that crash the GPU process do not end the browser"),
    Flag(text="--autoplay-policy=no-user-gesture-required", why="nobody is there to click on play"),
    Flag(text="--disable-background-timer-throttling", why="a page is never in the background"),
    Flag(text="--disable-backgrounding-occluded-windows", why="nothing lies over the page that should slow it down"),
    Flag(text="--disable-renderer-backgrounding", why="a page is never in the background"),
    Flag(text="--disable-background-networking", why="no traffic but the page's"),
    Flag(text="--disable-component-update", why="no traffic but the page's"),
    Flag(text="--disable-domain-reliability", why="no traffic but the page's"),
    Flag(text="--disable-default-apps", why="no traffic but the page's"),
    Flag(text="--disable-sync", why="no traffic but the page's"),
    Flag(text="--disable-field-trial-config", why="no experiments: two recordings of a page look alike"),
    Flag(text="--disable-updater-scheduler", why="no traffic but the page's", since=120),
    Flag(text="--no-pings", why="no traffic but the page's"),
    Flag(text="--disable-extensions", why="a distribution's extensions would change pages"),
    Flag(text="--disable-component-extensions-with-background-pages", why="memory, and start-up time"),
    Flag(text="--metrics-recording-only", why="nothing is reported to anybody"),
    Flag(text="--disable-breakpad", why="no crash reports"),
    Flag(text="--disable-stack-profiler", why="no profiler thread", since=120),
    Flag(text="--password-store=basic", why="no key ring is asked, which there is none of"),
    Flag(text="--force-color-profile=srgb", why="colours are the page's, whatever the X server says of its screen"),
    Flag(text="--disable-quic", why="QUIC goes past the proxy"),
    Flag(
        text="--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
        why="WebRTC's UDP goes past the proxy",
        until=140,
    ),
    Flag(text="--webrtc-ip-handling-policy=disable_non_proxied_udp", why="WebRTC's UDP goes past the proxy"),
    Flag(text="--remote-debugging-port=0", why="it is driven over a port of its own choice"),
)

SOFTWARE_FLAGS: tuple[Flag, ...] = (
    Flag(text="--disable-gpu", why="looking for a GPU in vain starts the GPU process three times, for 0.2 s"),
    Flag(text="--enable-unsafe-swiftshader", why="WebGL without a GPU; pages are sandboxed all the same", since=130),
)

VULKAN_FLAGS: tuple[Flag, ...] = (
    Flag(text="--use-angle=vulkan", why="the GPU without an X server on it; --use-gl=desktop is gone"),
    Flag(text="--enable-features=Vulkan", why="the same for the compositor"),
    Flag(text="--disable-vulkan-surface", why="an Xvfb's window is no Vulkan surface: pictures are copied to it"),
    Flag(text="--ignore-gpu-blocklist", why="data centre drivers are on no list"),
    Flag(text="--enable-gpu-rasterization", why="raster work is the GPU's too"),
)

DISABLED_FEATURES: tuple[Flag, ...] = (
    Flag(text="Translate", why="no question whether to translate"),
    Flag(text="MediaRouter", why="no search for cast devices in the network"),
    Flag(text="DialMediaRouteProvider", why="no search for cast devices in the network"),
    Flag(text="GlobalMediaControls", why="no media bubble"),
    Flag(text="WebUIOmniboxPopup", why="an address bar that nobody sees has pages of its own: half of a start"),
    Flag(text="WebUIOmniboxAimPopup", why="the second of these"),
    Flag(text="OptimizationHints", why="no traffic but the page's"),
    Flag(text="InterestFeedContentSuggestions", why="no traffic but the page's", until=140),
    Flag(text="HttpsUpgrades", why="a page is asked as its URL says"),
    Flag(text="HttpsFirstBalancedModeAutoEnable", why="no warning page in front of an http page", since=120),
    Flag(text="AvoidCorsURLLoaderRestartOnRedirect", why="requests that are redirected fail when headers are added"),
    Flag(text="NetworkTimeServiceQuerying", why="no traffic but the page's"),
)


USE_UP_PROGRAM = "globalThis.useUpProgram?.()"
"""What is said to a start page once its window fills the display. Any earlier, while the window is still being made,
one start in fifteen on a busy machine draws nothing ever after."""
PROGRAM_URL = "mailto:nobody"
"""Where the start page leads."""
START_PAGE = f"data:text/html,<script>useUpProgram = () => {{ location = '{PROGRAM_URL}' }}</script>"
"""A blank page that can use up the one program that a browser starts for a page without a user's gesture. Otherwise the
first redirect to any other scheme would ask "Open xdg-open?" over the page. For browsers that find no xdg-open."""


def browser_flags(
    version: int,
    *,
    width: int,
    height: int,
    profile: str,
    rendering: Rendering = "software",
    proxy_port: int | None = None,
    small_shared_memory: bool = False,
    more: Iterable[str] = (),
) -> tuple[str, ...]:
    """Makes the arguments for a browser on a display.

    Args:
        version: Its major version.
        width: Of the display, in pixels.
        height: Of the display, in pixels.
        profile: Folder of its profile.
        rendering: What draws.
        proxy_port: Port of the egress proxy, through which everything goes then. None: there is none, and private
            networks may be reached.
        small_shared_memory: Whether /dev/shm is too small for pictures, as in a container without --shm-size.
        more: The operator's own arguments, which come last and so win.

    Returns:
        Arguments, to be followed by what is opened first.
    """
    table = FLAGS + (SOFTWARE_FLAGS if rendering == "software" else VULKAN_FLAGS)
    disabled = [flag.text for flag in _known(DISABLED_FEATURES, version)]
    if proxy_port is None:
        disabled.append("LocalNetworkAccessChecks")  # The operator allows what it would ask a user about.
    flags = [flag.text for flag in _known(table, version)]
    flags += [
        f"--window-size={width},{height}",
        f"--user-data-dir={profile}",
        f"--disable-features={','.join(disabled)}",
    ]
    if proxy_port is not None:
        # Chromium goes to loopback directly by default, which "<-loopback>" takes back.
        flags += [f"--proxy-server=http://127.0.0.1:{proxy_port}", "--proxy-bypass-list=<-loopback>"]
    else:
        flags.append("--no-proxy-server")
    if small_shared_memory:
        flags.append("--disable-dev-shm-usage")
    return (*flags, *more)


def _known(table: tuple[Flag, ...], version: int) -> list[Flag]:
    return [flag for flag in table if flag.since <= version < flag.until]
