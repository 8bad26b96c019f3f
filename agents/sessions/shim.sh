#!/bin/sh
# Runs the program of one attempt and writes down how it ended, whatever happens to the agent meanwhile.
#
#   shim.sh FOLDER PROGRAM [ARGUMENT...]
#
# The agent starts it in a session and process group of its own, with FOLDER/lock open and locked: shim and program
# inherit that lock, so "the lock is free" means "all of them are gone", without trusting any process id.
#
# - The program runs in the foreground of the shim: sh then defers traps until it has ended, so no signal can cut the
#   wait short and the status is the program's own. (A background program with `wait` would lose it to a race, and
#   would have SIGINT ignored.)
# - The traps are handlers, not '' (ignore): an ignored signal would stay ignored in the program.
# - shim.pid, program.pid and exit were written with blanks by the agent and are overwritten in place: a full disk can
#   neither lose nor cut them. All is read into a function first, so that replacing this file changes no running shim.
main() {
    folder=$1
    shift
    trap : HUP INT QUIT TERM
    printf '%-15s\n' "$$" 1<>"$folder/shim.pid"
    /bin/sh -c '
        printf "%-15s\n" "$$" 1<>"$1/program.pid"
        shift
        exec "$@"
    ' shim "$folder" "$@" </dev/null >>"$folder/log" 2>&1
    printf '%-15s\n' "$?" 1<>"$folder/exit"
}
main "$@"
exit
