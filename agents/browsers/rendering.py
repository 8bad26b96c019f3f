"""What draws pages: the GPU where there is one that does, else the host's cores.

Flags are a wish: a browser that finds no driver, or may not open the device, draws in software without a word, or gives
pages no WebGL at all. So what it tells pages of itself is believed, not what it was asked for.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from agents.browsers.flags import Rendering

_DEVICES = Path("/dev")
_GPU = re.compile(r"nvidia\d+")
_SOFTWARE = re.compile(r"swiftshader|llvmpipe|softpipe|lavapipe|swrast|software", re.IGNORECASE)


def choose_rendering(
    wished: Literal["auto", "vulkan", "software"], *, of_gpu: bool, devices: Path = _DEVICES
) -> Rendering:
    """Chooses what a browser is to be asked to draw with.

    A browser takes the first GPU that it sees, and no flag names another. So where programs see several, none is taken
    unasked: pages of one device would be drawn on another.

    Args:
        wished: By the operator.
        of_gpu: Whether the agent's device is a GPU.
        devices: Folder of the device files.

    Returns:
        The flags to try.
    """
    if wished != "auto":
        return wished
    if not of_gpu:
        return "software"
    seen = [path for path in devices.glob("nvidia*") if _GPU.fullmatch(path.name)]
    return "vulkan" if len(seen) == 1 else "software"


def draws_on_gpu(renderer: str | None) -> bool:
    """Tells whether what a page is told of WebGL's renderer is a GPU: "ANGLE (NVIDIA, Vulkan 1.4.312 (…), NVIDIA)".

    Args:
        renderer: None: there is no WebGL, or it is not known.
    """
    return renderer is not None and _SOFTWARE.search(renderer) is None
