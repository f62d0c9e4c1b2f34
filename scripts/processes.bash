# What scripts/services and scripts/platform have in common: one caller at a time, values kept in a folder, and processes that
# outlive the shell. To be sourced, after `dir` was set.
# shellcheck disable=SC2034,SC2154 # variables from and for the script that sources it

say() { printf '%s\n' "$*" >&2; }
die() {
    say "scripts/$(basename -- "$0"): $*"
    exit 1
}

# One caller at a time may change what runs in the folder $1. A purge removes the lock's file with the folder, so who waited
# for it looks whether what it got is still the file that everybody else will lock.
lock_folder() {
    while true; do
        mkdir -p -- "$1" || die "cannot create $1"
        exec {lock}>"$1/lock" || die "cannot write to $1"
        flock "$lock"
        [[ $(stat -Lc %d:%i "/proc/self/fd/$lock") == "$(stat -c %d:%i "$1/lock" 2>/dev/null)" ]] && return
        exec {lock}>&-
    done
}

# A value kept in the folder: its content, or nothing.
kept() { cat -- "$dir/$1" 2>/dev/null || true; }

# Makes a password that needs no escaping anywhere, unless there is one.
keep_secret() {
    local file=$dir/$1
    [[ -s $file ]] && return
    (umask 077 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$file.new")
    mv -- "$file.new" "$file"
}

# Starts a program for good, its output in the files $1 (standard output) and $2 (standard error): in a session of its own, and
# without any file of ours or of our caller's, who would otherwise wait for the end of a pipe, or for the lock, as long as the
# program runs. Leaves its process id in `launched`.
launch() {
    local out=$1 err=$2 fd
    shift 2
    (
        for fd in "/proc/$BASHPID/fd"/*; do
            fd=${fd##*/}
            if ((fd > 2)); then exec {fd}>&-; fi
        done
        exec setsid "$@"
    ) </dev/null >>"$out" 2>>"$err" &
    launched=$!
}
