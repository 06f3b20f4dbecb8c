#!/usr/bin/env bash
# Gather what a bare CUDA machine without a network lacks, in parts that travel one at a time.
set -euo pipefail

usage() {
  cat << 'END'
usage: tests/gpu/pack.sh [options]

Builds this checkout's wheel, downloads the wheels it needs on Python 3.12 (x86-64 Linux), and cuts
them, in the order of their worth, into build/gpu/parts with a manifest of SHA-256.

  --transfer-mib N    most that one transfer carries, this checkout included (default: 64)
  --cuda-libraries    also cuBLAS, cuRAND and the CUDA runtime, 0.5 GB: for a machine whose torch
                      brings no CUDA 13
  -h, --help
END
}

cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
transfer_mib=64 cuda_libraries=""
while [ $# -gt 0 ]; do
  case $1 in
    --transfer-mib)
      [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
      transfer_mib=$2
      shift ;;
    --cuda-libraries) cuda_libraries=1 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "error: unknown option '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

work=build/gpu
wheels=$work/wheels
rm -rf "$wheels" && mkdir -p "$wheels"

# The requirement of an extra in pyproject.toml that begins with a name, without extras and markers.
requirement() {
  "$python" - "$1" "$2" << 'END'
import re, sys, tomllib
extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
(found,) = (one for one in extras[sys.argv[1]] if re.match(rf"{sys.argv[2]}\b(?!-)", one))
print(re.sub(r"\[.*?\]|\s*;.*", "", found))
END
}

download() {
  local group=$1 platforms=() tag
  shift
  for tag in manylinux_2_{39,35,34,31,28,27,26,24,17,12,5} manylinux2014 manylinux1 linux; do
    platforms+=(--platform "${tag}_x86_64")
  done
  "$python" -m pip download -q --only-binary :all: --python-version 3.12 --implementation cp \
    --abi cp312 --abi abi3 --abi none "${platforms[@]}" -d "$wheels/$group" "$@"
}

# Folders are named by worth: what comes last may stay behind.
program=1-program onnxruntime=2-onnxruntime-gpu tensorrt=3-tensorrt present=4-with-torch
cuda=5-cuda-libraries

"$python" -m pip wheel -q --no-deps -w "$wheels/$program" .
project=$(echo "$wheels/$program"/edge_medgemma-*.whl)
download $program "${project}[export]"
# A machine with torch, onnx and onnxruntime has these; a missing one shows in doctor.
mkdir -p "$wheels/$present"
for name in numpy onnx pillow sympy mpmath hf_xet pygments pyyaml protobuf fsspec filelock; do
  mv "$wheels/$program/$name"-[0-9]*.whl "$wheels/$present/"
done
download $onnxruntime --no-deps "$(requirement gpu onnxruntime-gpu)" flatbuffers
download $present --no-deps "$(requirement gpu cuda-bindings)" cuda-pathfinder
download $tensorrt --no-deps "$(requirement tensorrt tensorrt-rtx-cu13-libs)" \
  "$(requirement tensorrt tensorrt-rtx-cu13-bindings)"
if [ -n "$cuda_libraries" ]; then
  download $cuda --no-deps "$(requirement gpu nvidia-cublas)" 'nvidia-cuda-runtime>=13,<14' \
    'nvidia-cuda-nvrtc>=13,<14' 'nvidia-curand>=10,<11'
fi

checkout_bytes=$(git ls-files -z --cached --others --exclude-standard | xargs -0 du -cb | tail -1 | cut -f1)
part_bytes=$((transfer_mib * 1024 * 1024 - checkout_bytes - 1024 * 1024))
[ "$part_bytes" -le 60000000 ] || part_bytes=60000000
[ "$part_bytes" -gt 0 ] || { echo "error: the checkout alone takes $checkout_bytes bytes, a transfer \
$transfer_mib MiB; give a larger --transfer-mib" >&2; exit 1; }
"$python" tests/gpu/parts.py cut --wheels "$wheels" --parts $work/parts --part-bytes "$part_bytes"
cat << END
To transfer: $work/parts/manifest.json and the parts in order, a part a call. After each one that
completes a group, and after the last: tests/gpu/check.sh
END
