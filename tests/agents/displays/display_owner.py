"""An agent with displays, to be killed: it makes what it is told, says so on stdout, and waits for its end.

Arguments: the displays' folder, the run folder, and "lent" (two lent displays and a warm one) or "making" (one whose
browser never starts).
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from display_rig import SLEEP, opened_pool

from agents.displays import warming
from agents.displays.display import BrowserEndpoint, Display
from agents.displays.spawning import BROWSER


async def main(root: Path, run_dir: Path, kind: str) -> None:
    """Does as it is told."""

    warming.REFILL_PAUSE = timedelta()
    warming.SETTLED_AFTER = timedelta()

    async def start_browser(display: Display) -> BrowserEndpoint:
        await rig.pool.spawn(display, [SLEEP, "1000"], name=BROWSER)
        if kind == "making":
            print(json.dumps([asdict(display)]), flush=True)
            await asyncio.Event().wait()
        return BrowserEndpoint(url="http://127.0.0.1:1", name="Sleeper 1")

    async with opened_pool(root, run_dir, warm_displays=int(kind == "lent"), start_browser=start_browser) as rig:
        displays = [await rig.acquire(sound=True) for _ in range(2)]
        await rig.warm()
        print(json.dumps([asdict(display) for display in displays]), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
