#!/bin/sh
# Makes sure of the system packages that building and testing need. Installs them when run as root on Debian or Ubuntu;
# otherwise names what is missing and fails.
set -eu

missing=
need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}

need python3 python3
python3 -c 'import venv, ensurepip' >/dev/null 2>&1 || missing="$missing python3-venv"
need gcc gcc
echo '#include <stdlib.h>' | { command -v gcc >/dev/null 2>&1 && gcc -E - >/dev/null 2>&1; } || missing="$missing libc6-dev"
need node nodejs
need npm npm

[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing:$missing"
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of package names
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
    exit 0
fi
echo "Cannot go on without:$missing. Install them, on Debian as root: apt-get install$missing" >&2
exit 1
