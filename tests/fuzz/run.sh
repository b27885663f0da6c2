#!/bin/sh
# Builds the fuzz targets and runs them: run.sh SECONDS [TARGET...]
#
# What is found stays in $OUT/found, and is shown: `run.sh show FILE` runs the target on it again.
# New inputs are kept in $OUT/corpus from run to run. SEED=N repeats a run.
set -eu
cd "$(dirname "$0")/../.."
OUT=$(pwd)/target/fuzz
HOST=$(rustc -vV | sed -n 's/^host: //p')
FUZZER=$OUT/$HOST/fuzz/locule-fuzz

# What libFuzzer wants to see are stable options of the compiler, by their long names. Only the
# address sanitizer is not, whose runtime comes with the stable toolchain all the same: for this
# build alone the compiler is told to take it. The build scripts, and so the keeper, are left as
# they are: with --target the flags are not theirs.
sancov='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares'
RUSTC_BOOTSTRAP=1 RUSTFLAGS="$sancov -Zsanitizer=address" "${CARGO:-cargo}" build -q \
    -p locule-fuzz --features libfuzzer --profile fuzz --target "$HOST" --target-dir "$OUT"

mkdir -p "$OUT/found"
# Roots of containers, and plain files in place of cgroups: in memory, where there is a place.
[ -d /dev/shm ] && TMPDIR=/dev/shm
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/locule-fuzz.XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 130' INT TERM
export RUST_BACKTRACE=1

if [ "$1" = show ]; then
    name=$(basename "$2")
    LOCULE_FUZZ=${name%%-*} LOCULE_FUZZ_SHOW=1 "$FUZZER" -timeout=90 "$2"
    exit
fi

seconds=$1
shift
[ $# -gt 0 ] || set -- $(ls tests/fuzz/corpus)
status=0
for target; do
    corpus=$OUT/corpus/$target
    log=$OUT/$target.log
    mkdir -p "$corpus"
    seed=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
    echo "fuzz $target: $seconds seconds, seed $seed"
    # The structures of these are made of any bytes, so short inputs are no better ones.
    case $target in
    abi | keeper | layer) how='-len_control=0 -max_len=1500' ;;
    *) how="-dict=$(pwd)/tests/fuzz/dictionary" ;;
    esac
    # No symbolizer: it would be a child of the fuzzer, and two targets kill all they find of those.
    if ! ASAN_OPTIONS=symbolize=0 LOCULE_FUZZ=$target "$FUZZER" $how -print_funcs=0 -seed="$seed" -max_total_time="$seconds" \
        -timeout=90 -rss_limit_mb=4096 -print_final_stats=1 -artifact_prefix="$OUT/found/$target-" \
        "$corpus" "tests/fuzz/corpus/$target" >"$log" 2>&1; then
        status=1
        grep -a -A30 'panicked\|ERROR: ' "$log" | head -60 || tail -3 "$log"
        echo "found: $(sed -n 's/.*Test unit written to //p' "$log"); all that was said: $log"
        continue
    fi
    sed -n 's/^stat::number_of_executed_units: */    inputs: /p' "$log"
done
exit $status
