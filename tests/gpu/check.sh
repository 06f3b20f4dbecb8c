#!/usr/bin/env bash
# What a GPU is asked first: join and install what tests/gpu/pack.sh gathered, and run every step.
set -euo pipefail

usage() {
  cat << 'END'
usage: tests/gpu/check.sh [options] [-- options of gpu.run_steps]

Joins build/gpu/parts, installs the wheels offline into a virtual environment that also sees the
packages of python3 (or $PYTHON), and runs the steps, in the order of their worth. Results come to
results.json and log.txt in $OUT (default: build/gpu/out) as each step ends; a second call skips
the steps that have one.

  --dry-run        the same steps on the CPU with small shapes
  --python FILE    interpreter that has the program already: join and install nothing
  -h, --help
END
}

cd "$(dirname "$0")/../.."
outer=${PYTHON:-python3}
work=build/gpu
dry_run=() python=""
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry_run=(--dry-run) ;;
    --python)
      [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
      python=$2 outer=$2
      shift ;;
    -h | --help) usage; exit 0 ;;
    --) shift; break ;;
    *) echo "error: unknown option '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

# Not `python3 -m venv --system-site-packages`: that misses the packages of a python3 which is
# itself in a virtual environment, and needs ensurepip.
make_environment() {
  rm -rf $work/venv
  "$outer" -m venv --without-pip $work/venv
  local own
  own=$($work/venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  "$outer" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' > "$own/outer.pth"
  "$outer" -m pip --python $work/venv/bin/python install -q --no-index --no-deps --no-compile \
    $work/joined/*.whl
  "$outer" -m pip --python $work/venv/bin/python check || echo "note: see the line above if a step fails"
  cp $work/parts/manifest.json $work/venv/manifest.json
}

# Folders of the CUDA 13 libraries that onnxruntime-gpu loads, of torch's wheels or our own.
cuda_folders() {
  $work/venv/bin/python - << 'END'
import sys
from pathlib import Path

names = ("libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10")
folders, missing = [], []
for name in names:
    found = [p.parent for s in sys.path for p in Path(s).glob(f"nvidia/*/lib/{name}")]
    folders += found[:1]
    missing += [] if found else [name]
if missing:
    note = "not in Python's packages: {}; unless the system has them: pack.sh --cuda-libraries"
    print(note.format(", ".join(missing)), file=sys.stderr)
print(":".join(dict.fromkeys(map(str, folders))))
END
}

if [ -z "$python" ]; then
  mkdir -p $work/joined
  "$outer" tests/gpu/parts.py join --parts $work/parts --wheels $work/joined
  cmp -s $work/parts/manifest.json $work/venv/manifest.json || make_environment
  python=$work/venv/bin/python
  "$outer" -c 'import torch; print("torch", torch.__version__, "with CUDA", torch.version.cuda)' ||
    echo "note: '$outer' has no torch, whose figures will be missing"
  LD_LIBRARY_PATH=$(cuda_folders)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export LD_LIBRARY_PATH
fi
export XDG_CACHE_HOME=$PWD/$work/cache
export PYTHONPATH=tests PYTHONSAFEPATH=1 # the checkout's own folders would hide what is installed
exec "$python" -m gpu.run_steps "${dry_run[@]}" --torch-python "$outer" \
  --state $work/state --out "${OUT:-$work/out}" "$@"
