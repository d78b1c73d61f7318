# shellcheck shell=sh
# How a package says by itself how it is started, the same in all runtimes. For dinp-start, which is in /app when it
# reads this.

# Whether a line is one command that is a program: no shell is needed once it runs.
is_plain() {
    case $1 in *[\;\&\|]*) return 1 ;; esac
    case $(command -v -- "${1%%[[:space:]]*}") in */*) return 0 ;; *) return 1 ;; esac
}

# Runs a line for a shell in place of this one.
exec_line() {
    if is_plain "$1"; then
        exec /bin/sh -c "exec $1"
    fi
    # A stop reaches all of the line's processes: the shell waits for the one that runs, and begins no further one.
    exec /bin/sh -c "trap 'exit \$?' TERM; $1"
}

# Starts `control start`, else the line `web:` of the Procfile, where there is one of them.
exec_own() {
    if [ -f control ] && [ -x control ]; then
        exec ./control start
    fi
    [ -f Procfile ] || return 0
    web=$(tr -d '\r' <Procfile | sed -n 's/^web:[[:space:]]*//p' | head -n 1)
    [ -n "$web" ] || give_up 'the Procfile has no line that starts with web:'
    exec_line "$web"
}

# Ends as a shell does that does not find what it is to run.
give_up() {
    printf 'dinp-start: %s\n' "$1" >&2
    exit 127
}
