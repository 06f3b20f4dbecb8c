# An emulated arm64 Debian with this package in it, for the scripts of this folder that source this file.
# Needs Debian (its archive holds arm64), dpkg-deb, gcc-aarch64-linux-gnu and qemu-user-static; no root,
# no registered binary format. Downloads once, into the first argument of the script.
# shellcheck shell=bash

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${1:?usage: $0 BUILD_FOLDER}
mkdir -p "$build"
build=$(cd "$build" && pwd)
native=${PYTHON:-$repository/.venv/bin/python}

for tool in apt-get dpkg-deb aarch64-linux-gnu-gcc qemu-aarch64-static; do
  command -v "$tool" > /dev/null || {
    echo "$tool is missing; install Debian's apt, dpkg, gcc-aarch64-linux-gnu and qemu-user-static" >&2
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
  apt-get "${options[@]}" --no-install-recommends --download-only install \
    python3 libpython3-dev libstdc++6
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

# The package from its sources, its kernels compiled for arm64 whatever the wheel is called. From a copy:
# objects of two processors must not meet in one folder.
build_package() {
  rm -rf "$build/source" "$build/wheel" "$build/packages"
  mkdir -p "$build/source"
  (cd "$repository" && git ls-files -z package runtime calibration export pyproject.toml LICENSE README.md |
    tar -c --null -T -) | tar -x -C "$build/source"
  CC=aarch64-linux-gnu-gcc LDSHARED='aarch64-linux-gnu-gcc -shared' CFLAGS="-I$build/system/usr/include" \
    "$native" -m pip wheel -q --no-deps --wheel-dir "$build/wheel" "$build/source"
  "$native" -m zipfile -e "$build"/wheel/*.whl "$build/packages"
}

# ONNX Runtime reads the kernel's description of the processor and dies on that of the machine
# underneath; the emulator shows programs the files below `system` first.
describe_processor() {
  local features='fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid' part=0xd08
  [ "$1" = cortex-a72 ] || features+=' atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp' part=0xd42
  [ "$1" != max ] || features+=' i8mm' part=0xd49
  mkdir -p "$build/system/proc"
  local core
  for core in 0 1; do
    printf 'processor\t: %s\nBogoMIPS\t: 62.50\nFeatures\t: %s\n' "$core" "$features"
    printf 'CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n'
    printf 'CPU part\t: %s\nCPU revision\t: 1\n\n' "$part"
  done > "$build/system/proc/cpuinfo"
}

# Signed pointers and scalable vectors, which nothing here needs, are slow to emulate.
model_of() {
  if [ "$1" = max ]; then echo max,pauth=off,sve=off; else echo "$1"; fi
}

# Python on a processor that is given, by an emulator that may be. Child processes start through the
# emulator too, by way of sys.executable.
write_launcher() {
  mkdir -p "$build/hook"
  cat > "$build/python" << END
#!/bin/sh
exec ${2:-qemu-aarch64-static} -cpu $(model_of "$1") -L "$build/system" "$python" "\$@"
END
  chmod +x "$build/python"
  echo 'import os, sys; sys.executable = os.environ["ARM64_PYTHON"]' > "$build/hook/sitecustomize.py"
}

emulated() {
  ARM64_PYTHON="$build/python" PYTHONSAFEPATH=1 PYTHONPATH="$build/hook:$build/packages:$build/site" \
    "$build/python" "$@"
}

if [ ! -e "$build/.system-with-headers-ready" ]; then
  fetch_system
  touch "$build/.system-with-headers-ready"
fi
python=$(find "$build/system/usr/bin" -name 'python3.[0-9]*' | sort | head -1)
version=$(basename "$python" | sed s/python//)
if [ ! -e "$build/.wheels-ready" ]; then
  fetch_wheels "$version"
  touch "$build/.wheels-ready"
fi
build_package
