"""The `gpu-balancer` command.

Modules named `*_commands` say what may be typed and import nothing heavy, so that `--help` and completion are quick;
what a command does stands in `*_actions`, which is loaded when the command runs.
"""
