"""Sessions as clients ask for them, in protobuf's text format."""

from __future__ import annotations

from google.protobuf import text_format

from balancer.servicers.profile_translation import KnownProfiles
from balancer.servicers.session_validation import SessionDraft, draft_session
from balancer.settings.profiles import BUILT_IN_PROFILES
from gpu_balancer.v1 import session_pb2

PROFILES = KnownProfiles(lambda: BUILT_IN_PROFILES).now()

LADDER = """
transcode {
  input { uri: "/srv/media/in.mp4" }
  renditions { id: "1080p" encode { width: 1920 height: 1080 bit_rate_bps: 5000000 } }
  renditions { id: "720p" encode { width: 1280 height: 720 bit_rate_bps: 2800000 } }
  renditions { id: "480p" encode { width: 854 height: 480 bit_rate_bps: 1400000 } }
}
"""


def session(text: str) -> session_pb2.Session:
    """Reads a session from protobuf's text format."""
    return text_format.Parse(text, session_pb2.Session())


def draft(text: str) -> SessionDraft:
    """Checks a session that is written as text."""
    return draft_session(session(text), PROFILES)
