# shellcheck shell=bash
# What `up`, `down`, `test` and the acceptance tests share: messages, waiting, and processes that
# belong to one state directory (`.local`, called DIR below). Sourced, never run:
#
#   source deploy/local/lib.sh
#   dir=$(make_state_directory /tmp/trial)   # DIR is always what this printed
#   start_postgres "$dir" 15999
#
# Of a process NAME that we started, DIR holds
#   NAME.pid           its process id,
#   NAME.started-with  a fingerprint of what it was started with, so that a change restarts it,
#   log/NAME.log       all it prints.
# Pids are reused, so a pid file alone proves nothing: every process carries POSTHORN_LOCAL_DIR=DIR
# in its environment, and only one that does is ever counted as running or sent a signal.

# A command substitution that fails ends the script, wherever in it the failure was.
shopt -s inherit_errexit

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
readonly ROOT

# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$ROOT/deploy/local/packages.sh"
# shellcheck source-path=SCRIPTDIR source=servers.sh
source "$ROOT/deploy/local/servers.sh"

say() { printf '== %s\n' "$*"; }

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# --- the state directory ---

# Makes DIR and prints its absolute path. Others may pass through it (the servers run as users of
# their own when we are root), but what is secret in it is readable by its owner only.
make_state_directory() {
    local dir=$1
    mkdir -p "$dir/log" 2>/dev/null || die "cannot write to $dir; was it made by another user?"
    [[ -O $dir ]] || die "$dir belongs to $(stat -c %U "$dir"); run this as that user"
    chmod 711 "$dir"
    readlink -f "$dir"
}

# Lets one script at a time work on DIR. The lock is file descriptor 9, which no child keeps.
lock_state_directory() {
    local dir=$1
    while :; do
        exec 9>"$dir/lock"
        flock --nonblock 9 || {
            say "waiting for another run that works on $dir"
            flock 9
        }
        # `down --erase` may have removed the file while we waited for it.
        [[ $dir/lock -ef /dev/fd/9 ]] && return
        make_state_directory "$dir" >/dev/null
    done
}

# Eight characters that tell one state directory from another.
short_hash() { printf '%s' "$1" | sha256sum | head -c 8; }

fingerprint() { sha256sum | head -c 64; }

# Prints the secret kept in FILE, which the command makes on the first call: secret FILE COMMAND...
secret() {
    local file=$1
    shift
    if [[ ! -s $file ]]; then
        (umask 077 && "$@" >"$file.new" && mv "$file.new" "$file")
    fi
    cat "$file"
}

# Letters and digits only, so that it can stand in a URL as it is.
random_hex() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

# --- waiting ---

# wait_until SECONDS COMMAND...: true as soon as the command is, false when the time is up.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

# Whether something listens on the port, whoever it is.
port_is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# claim_ports DIR "PROCESS SETTING"...: the port in each SETTING is for PROCESS. One that something
# else has is better found before the build than after it. (A port is ours already when its process
# runs and had this very port the last time.)
claim_ports() {
    local dir=$1 line process setting port claimed=
    shift
    for line in "$@"; do
        read -r process setting <<<"$line"
        port=${!setting}
        [[ $port =~ ^[1-9][0-9]{0,4}$ ]] || die "$setting=$port is not a port"
        [[ $claimed != *"=$port"$'\n'* ]] || die "$setting=$port is in use by another setting"
        claimed+="$setting=$port"$'\n'
        if is_running "$dir" "$process" && grep -qxF "$setting=$port" "$dir/ports" 2>/dev/null; then
            continue
        fi
        ! port_is_taken "$port" ||
            die "port $port is taken by another program; choose another with $setting=<port>"
    done
    printf '%s' "$claimed" >"$dir/ports"
}

# --- processes ---

# Prints the pid of process NAME of DIR, and fails when it does not run.
pid_of() {
    local dir=$1 name=$2 pid environment
    pid=$(cat "$dir/$name.pid" 2>/dev/null) || return 1
    for _ in {1..50}; do
        environment=$(tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ") || return 1
        if [[ -n $environment ]]; then
            grep -qxF "POSTHORN_LOCAL_DIR=$dir" <<<"$environment" || return 1
            echo "$pid"
            return
        fi
        # It reads as empty for an instant while one program takes another's place (exec), and for
        # good when the process has ended but its parent has not noticed.
        ! grep -q '^State:.*Z' "/proc/$pid/status" 2>/dev/null || return 1
        sleep 0.01
    done
    return 1
}

is_running() { pid_of "$1" "$2" >/dev/null; }
is_stopped() { ! is_running "$1" "$2"; }

# Whether process NAME of DIR runs and was started with the same FINGERPRINT.
runs_unchanged() {
    local dir=$1 name=$2 fingerprint=$3
    is_running "$dir" "$name" && grep -qxF "$fingerprint" "$dir/$name.started-with" 2>/dev/null
}

# launch DIR NAME FINGERPRINT COMMAND...: starts a process that outlives this script and its
# terminal, and holds on to nothing of ours (so that `up | cat` ends). What COMMAND starts with has
# to end in an exec, because the pid noted here must be the pid of the process that stays.
launch() {
    local dir=$1 name=$2 fingerprint=$3 pid
    shift 3
    POSTHORN_LOCAL_DIR=$dir setsid "$@" </dev/null >>"$dir/log/$name.log" 2>&1 9>&- &
    pid=$!
    echo "$pid" >"$dir/$name.pid"
    echo "$fingerprint" >"$dir/$name.started-with"
    # Between fork and exec it does not carry our mark yet, and would count as not running.
    until is_running "$dir" "$name" || ! kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
    # Without this the shell would comment on its end.
    disown "$pid" 2>/dev/null || true
}

# Longer than a service's own grace period, in which it finishes what it has in hand.
# shellcheck disable=SC2034  # for the scripts that source this
readonly SERVICE_STOP_SECONDS=45

# stop_process DIR NAME SECONDS [SIGNAL]: asks, waits, and in the end insists.
stop_process() {
    local dir=$1 name=$2 grace=$3 signal=${4:-TERM} pid
    if pid=$(pid_of "$dir" "$name"); then
        kill -s "$signal" "$pid" 2>/dev/null || true
        if ! wait_until "$grace" is_stopped "$dir" "$name"; then
            say "$name did not stop within $grace s: killing it"
            kill -s KILL "$pid" 2>/dev/null || true
            wait_until 10 is_stopped "$dir" "$name" || die "$name (pid $pid) cannot be killed"
        fi
    fi
    rm -f "$dir/$name.pid" "$dir/$name.started-with"
}

# Explains why process NAME of DIR is not there, with the end of its log.
die_of() {
    local dir=$1 name=$2 what=$3
    printf '%s\n' "--- the end of $dir/log/$name.log" >&2
    tail -n 25 "$dir/log/$name.log" >&2 || true
    die "$name $what"
}
