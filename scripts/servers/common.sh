# Shared by the scripts beside it; sourced, never run. Each of them prints the path of one server's program on standard
# output and tells its progress on standard error. Nothing is installed on the system and no root is needed.
# Order: the environment variable, PATH, the cache in target/servers/, then an installation into that cache.
set -euo pipefail
cache=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/target/servers

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
give_up() { say "$*"; exit 1; }

# look_for VARIABLE PROGRAM: prints the path and ends the script where there is one already.
look_for() {
  local given=${!1:-}
  if [ -n "$given" ]; then
    [ -x "$given" ] || give_up "$1=$given is no program"
    printf '%s\n' "$given"; exit 0
  fi
  if type -P "$2"; then exit 0; fi
  if [ -x "$cache/$2/$2" ]; then printf '%s\n' "$cache/$2/$2"; exit 0; fi
}

# one_at_a_time VARIABLE PROGRAM: waits for another call that installs the same program, and uses what it made.
one_at_a_time() {
  mkdir -p "$cache/$2"
  if type -P flock >/dev/null; then
    exec 9>"$cache/$2/.lock"
    flock 9
    look_for "$1" "$2"
  fi
}

# keep FILE PROGRAM: the finished program appears in the cache at once or not at all; prints its path.
keep() {
  cp "$1" "$cache/$2/.new.$$"
  chmod 755 "$cache/$2/.new.$$"
  mv -f "$cache/$2/.new.$$" "$cache/$2/$2"
  printf '%s\n' "$cache/$2/$2"
}

# go_install PROGRAM PACKAGE@VERSION BINARY: builds it from the Go module proxy; $help says what is needed.
go_install() {
  type -P go >/dev/null || give_up "$help"
  say "building $2 into target/servers/ (a minute, once)"
  work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
  ( cd / && CGO_ENABLED=0 GOBIN=$work go install -trimpath -ldflags='-s -w' "$2" ) >"$work/log" 2>&1 \
    || give_up "$help ($(grep -v '^go: downloading' "$work/log" | tail -n 1))"
  keep "$work/$3" "$1"
}

# debian PROGRAM FILE PACKAGES...: unpacks Debian's packages, with what this system lacks of what they need, into the cache,
# and keeps a script that runs FILE of them with their libraries; $help says what is needed.
debian() {
  local program=$1 file=$2; shift 2
  for tool in apt-get dpkg; do type -P $tool >/dev/null || give_up "$help"; done
  say "installing into target/servers/ (once)"
  work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
  mkdir -p "$work"/{lists,archives}/partial
  for step in update "--download-only install $*"; do
    # shellcheck disable=SC2086
    apt-get -qq -y --no-install-recommends -o Dir::State::lists="$work/lists" -o Dir::Cache::archives="$work/archives" \
      -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Acquire::Retries=2 -o Debug::NoLocking=true \
      $step >"$work/log" 2>&1 || give_up "$help (apt-get $step: $(grep -m 1 '^E:' "$work/log" || true))"
  done
  local root=$cache/$program/root
  rm -rf "$root"; mkdir -p "$root"
  for package in "$work"/archives/*.deb; do dpkg -x "$package" "$root" || give_up "$help"; done
  local libraries=$root/usr/lib/$(uname -m)-linux-gnu
  cat > "$work/script" <<END
#!/bin/sh
LD_LIBRARY_PATH='$libraries:$libraries/pulseaudio' exec '$root/$file' "\$@"
END
  keep "$work/script" "$program"
}
