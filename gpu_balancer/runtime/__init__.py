"""What both daemons stand on: settings files, failures, tasks, the gRPC server, telemetry. It knows no trade."""
