"""The agent of one device: it owns the device's processes and answers the balancer. One process per device."""
