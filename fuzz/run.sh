#!/usr/bin/env bash
# fuzz/run.sh TARGET [OPTION ...] searches for inputs that break a target, with libFuzzer, whose options follow:
#     fuzz/run.sh coders -max_total_time=60
# `all` stands for each target in turn. Stable Rust and a C++ compiler are all it takes. Only this workspace's crates are
# watched for coverage, so the others are those that the programs and the gate's tests are built with.
set -euo pipefail
if [ "${PURLIN_FUZZ_RUSTC:-}" = 1 ]; then
  # cargo runs this in the compiler's place, with the compiler first.
  crate= kind= last=
  for argument in "$@"; do
    case "$last" in
      --crate-name) crate=$argument ;;
      --crate-type) kind=$argument ;;
    esac
    last=$argument
  done
  coverage=(
    -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares)
  case "$crate:$kind" in
    purlin_model:lib | purlin_engine:lib | purlin_runner:lib | purlin_pmml:lib | purlin_json:lib | purlin_trees:lib | purlin_fuzz:lib) exec "$@" "${coverage[@]}" ;;
    *) exec "$@" ;;
  esac
fi
target=${1:?name a target: coders, pipelines, fn_api, pmml or trees, or all}
shift
cd "$(dirname "$0")/.."
if [ "$target" = all ]; then
  for each in coders pipelines fn_api pmml trees; do
    # Small inputs reach as much here as large ones do.
    fuzz/run.sh $each -verbosity=0 -print_funcs=0 -print_final_stats=1 -len_control=0 -max_len=160 -timeout=120 "$@"
  done
  exit
fi
programs=$(
  RUSTC_WORKSPACE_WRAPPER=$PWD/fuzz/run.sh PURLIN_FUZZ_RUSTC=1 cargo build --release --config tests/cargo.toml -q \
    -p purlin-fuzz --features libfuzzer --bin "$target" --message-format=json)
program=$(sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' <<<"$programs")
mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
exec "$program" "-artifact_prefix=fuzz/artifacts/$target/" "fuzz/corpus/$target" "$@"
