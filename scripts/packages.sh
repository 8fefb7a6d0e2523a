# Sourced by the scripts that need packages: notes what is missing and installs it (Debian and its relatives).

missing=()

# The servers live in /usr/sbin, which an ordinary user's PATH leaves out.
need() { # PROGRAM PACKAGE...
    PATH=$PATH:/usr/sbin:/usr/local/sbin command -v "$1" >/dev/null || missing+=("${@:2}")
}

# SQLite and the allocator are C, and built along; their sources come by TLS.
need_for_building() {
    # rustup changes the PATH of later shells only.
    PATH=$PATH:${CARGO_HOME:-${HOME-}/.cargo}/bin
    if ! command -v cargo >/dev/null; then
        echo "Rust is needed: https://rustup.rs" >&2
        exit 1
    fi
    need cc gcc libc6-dev
    need make make
    [ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
}

# A package that brings a server must not start it: the tests start their own. Ends with the shell it is called in.
keep_services_down() {
    local policy=/usr/sbin/policy-rc.d
    [ -e "$policy" ] && return
    # shellcheck disable=SC2064 # the values of now are wanted
    trap "${as_root[*]} rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" install -m 755 /dev/stdin "$policy"
}

install_missing() {
    [ ${#missing[@]} -gt 0 ] || return 0
    local as_root=(env)
    if ! command -v apt-get >/dev/null; then
        echo "what Debian calls ${missing[*]} is needed; there is no apt-get here, please install it" >&2
        exit 1
    fi
    if [ "$(id -u)" != 0 ]; then
        as_root=(sudo -n)
        if ! sudo -n true 2>/dev/null; then
            echo "${missing[*]} is missing; install it as root: apt-get install ${missing[*]}" >&2
            exit 1
        fi
    fi
    echo "installing ${missing[*]}" >&2
    (
        keep_services_down
        "${as_root[@]}" apt-get update -qq </dev/null >&2
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >&2
    )
}
