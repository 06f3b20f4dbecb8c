#!/usr/bin/env bash
# Triage a synthetic head CT with the demo engine on emulated arm64, and compare the
# result with this machine's own. Needs Debian (its archive holds arm64), dpkg-deb and
# qemu-user-static; no root, no registered binary format. Downloads once, into its one argument:
#   tests/arm64/triage.sh build/arm64
set -euo pipefail

repository=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:?usage: triage.sh BUILD_FOLDER}
mkdir -p "$build"
build=$(cd "$build" && pwd)
native=${PYTHON:-$repository/.venv/bin/python}
slices=${SLICES:-4}

for tool in apt-get dpkg-deb qemu-aarch64-static; do
  command -v "$tool" > /dev/null || {
    echo "$tool is missing; install Debian's apt, dpkg and qemu-user-static" >&2
    exit 2
  }
done

# Debian's Python and C++ libraries, unpacked beside the system, which stays as it is.
fetch_system() {
  mkdir -p "$build/apt/lists/partial" "$build/apt/archives/partial" "$build/system"
  : > "$build/apt/status"
  local options=(
    -q -y
    -o "Dir::State::lists=$build/apt/lists" -o "Dir::Cache::archives=$build/apt/archives"
    -o "Dir::State::status=$build/apt/status" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
    -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=
    -o Debug::NoLocking=1
  )
  apt-get "${options[@]}" update
  apt-get "${options[@]}" --no-install-recommends --download-only install python3 libstdc++6
  local package
  for package in "$build"/apt/archives/*.deb; do
    dpkg-deb -x "$package" "$build/system"
  done
}

# The package's own dependencies as wheels for that Python.
fetch_wheels() {
  local version=$1 platforms=() tag
  for tag in manylinux_2_31 manylinux_2_28 manylinux_2_27 manylinux_2_26 manylinux_2_17 manylinux2014; do
    platforms+=(--platform "${tag}_aarch64")
  done
  "$native" "$repository/tests/arm64/requirements.py" > "$build/requirements.txt"
  "$native" -m pip install -q --only-binary=:all: "${platforms[@]}" --implementation cp \
    --python-version "$version" --abi "cp${version/./}" --abi abi3 --abi none \
    --target "$build/site" -r "$build/requirements.txt"
}

# ONNX Runtime reads the kernel's description of the processor and dies on that of the machine
# underneath; the emulator shows programs the files below `system` first. A Jetson Orin's cores:
describe_processor() {
  mkdir -p "$build/system/proc"
  local core
  for core in 0 1; do
    printf 'processor\t: %s\nBogoMIPS\t: 62.50\nFeatures\t: %s\n' "$core" \
      'fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp'
    printf 'CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n'
    printf 'CPU part\t: 0xd42\nCPU revision\t: 1\n\n'
  done > "$build/system/proc/cpuinfo"
}

# Child processes start through the emulator too, by way of sys.executable.
write_launcher() {
  mkdir -p "$build/hook" "$build/packages/edge_medgemma"
  cat > "$build/python" << END
#!/bin/sh
exec qemu-aarch64-static -cpu max -L "$build/system" "$1" "\$@"
END
  chmod +x "$build/python"
  echo 'import os, sys; sys.executable = os.environ["ARM64_PYTHON"]' > "$build/hook/sitecustomize.py"
  ln -sfn "$repository/runtime" "$build/packages/edge_medgemma/runtime"
  ln -sf "$repository"/package/*.py "$build/packages/edge_medgemma/"
}

if [ ! -e "$build/.system-ready" ]; then
  fetch_system
  touch "$build/.system-ready"
fi
python=$(find "$build/system/usr/bin" -name 'python3.[0-9]*' | sort | head -1)
version=$(basename "$python" | sed s/python//)
if [ ! -e "$build/.wheels-ready" ]; then
  fetch_wheels "$version"
  touch "$build/.wheels-ready"
fi
describe_processor
write_launcher "$python"

export XDG_CACHE_HOME="$build/cache"
rm -rf "$XDG_CACHE_HOME" "$build/native" "$build/arm64"
# A synthetic scan: of a real one the demo engine says nothing that could be compared.
rm -rf "$build/phantom"
"$native" -m edge_medgemma phantom draw "$build/phantom" --finding intracranial_haemorrhage
arguments=(triage "$build/phantom" --slices "$slices" --no-report --provider cpu)
"$native" -m edge_medgemma "${arguments[@]}" --out "$build/native" > /dev/null
rm -rf "$XDG_CACHE_HOME"
ARM64_PYTHON="$build/python" PYTHONSAFEPATH=1 PYTHONPATH="$build/hook:$build/packages:$build/site" \
  "$build/python" -m edge_medgemma "${arguments[@]}" --out "$build/arm64"
"$native" "$repository/tests/arm64/compare.py" "$build/native/triage.json" "$build/arm64/triage.json"
