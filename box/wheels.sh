#!/usr/bin/env bash
# Fill a folder for `install.sh --wheels`, on any machine that has a network, Python and pip.
set -euo pipefail

usage() {
  cat << 'END'
usage: box/wheels.sh DIR [options]

  --machine aarch64|x86_64   of the box (default: aarch64)
  --python VERSION           of the box (default: 3.12, that of JetPack 7.2 and Ubuntu 24.04)

Example: box/wheels.sh wheels --machine aarch64 --python 3.12
END
}

folder="" machine=aarch64 version=3.12
while [ $# -gt 0 ]; do
  case $1 in
    --machine | --python)
      [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
      case $1 in --machine) machine=$2 ;; --python) version=$2 ;; esac
      shift ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) folder=$1 ;;
  esac
  shift
done
[ -n "$folder" ] || { usage >&2; exit 2; }

source=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
python=${PYTHON:-python3}

# A wheel is asked for under every name of a C library that is not newer than Ubuntu 24.04's.
platforms=(--platform "manylinux2014_$machine" --platform "linux_$machine")
for minor in $(seq 17 39); do platforms+=(--platform "manylinux_2_${minor}_$machine"); done

mkdir -p "$folder"
"$python" "$source/box/requirements.py" "$machine" "$version" > "$folder/requirements.txt"
"$python" -m pip download -q --dest "$folder" --only-binary=:all: "${platforms[@]}" \
  --python-version "$version" --implementation cp --abi "cp${version/./}" --abi abi3 --abi none \
  -r "$folder/requirements.txt"
echo "$(find "$folder" -name '*.whl' | wc -l) wheels in '$folder'; carry it and this checkout to the box, and there:"
echo "sudo box/install.sh --wheels '$folder'"
