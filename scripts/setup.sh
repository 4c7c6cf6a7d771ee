# Sourced by the other scripts: says what is done, installs what is missing, keeps `.venv`.
# shellcheck shell=bash

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
SELF=${0##*/}
# Where a distribution puts its engines; the PATH of a plain user, or of cron, lacks it.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

UNFIT=2 # exit status: this machine lacks something that could not be installed

step() { printf '==> %s\n' "$*" >&2; }
note() { printf '    %s\n' "$*" >&2; }
unfit() {
    printf '%s: %s\n' "$SELF" "$1" >&2
    shift
    for line in "$@"; do note "$line"; done
    exit "$UNFIT"
}

# Run a command; show what it says only if it fails.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if [ "$status" != 0 ]; then
        note "This failed with status $status: $*"
        tail -n 30 "$log" | sed 's/^/    | /' >&2
    fi
    rm -f "$log"
    return "$status"
}

has() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" = 0 ]; }
may_be_root() { is_root || { has sudo && sudo -n true 2>/dev/null; }; }
as_root() { if is_root; then "$@"; else sudo -n "$@"; fi; }
apt() { quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 "$@"; }

# install WHAT PACKAGE...: install packages with apt-get; those that the release does not have are left out.
install() {
    local what=$1
    shift
    if ! has apt-get; then
        unfit "$what is missing, and there is no apt-get here to install it with." \
            "Install it with this system's own package manager (the Debian packages are: $*)," \
            "and start scripts/$SELF again."
    fi
    if ! may_be_root; then
        known_packages "$@"
        unfit "$what is missing. Only root can install it; you are $(id -un), without passwordless sudo." \
            "Run this, or ask an administrator to, and start scripts/$SELF again:" \
            "    sudo apt-get update && sudo apt-get install --no-install-recommends ${wanted[*]:-$*}"
    fi
    if [ -z "${apt_updated:-}" ]; then
        note "apt-get update"
        apt --quiet=2 update || true # an unreachable source need not be the one that is needed
        apt_updated=yes
    fi
    known_packages "$@"
    [ "${#wanted[@]}" != 0 ] || unfit "$what is missing, and this release has none of: $*."
    note "apt-get install ${wanted[*]}"
    apt install --yes --no-install-recommends --no-remove "${wanted[@]}" ||
        unfit "$what could not be installed."
}

# Set wanted to those of the packages that the release has, as far as apt's lists tell.
known_packages() {
    local package
    wanted=()
    for package in "$@"; do
        if apt-cache show "$package" >/dev/null 2>&1; then wanted+=("$package"); fi
    done
}

# Set PYTHON to an interpreter that the package runs on and that can make virtual environments.
find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        if has "$name" && "$name" -c "$FIT_PYTHON" 2>/dev/null; then
            PYTHON=$(command -v "$name")
            return 0
        fi
    done
    return 1
}
FIT_PYTHON='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))'

need_python() {
    if ! find_python; then
        install "Python 3.10 or later, with venv," python3 python3-venv ca-certificates
        find_python || unfit "this release's Python is too old: $(python3 --version). It takes 3.10 or later."
    fi
    note "$("$PYTHON" --version) at $PYTHON"
}

# need_venv WHAT...: have these in .venv: `package`, and dependency groups of pyproject.toml.
# A second run finds that nothing has changed and takes no time. The checkout itself is the lock.
need_venv() {
    need_python
    (
        flock 9
        stamp=$(printf '%s\n' "$ROOT" | cat - "$ROOT/pyproject.toml" | sha256sum)
        if ! "$VENV/bin/python" -c "$FIT_PYTHON" 2>/dev/null; then
            note "making $VENV"
            quietly "$PYTHON" -m venv --clear "$VENV" || exit
        fi
        for group in "$@"; do
            [ "$(cat "$VENV/.has-$group" 2>/dev/null)" != "$stamp" ] || continue
            note "installing into .venv: $group"
            pip_install "$group" || exit
            printf '%s\n' "$stamp" >"$VENV/.has-$group"
        done
        note "$VENV is up to date"
    ) 9<"$ROOT" || unfit "the virtual environment could not be made."
}

pip_install() {
    local pip=("$VENV/bin/python" -m pip --disable-pip-version-check install --quiet)
    if [ "$1" = package ]; then
        quietly "${pip[@]}" --editable "$ROOT"
    else
        # Dependency groups are known to pip since 25.1.
        quietly "${pip[@]}" 'pip>=25.1' && quietly "${pip[@]}" --group "$ROOT/pyproject.toml:$1"
    fi
}

# Ask the server's own code; see there for what it answers.
ready() { "$VENV/bin/python" "$ROOT/scripts/ready.py" "$@" </dev/null; }

# Have the sandbox image on the engine that the server would use.
need_image() {
    local status=0
    ready image || status=$?
    if [ "$status" = 4 ]; then
        install "mmdebstrap, which makes the image where no container registry is reached," mmdebstrap uidmap
        status=0
        ready image || status=$?
    fi
    return "$status"
}
