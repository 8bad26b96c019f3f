"""The renditions of a session: the caller's own, or those of a profile of the daemon's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.client.device_requests import BalancerRequests
from gpu_balancer.client.specs import make_renditions
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpu_balancer.v1 import media_pb2


class LadderRequests(BalancerRequests):
    """What is made of the daemon's profiles."""

    async def profile_renditions(self, profile: str) -> Sequence[media_pb2.Rendition]:
        """Gives the renditions of a ladder of the daemon's settings.

        Raises:
            RequestFailure: With PROFILE_UNKNOWN, naming those that there are.
        """
        profiles = {known.name: known.renditions for known in (await self.get_balancer()).profiles}
        if profile not in profiles:
            known_names = ", ".join(sorted(profiles)) or "none: the settings have no profiles"
            raise RequestFailure(
                reason=Reason.PROFILE_UNKNOWN,
                message=f"Cannot find the profile {profile!r}. Try one of these: {known_names}.",
            )
        return profiles[profile]

    async def _ladder(
        self, renditions: Sequence[str | media_pb2.Rendition], profile: str, *, default: str
    ) -> Sequence[media_pb2.Rendition]:
        """Gives a profile's renditions, or makes those that were spelled, or the default one."""
        if not profile:
            return make_renditions(renditions or (default,))
        if renditions:
            raise ValueError("Cannot use a profile and renditions together. Try one of them.")
        return await self.profile_renditions(profile)
