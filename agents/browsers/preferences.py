"""What stands in a fresh profile, so that nothing but the page gets into the picture. Pure.

Preferences hold while no agent is connected, as over a restart of the agent, which nothing does that is set over
DevTools. Names are Chromium's, from chrome/common/pref_names.h and components/*/pref_names.h.
"""

from __future__ import annotations

from typing import Any

_BLOCK = 2
_BLOCK_ALL_DOWNLOADS = 3

_BLOCKED_CONTENT = (
    "notifications", "geolocation", "media_stream_mic", "media_stream_camera", "popups", "midi_sysex", "sensors",
    "usb_guard", "serial_guard", "hid_guard", "bluetooth_guard", "file_system_write_guard", "idle_detection",
    "window_placement", "local_fonts", "payment_handler", "ar", "vr", "clipboard", "protocol_handlers",
    "automatic_downloads",
)  # fmt: skip
"""Things that a page would otherwise ask its user for, or that would come up over it."""


def profile_preferences() -> dict[str, Any]:
    """Makes Default/Preferences."""
    return {
        "browser": {"has_seen_welcome_page": True},
        "credentials_enable_service": False,
        "profile": {
            "default_content_setting_values": dict.fromkeys(_BLOCKED_CONTENT, _BLOCK),
            "exit_type": "Normal",
            "password_manager_enabled": False,
            "password_manager_leak_detection": False,
        },
        "autofill": {"profile_enabled": False, "credit_card_enabled": False},
        "translate": {"enabled": False},
        "search": {"suggest_enabled": False},
        "safebrowsing": {"enabled": False, "enhanced": False},
        "alternate_error_pages": {"enabled": False},
        "net": {"network_prediction_options": _BLOCK},
        "printing": {"enabled": False},
        "download_restrictions": _BLOCK_ALL_DOWNLOADS,
        "download": {"prompt_for_download": False},
        "download_bubble": {"partial_view_enabled": False},
        "webrtc": {"ip_handling_policy": "disable_non_proxied_udp", "multiple_routes_enabled": False},
    }


def local_state() -> dict[str, Any]:
    """Makes Local State, which belongs to the browser and not to one profile."""
    return {
        # Nobody can answer a server's question for a password; a session's own is sent without being asked.
        "auth": {"schemes": ""},
        "dns_over_https": {"mode": "off"},
        "background_mode": {"enabled": False},
        "hardware_acceleration_mode_previous": True,
        "user_experience_metrics": {"reporting_enabled": False},
    }
