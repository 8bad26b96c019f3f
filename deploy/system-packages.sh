#!/bin/sh
# Makes sure of the system packages that are needed: "run" for the product and its demonstration, "test" for the tests
# too. Installs what is missing when run as root on Debian or Ubuntu; otherwise names it and fails. What only recordings
# need is named, and no failure: everything else works without.
#   sh deploy/system-packages.sh run|test
set -eu

python=${PYTHON:-python3}
missing=
wanted=
need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
want() { # want COMMAND PACKAGE...
    command -v "$1" >/dev/null 2>&1 && return
    shift
    wanted="$wanted $*"
}

if ! command -v "$python" >/dev/null 2>&1; then
    missing="$missing python3 python3-venv"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Cannot use $("$python" --version): Python 3.11 or later is needed. Try make PYTHON=python3.12." >&2
    exit 1
elif ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    missing="$missing python3-venv"
fi
case ${1:-run} in
run) ;;
test)
    # The tests build a stand-in for NVIDIA's library, and speak to the daemon from Node.
    need gcc gcc
    if ! command -v gcc >/dev/null 2>&1 || ! echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1; then
        missing="$missing libc6-dev"
    fi
    need node nodejs
    need npm npm
    ;;
*)
    echo "Cannot tell what \"$1\" needs. Try run or test." >&2
    exit 2
    ;;
esac

# Displays, their windows and sound, and the browser that shows pages on them, with letters to show.
want Xvfb xvfb
want openbox openbox
want pulseaudio pulseaudio
want parec pulseaudio-utils
want chromium chromium fonts-dejavu-core

[ -n "$missing$wanted" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing:$missing$wanted"
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of package names
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing $wanted >/dev/null
    exit 0
fi
if [ -n "$wanted" ]; then
    echo "Recordings cannot be made without:$wanted. Try as root on Debian: apt-get install$wanted" >&2
fi
[ -n "$missing" ] || exit 0
echo "Cannot go on without:$missing. Try as root on Debian: apt-get install$missing" >&2
exit 1
