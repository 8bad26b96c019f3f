"""A process that does nothing but deliver, to be killed: `delivering_process.py ROOT SETTINGS [ARTIFACTS PATH]`.

With ARTIFACTS it begins with that; it ends when everything is settled.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from delivery_rig import delivering

from gpu_balancer.runtime.recording_sections import DestinationSettings


async def main(root: str, settings: str, *asked: str) -> None:
    """Delivers session s1 to one destination."""
    destination = DestinationSettings.model_validate_json(settings)
    async with delivering(Path(root), [destination]) as rig:
        if asked:
            artifacts, path = asked
            await rig.deliveries.begin("s1", 1, Path(artifacts), [path], [destination.name])
        await rig.until_settled()
        print(*(status.location for statuses in rig.deliveries.of_session("s1").values() for status in statuses))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
