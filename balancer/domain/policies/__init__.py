"""Policies: how a device is chosen among those that can take a session. Two ship; operators bring others."""

from balancer.domain.policies.least_weighted_load import LeastWeightedLoad
from balancer.domain.policies.policy import Candidate, Choice, IndifferentPolicy, Policy
from balancer.domain.policies.wowza import Wowza

__all__ = ["Candidate", "Choice", "IndifferentPolicy", "LeastWeightedLoad", "Policy", "Wowza"]
