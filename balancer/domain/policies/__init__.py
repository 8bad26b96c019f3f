"""Policies: how a device is chosen among those that can take a session. Ten ship; operators bring others."""

from balancer.domain.policies.adaptive import Adaptive
from balancer.domain.policies.best_fit import BestFit
from balancer.domain.policies.dominant_resource import DominantResource
from balancer.domain.policies.first_fit import FirstFit
from balancer.domain.policies.least_weighted_load import LeastWeightedLoad
from balancer.domain.policies.livepeer import Livepeer
from balancer.domain.policies.policy import Candidate, Choice, Fallback, FallingBack, IndifferentPolicy, Policy
from balancer.domain.policies.round_robin import RoundRobin
from balancer.domain.policies.session_count import SessionCount
from balancer.domain.policies.utilization import LeastUtilization
from balancer.domain.policies.wowza import Wowza

__all__ = [
    "Adaptive",
    "BestFit",
    "Candidate",
    "Choice",
    "DominantResource",
    "Fallback",
    "FallingBack",
    "FirstFit",
    "IndifferentPolicy",
    "LeastUtilization",
    "LeastWeightedLoad",
    "Livepeer",
    "Policy",
    "RoundRobin",
    "SessionCount",
    "Wowza",
]
