# shellcheck shell=bash
# What must be installed before anything can run. Sourced by lib.sh.
#
# Only what is missing is installed, and only with apt: a machine that has everything is never asked
# for a password. The packages bring servers that Debian would start at once; we start our own, so
# the installation is guarded (see `apt_install_quietly`).

# Debian keeps server programs where an ordinary user's PATH does not look.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

have() { command -v "$1" >/dev/null 2>&1; }

# The directory of the newest installed PostgreSQL's programs; fails when there is none.
postgres_programs() {
    local initdb newest=
    while read -r initdb; do newest=$initdb; done < <(
        find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort --version-sort
    )
    [[ -n $newest ]] && dirname "$newest"
}

# The broker's own start script. The one in /usr/sbin is a wrapper that insists on the user
# `rabbitmq` and on the system's directories.
readonly RABBITMQ_SERVER=/usr/lib/rabbitmq/bin/rabbitmq-server

install_prerequisites() {
    local missing=()
    postgres_programs >/dev/null || missing+=(postgresql)
    [[ -x $RABBITMQ_SERVER ]] || missing+=(rabbitmq-server)
    have cc || missing+=(build-essential)
    have pkg-config || missing+=(pkg-config)
    have curl || missing+=(curl)
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || missing+=(ca-certificates)
    apt_install "${missing[@]}"
    ensure_cargo
}

install_test_prerequisites() {
    install_prerequisites
    # `import venv` succeeds without the package; it is `ensurepip` that Debian splits off.
    python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || apt_install python3 python3-venv
}

# What the acceptance tests import, in a virtual environment at VENV.
install_acceptance_packages() {
    local venv=$1
    [[ -x $venv/bin/pip ]] || python3 -m venv --clear "$venv" || return 1
    "$venv/bin/pip" install --quiet --disable-pip-version-check \
        -r "$ROOT/tests/acceptance/requirements.txt"
}

apt_install() {
    (($# > 0)) || return 0
    have apt-get || die "these are missing and there is no apt-get to install them with: $*"
    say "installing $*"
    # The function travels as text, because sudo starts a shell that knows nothing of this one.
    as_root bash -c "$(declare -f apt_install_quietly); apt_install_quietly \"\$@\"" bash "$@" ||
        die "apt-get could not install $*; its messages are above"
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    else
        have sudo || die "packages are missing; run this as root once, or install sudo"
        sudo "$@"
    fi
}

# Runs as root, in a shell of its own. Its variables are global to that shell, since the trap needs
# them after the function has returned.
apt_install_quietly() {
    set -euo pipefail
    export DEBIAN_FRONTEND=noninteractive
    policy=/usr/sbin/policy-rc.d
    no_cluster=/etc/postgresql-common/createcluster.d/posthorn.conf
    output=$(mktemp)
    guards=()
    # shellcheck disable=SC2317  # reached through the trap
    remove_guards() { rm -f "$output" "${guards[@]}"; }
    trap remove_guards EXIT

    # While we install, nothing that Debian brings may start: 101 means "forbidden by policy". A
    # policy that is already there is somebody's decision and stays.
    if [[ ! -e $policy ]]; then
        guards+=("$policy")
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    # Nor may the package lay out a database cluster that nobody asked for.
    if [[ ! -e $no_cluster ]]; then
        guards+=("$no_cluster")
        mkdir -p "${no_cluster%/*}"
        echo 'create_main_cluster = false' >"$no_cluster"
    fi

    if ! {
        apt-get update -qq &&
            apt-get install -qq --yes --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
    } </dev/null >"$output" 2>&1; then
        cat "$output" >&2
        exit 1
    fi
    # Nor may the next boot start a broker of the system's, if it is here because of us.
    if [[ " $* " == *" rabbitmq-server "* ]]; then
        systemctl disable --quiet rabbitmq-server.service epmd.socket epmd.service >/dev/null 2>&1 || true
    fi
}

# Rust, of the version that rust-toolchain.toml names: rustup sees to that by itself where it is
# installed. Debian's own cargo is too old to build this.
ensure_cargo() {
    local channel cargo_bin=${CARGO_HOME:-~/.cargo}/bin
    channel=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' "$ROOT/rust-toolchain.toml")
    case $(command -v cargo || true) in
        # rustup writes to ~/.cargo, and a shell that began before does not look there.
        '' | /usr/bin/cargo) [[ ! -x $cargo_bin/cargo ]] || PATH="$cargo_bin:$PATH" ;;
    esac
    ! cargo_is_new_enough "$channel" || return 0

    if ! have rustup; then
        # Debian has it as a package from 13 on.
        [[ $(apt-cache policy rustup 2>/dev/null) == *"Candidate: "[0-9]* ]] ||
            die "cargo $channel is missing, and this Debian has no rustup package: install Rust with rustup, then run this again"
        apt_install rustup
    fi
    say "installing Rust $channel"
    rustup toolchain install "$channel" --profile minimal --component clippy,rustfmt ||
        die "rustup could not install Rust $channel; its messages are above"
}

cargo_is_new_enough() {
    local installed
    installed=$(cd "$ROOT" && cargo --version 2>/dev/null | cut -d' ' -f2) &&
        printf '%s\n' "$1" "$installed" | sort --version-sort --check=quiet
}
