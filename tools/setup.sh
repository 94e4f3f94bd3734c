#!/usr/bin/env bash
# Sets the project up in .venv with what requirements.lock pins, every hash checked; no compiler is needed.
#
# Needs Python 3.11, 3.12 or 3.13. uv does the work: it goes into .uv, and what it downloads is kept for the next
# checkout. Interrupted, the next run goes on; with everything in place it says nothing and returns at once.
#
# Usage: tools/setup.sh [--help], as `make setup` calls it. From the environment it takes
#   PYTHON   the interpreter to use (default: that of .venv, else python3, python3.13, python3.12, python3.11)
#   SETUP    runtime: leave out what only tests, lint and studies need
set -euo pipefail

say() { printf 'setup: %s\n' "$*"; }
die() { say "$*" >&2; exit 1; }

# Version and path of the first interpreter that runs and fits (pyenv's shims exist, yet may not run).
find_python() {
  # In words that Python 2 understands too; an environment may be deleted, so the interpreter it was made with.
  local ask='import sys; print("%d.%d.%d " % sys.version_info[:3] + getattr(sys, "_base_executable", sys.executable))'
  local names=(.venv/bin/python python3 python3.13 python3.12 python3.11) name found path
  [[ -z ${PYTHON:-} ]] || names=("$PYTHON")
  for name in "${names[@]}"; do
    read -r found path < <("$name" -c "$ask" 2>/dev/null) || continue
    case $found in 3.11.* | 3.12.* | 3.13.*) echo "$found $path"; return ;; esac
  done
  [[ -z ${PYTHON:-} ]] || die "PYTHON=$PYTHON is ${found:-no interpreter that runs}; Python 3.11, 3.12 or 3.13 is needed"
  die 'no Python 3.11, 3.12 or 3.13 on the PATH; install one, or name it: make setup PYTHON=/path/to/python3.12'
}

# The stamp of what .venv is to hold; .venv/.ready has it when the set-up came to its end.
stamp() { echo "$(cat requirements.lock pyproject.toml tools/setup.sh | sha256sum | cut -c1-64) ${SETUP:-all}"; }
same_python() { [[ -z ${PYTHON:-} || $("$PYTHON" -V 2>&1) == "$(.venv/bin/python -V)" ]]; }
is_ready() { [[ -x .venv/bin/python && $(cat .venv/.ready 2>/dev/null) == "$(stamp)" ]] && same_python; }

# Runs a command, on a terminal with its progress; where it fails, says why in a line, and how to go on.
try() {
  local log=.uv/log reason='see above'
  if [[ -t 2 ]]; then "$@" && return; else
    "$@" >"$log" 2>&1 && return
    reason=$(tr -cd '[:print:]\n' <"$log" | sed -nE 's/^ *(error|ERROR|cause): //p' | sed -n '1p;$p' | uniq | paste -sd'|' | sed 's/|/: /')
  fi
  die "${reason:-$1 failed}; mend it (network, proxy, 10 GB of disk) and run make setup again: it goes on from here"
}

bootstrap_uv() {
  local python=$1 pin
  pin=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements.lock)
  [[ $(.uv/bin/uv --version 2>/dev/null) == "uv $pin "* ]] && return
  say "putting uv $pin into .uv"
  "$python" -m venv --clear .uv >/dev/null 2>&1 || die "$python cannot make an environment; on Debian: apt install python3-venv"
  awk '/^[^ #]/ {uv = /^uv==/} uv' requirements.lock >.uv/uv.txt
  try .uv/bin/python -m pip install --disable-pip-version-check --retries 2 --require-hashes -r .uv/uv.txt
}

set_up() {
  local version python what=(sync requirements.lock)
  is_ready && return
  # One set-up at a time in a checkout; uv's cache can be shared by several.
  exec 9<tools/setup.sh
  flock -n 9 || { say 'waiting for another set-up of this checkout'; flock 9; }
  is_ready && return
  read -r version python < <(find_python) || exit 1
  bootstrap_uv "$python"
  # None, one that was interrupted, of another Python, or with what is to be left out.
  if [[ ! -x .venv/bin/python || $(cat .venv/.ready 2>/dev/null) != *" ${SETUP:-all}" ]] || ! same_python; then
    [[ ! -L .venv ]] || die ".venv is a link to $(readlink .venv), expected a folder that may be cleared; remove the link"
    try .uv/bin/uv venv --clear --python "$python" .venv
  fi
  rm -f .venv/.ready
  [[ ${SETUP:-all} == all ]] || what=(install -r pyproject.toml --extra train -c requirements.lock)
  say "installing what requirements.lock pins for Python $version (3 GB to download, 8 GB on disk)"
  # Sources are built with tools of the lock's versions, and without torch, so that nothing is compiled.
  try .uv/bin/uv pip "${what[@]}" --python .venv/bin/python --require-hashes --build-constraints requirements.lock
  stamp >.venv/.part && mv .venv/.part .venv/.ready
  say "done: Python $version in .venv; check it with: .venv/bin/python tools/doctor.py"
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset VIRTUAL_ENV PYTHONPATH PYTHONHOME
case "${1:-} ${SETUP:-all}" in
  ' all' | ' runtime') set_up ;;
  '-h '* | '--help '*) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' tools/setup.sh ;;
  *) say "'${1:-}' with SETUP=${SETUP:-} is no command; see tools/setup.sh --help" >&2; exit 2 ;;
esac
