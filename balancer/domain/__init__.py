"""The trade, pure: devices, workloads, capacity, ledger, placement, session lifecycle. No I/O of any kind."""
