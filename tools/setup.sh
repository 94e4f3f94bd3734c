#!/usr/bin/env bash
# Sets the project up in .venv: everything requirements.lock pins, and mmcv with its compiled ops.
#
# Needs Python 3.11 or 3.12 with headers, git, g++ and make; uv is put into .uv, nothing into the system.
# mmcv ships as source: its wheel is built once per machine and kept outside the checkout, so that the
# next clone is set up in seconds. When everything is in place it says nothing and returns at once.
#
# Usage: tools/setup.sh           as `make setup` calls it
#        tools/setup.sh lock      resolves requirements.txt anew into requirements.lock (`make lock`)
#        tools/setup.sh --help
#
# Environment:
#   PYTHON                the interpreter to use (default: the one of .venv, else python3, python3.12, python3.11)
#   MMCV_FIND_LINKS       folder or page with a ready onedl-mmcv wheel, taken instead of a build
#   FORCE_CUDA            1: build the ops for CUDA without a GPU in sight (a login node), 0: for the CPU alone
#   TORCH_CUDA_ARCH_LIST  compute capabilities to build for, such as '8.0;9.0' (default: this machine's GPUs)
#   XDG_CACHE_HOME        the wheel is kept in $XDG_CACHE_HOME/mmxray/wheels (default: ~/.cache/mmxray/wheels)
set -euo pipefail

UV_VERSION=0.13.9
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
lock=$root/requirements.lock
venv=$root/.venv
uv=$root/.uv/bin/uv
python='' version='' work='' # the chosen interpreter, its version, and a folder for what goes at the end

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# The version that requirements.lock pins for package $1.
pinned() { sed -n "s/^$1==\([^ ]*\).*/\1/p" "$lock"; }

# requirements.lock's lines of onedl-mmcv alone, or with '!' all the others.
mmcv_lines() { awk -v rest="${1-}" '/^[^ #]/ {mmcv = /^onedl-mmcv==/} rest ? !mmcv : mmcv' "$lock"; }

# Version and path of the first interpreter that runs and is 3.11 or 3.12 (pyenv's shims exist, yet may not run).
find_python() {
  # In words that Python 2 understands too.
  local ask='import sys; print("%d.%d.%d " % sys.version_info[:3] + getattr(sys, "_base_executable", sys.executable))'
  local names=("$venv/bin/python" python3 python3.12 python3.11) name found path
  [[ -z ${PYTHON:-} ]] || names=("$PYTHON")
  for name in "${names[@]}"; do
    read -r found path < <("$name" -c "$ask" 2>/dev/null) || continue
    case $found in 3.11.* | 3.12.*) echo "$found $path"; return ;; esac
  done
  [[ -z ${PYTHON:-} ]] || die "PYTHON=$PYTHON is ${found:-no interpreter that runs}; Python 3.11 or 3.12 is needed"
  die 'no Python 3.11 or 3.12 on the PATH; install one with its headers, or name it: make setup PYTHON=/path/to/python3.12'
}

has_gpu() { compgen -G '/dev/nvidia[0-9]*' >/dev/null || [[ -e /dev/dxg ]]; }

# The CUDA toolkit's folder: CUDA_HOME, else the usual place, else where nvcc is.
cuda_home() {
  local nvcc
  if [[ -n ${CUDA_HOME:-} ]]; then echo "$CUDA_HOME"
  elif [[ -x /usr/local/cuda/bin/nvcc ]]; then echo /usr/local/cuda
  elif nvcc=$(command -v nvcc); then dirname "$(dirname "$(readlink -f "$nvcc")")"
  fi
}

# What the ops are to be built for: 'cpu', or such as 'cu12.8' with a GPU and a toolkit of torch's major version.
ops_target() {
  [[ ${FORCE_CUDA:-} == 0 ]] && { echo cpu; return; }
  [[ ${FORCE_CUDA:-} == 1 ]] || has_gpu || { echo cpu; return; }
  local release wanted
  release=$("$(cuda_home)/bin/nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\),.*/\1/p') || true
  wanted=$(pinned nvidia-cuda-runtime-cu12)
  if [[ -n $release && ${release%%.*} == "${wanted%%.*}" ]]; then echo "cu$release"; return; fi
  [[ ${FORCE_CUDA:-} == 1 ]] &&
    die "FORCE_CUDA=1 needs the CUDA ${wanted%.*} toolkit torch was built with, found ${release:-none}; set CUDA_HOME"
  echo cpu
}

# Compute capabilities to build for, such as '8.0;9.0'.
arch_list() {
  local archs=${TORCH_CUDA_ARCH_LIST:-}
  [[ -n $archs ]] || archs=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sort -u | paste -sd';') || true
  [[ -n $archs ]] || die "no GPU answers nvidia-smi; name what to build for: TORCH_CUDA_ARCH_LIST='8.0;9.0' make setup"
  echo "$archs"
}

# The cache folder's name for a build with Python $1, for target $2 and the compute capabilities $3.
wheel_key() {
  local abi=${1%.*}
  local key="mmcv-$(pinned onedl-mmcv)_torch-$(pinned torch)_cp${abi/./}-$(uname -m)_$2"
  [[ -z ${3:-} ]] || key+="-sm${3//[; ]/-}"
  echo "$key"
}

# The finished wheel in folder $1, unless it is torn; nothing and status 1 when there is none.
kept_wheel() {
  local wheel
  for wheel in "$1"/onedl_mmcv-*.whl; do
    [[ -e $wheel ]] || continue
    if "$python" -c 'import sys, zipfile; sys.exit(zipfile.ZipFile(sys.argv[1]).testzip() is not None)' "$wheel" 2>/dev/null; then
      echo "$wheel"; return
    fi
    say "$wheel is torn, so it is not used" >&2
  done
  return 1
}

# Turns ninja's long lines into one short line per compiled file.
progress() {
  local line left
  while IFS= read -r line; do
    [[ $line =~ ^[[:space:]]*\[([0-9]+)/([0-9]+)\].*/([^/ ]+\.(cpp|cu))[[:space:]] ]] || continue
    left=''
    # The first files come late, together, and say little about the rest.
    ((BASH_REMATCH[1] < 8)) || left=", about $(((SECONDS * (BASH_REMATCH[2] - BASH_REMATCH[1]) / BASH_REMATCH[1] + 59) / 60)) to go"
    printf '  [%d/%d] %-40s %d min gone%s\n' "${BASH_REMATCH[@]:1:3}" $((SECONDS / 60)) "$left"
  done
}

# Builds the wheel for target $1 and compute capabilities $2 into folder $3.
build_wheel() {
  local cores jobs memory_gb build_env minutes log=$root/.uv/mmcv-build.log
  command -v g++ >/dev/null || die 'g++ is missing, and mmcv has to be compiled; on Debian: apt install g++'
  [[ -e $("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h ]] ||
    die "$python has no headers, and mmcv has to be compiled; on Debian: apt install python3-dev"
  cores=$(nproc)
  memory_gb=$(awk '/MemAvailable/ {print int($2 / 1e6)}' /proc/meminfo)
  jobs=$((memory_gb / 2 < cores ? memory_gb / 2 : cores)) # a compiler takes up to 2 GB
  jobs=$((jobs > 0 ? jobs : 1))
  # The build looks for ninja on the PATH, and takes any GPU torch sees as a wish for CUDA.
  build_env=(PATH="$venv/bin:$PATH" MAX_JOBS="$jobs" PIP_DISABLE_PIP_VERSION_CHECK=1)
  if [[ $1 == cpu ]]; then
    build_env+=(FORCE_CUDA=0 CUDA_VISIBLE_DEVICES=)
    minutes="about $(((18 + jobs - 1) / jobs)) minutes" # 18 core minutes measured: 9 on two cores
  else
    build_env+=(FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="$2" CUDA_HOME="$(cuda_home)")
    minutes='longer than the 18 core minutes of a CPU build'
  fi
  say "building mmcv's compiled ops ($1) with $jobs jobs: $minutes, once per machine; log in ${log#"$root"/}"
  mmcv_lines >"$work/mmcv.txt"
  SECONDS=0
  # pip's own wheel cache knows nothing of torch or CUDA versions, so it is passed by.
  env "${build_env[@]}" "$root/.uv/bin/python" -m pip --python "$venv/bin/python" wheel -v --no-cache-dir \
    --no-build-isolation --no-deps --require-hashes -r "$work/mmcv.txt" -w "$work/built" 2>&1 |
    tee "$log" | progress || { tail -n 20 "$log" >&2; die "mmcv's ops did not build; whole log: $log"; }
  # Renamed into place when complete: a killed build leaves no half wheel behind.
  mkdir -p "$3"
  local wheel=("$work"/built/onedl_mmcv-*.whl)
  cp "${wheel[0]}" "$3/.part.$$"
  mv -f "$3/.part.$$" "$3/$(basename "${wheel[0]}")"
}

bootstrap_uv() {
  [[ $("$uv" --version 2>/dev/null) == "uv $UV_VERSION"* ]] && "$root/.uv/bin/python" -c '' 2>/dev/null && return
  say "putting uv $UV_VERSION into .uv"
  "$python" -m venv --clear "$root/.uv" >/dev/null || die "$python cannot make an environment; on Debian: apt install python3-venv"
  "$root/.uv/bin/python" -m pip install -q --disable-pip-version-check "uv==$UV_VERSION" ||
    die "uv $UV_VERSION could not be downloaded; see pip's message above"
}

resolve_lock() {
  bootstrap_uv
  # Two OpenCV packages overwrite each other's files: only the headless one stays.
  echo opencv-python >"$root/.uv/excluded.txt"
  cd "$root"
  "$uv" pip compile requirements.txt -o requirements.lock --universal --python-version 3.11 --fork-strategy fewest \
    --generate-hashes --no-header --excludes .uv/excluded.txt --quiet "$@"
}

# Whether .venv was completed with stamp $1. Ops built for CUDA, or given, also do where no GPU is in sight;
# ops for the CPU do not where target $2 is CUDA.
is_ready() {
  local stamp target
  [[ -e $venv/.setup ]] && read -r stamp target <"$venv/.setup" &&
    [[ $stamp == "$1" && ($2 == cpu || $target == "$2" || $target == given) ]]
}

main() {
  local target archs='' stamp dir wheel cuda sync
  cd "$root"
  unset VIRTUAL_ENV
  read -r version python < <(find_python) || exit 1
  [[ ${1:-} == lock ]] && { shift; resolve_lock "$@"; return; }

  target=$(ops_target)
  stamp=$(cat "$lock" "${BASH_SOURCE[0]}" - <<<"$version" | sha256sum | cut -d' ' -f1)
  is_ready "$stamp" "$target" && return

  # One set-up at a time in a checkout, and nothing half-done taken for done.
  exec 9<"${BASH_SOURCE[0]}"
  flock 9
  is_ready "$stamp" "$target" && return
  command -v git >/dev/null || die 'git is missing; on Debian: apt install git'
  rm -f "$venv/.setup"
  bootstrap_uv
  work=$(mktemp -d "$root/.uv/work.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  if [[ $("$venv/bin/python" -c 'import platform; print(platform.python_version())' 2>/dev/null) != "$version" ]]; then
    "$uv" venv --quiet --clear --python "$python" "$venv"
  fi

  mmcv_lines '!' >"$work/all.txt"
  sync=("$uv" pip sync --python "$venv" --require-hashes "$work/all.txt")
  [[ -t 2 ]] || sync+=(--quiet) # progress bars on a terminal, not a hundred lines in a log
  if [[ -n ${MMCV_FIND_LINKS:-} ]]; then
    target=given dir=$work/given
    "$root/.uv/bin/python" -m pip --python "$venv/bin/python" download -q --no-deps --no-index --only-binary :all: \
      -f "$MMCV_FIND_LINKS" -d "$dir" "onedl-mmcv==$(pinned onedl-mmcv)" ||
      die "MMCV_FIND_LINKS=$MMCV_FIND_LINKS has no onedl-mmcv $(pinned onedl-mmcv) wheel for Python $version; unset it to build one"
  else
    [[ $target == cpu ]] || archs=$(arch_list)
    cuda=$(pinned nvidia-cuda-runtime-cu12)
    [[ $target == cpu ]] && has_gpu &&
      say "a GPU, but no CUDA ${cuda%.*} toolkit beside it: mmcv's ops will run on the CPU only"
    dir=${XDG_CACHE_HOME:-$HOME/.cache}/mmxray/wheels/$(wheel_key "$version" "$target" "$archs")
  fi
  if ! wheel=$(kept_wheel "$dir"); then
    say 'installing torch and the rest, which the build needs (3 GB to download, 8 GB on disk)'
    "${sync[@]}"
    build_wheel "$target" "$archs" "$dir"
    wheel=$(kept_wheel "$dir") || die "the wheel just built in $dir cannot be read"
  fi
  "$python" - "$wheel" >>"$work/all.txt" <<'PY'
import hashlib, pathlib, sys
wheel = pathlib.Path(sys.argv[1])
print(f'onedl-mmcv @ {wheel.as_uri()} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}')
PY
  say "installing what requirements.lock pins, with ${wheel##*/} from ${dir/#$HOME/\~}"
  "${sync[@]}"
  "$venv/bin/python" -c 'import torch, mmcv._ext' || die "$wheel does not import here; remove it and run make setup again"
  echo "$stamp $target" >"$venv/.setup"
  say "done: Python $version in .venv; check it with: .venv/bin/python tools/doctor.py"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  case ${1:-} in
    '' | lock) main "$@" ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" ;;
    *) printf 'setup: %s is no command; see tools/setup.sh --help\n' "$1" >&2; exit 2 ;;
  esac
fi
