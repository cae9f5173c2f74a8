# What the commands of this folder share; to be sourced, with the current directory at the top of the project.
# The Python that is here, never one from elsewhere.
export UV_PYTHON_DOWNLOADS=never
# Hard links do not cross file systems; copying says nothing about it.
export UV_LINK_MODE=copy
unset VIRTUAL_ENV
CACHE=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/relayd-dev
ME=packaging/$(basename "$0")

say() { printf '%s\n' "$*" >&2; }
die() { say "$ME: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# quietly WHAT COMMAND...: nothing of COMMAND is seen unless it fails; then all of it, and WHAT could not be done.
quietly() {
  local what=$1 log
  shift
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    die "could not $what: see above${ONLINE:+. Is the network reachable?}"
  fi
  rm -f "$log"
}

# --- distribution packages -----------------------------------------------------------------------------------------

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

can_install() {
  have apt-get && { [ "$(id -u)" = 0 ] || { have sudo && sudo -n true 2>/dev/null; }; }
}

apt_install() {
  # A fresh machine has no package lists, an old one stale ones.
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" ||
    { as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }
}

# need PACKAGE...: install them, or end with their names.
need() {
  [ $# -gt 0 ] || return 0
  can_install || die "these packages are missing, and need root (or sudo without a password): apt-get install $*"
  say "installing packages: $*"
  ONLINE=1 quietly "install $*" apt_install "$@"
}

# --- uv ------------------------------------------------------------------------------------------------------------

# find_uv PYTHON: sets UV: the one on the PATH, else one in a virtual environment of its own.
find_uv() {
  local python=$1
  UV=uv
  if uv --version >/dev/null 2>&1; then return; fi
  UV=$CACHE/bin/uv
  if "$UV" --version >/dev/null 2>&1; then return; fi
  # Debian has venv without what it needs to put pip in.
  "$python" -c 'import ensurepip, venv' 2>/dev/null || need python3-venv
  say "installing uv in $CACHE"
  quietly "make a virtual environment in $CACHE" "$python" -m venv --clear "$CACHE"
  ONLINE=1 quietly "install uv" "$CACHE/bin/pip" install uv
}
