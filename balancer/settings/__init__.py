"""The settings of the balancer: the model of balancer.toml, which entry speaks of which device, what a change means."""

from balancer.settings.balancer_settings import (
    HIGHEST_WEIGHT,
    AgentsSettings,
    BalancerSessionSettings,
    BalancerSettings,
    CapacitySettings,
    CostFactors,
    CpuDeviceSettings,
    DeviceSettings,
    PlacementSettings,
    ServerSettings,
    UploadSettings,
)
from balancer.settings.changes import SettingsDiff, diff_settings
from balancer.settings.profiles import (
    BUILT_IN_PROFILES,
    AudioSettings,
    ProfileSettings,
    RenditionSettings,
    parse_frame_rate,
)

__all__ = [
    "BUILT_IN_PROFILES",
    "HIGHEST_WEIGHT",
    "AgentsSettings",
    "AudioSettings",
    "BalancerSessionSettings",
    "BalancerSettings",
    "CapacitySettings",
    "CostFactors",
    "CpuDeviceSettings",
    "DeviceSettings",
    "PlacementSettings",
    "ProfileSettings",
    "RenditionSettings",
    "ServerSettings",
    "SettingsDiff",
    "UploadSettings",
    "diff_settings",
    "parse_frame_rate",
]
