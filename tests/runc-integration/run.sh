#!/usr/bin/env bash
# Runs runc's own integration suite with any program that has runc's command line. As root; see
# tests/README.md.
#
#     run.sh [--rootless] COMMAND [FILE.bats...]
#     run.sh --compare NAME OTHER     what NAME passes and OTHER does not
#
# COMMAND is an absolute path, or `runc` for the one that the suite belongs to. NAME is the last
# part of a COMMAND that has been run, with -rootless after it if so.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
out=$PWD/target/runc-integration
limit=${LOCULE_SUITE_TIMEOUT:-900} # seconds for a file

usage() { sed -n 's/^#     //p' "$0" >&2; exit 2; }

# --- Results ---------------------------------------------------------------------------------
# A line for each case: ok, not ok or skip; FILE: NAME; and after a tab why it was skipped.

results() {
    [ -e "$out/RESULTS-$1" ] || { echo "$1 has not been run" >&2; exit 2; }
    echo "$out/RESULTS-$1"
}

# Every case of the file has a line, even if it was never reached.
judge() { # FILE LOG
    sed -n 's/^@test "\(.*\)" {$/\1/p' "$out/source/tests/integration/$1" | awk -v file="$1" '
        of == "log" {
            if (match($0, /^ok [0-9]+ /)) verdict = "ok"
            else if (match($0, /^not ok [0-9]+ /)) verdict = "not ok"
            else next
            name = substr($0, RLENGTH + 1)
            why = ""
            if (match(name, / # skip.*$/)) {
                verdict = "skip"
                why = "\t" substr(name, RSTART + 8)
                name = substr(name, 1, RSTART - 1)
            }
            seen[name] = verdict; reason[name] = why
            next
        }
        { print ($0 in seen ? seen[$0] : "not ok") " " file ": " $0 reason[$0] }
    ' of=log "$2" of=cases -
}

summary() { # RESULTS FILE...
    awk -v files="${*:2}" '
        { verdict = $1; sub(/^not /, ""); file = $2; sub(/:$/, "", file); count[file, verdict]++ }
        function row(name, passed, failed, skipped) {
            printf "%-32s %7d %7d %7d\n", name, passed, failed, skipped
        }
        END {
            printf "%-32s %7s %7s %7s\n", "", "passed", "failed", "skipped"
            n = split(files, list, " ")
            for (i = 1; i <= n; i++) {
                file = list[i]
                row(file, count[file, "ok"], count[file, "not"], count[file, "skip"])
                ok += count[file, "ok"]; not_ok += count[file, "not"]; skip += count[file, "skip"]
            }
            row("all", ok, not_ok, skip)
        }' "$1"
}

# --- Comparing -------------------------------------------------------------------------------

compare() { # RESULTS OTHER
    awk -F '\t' '
        {
            verdict = $1; sub(/ [^ ]*\.bats: .*/, "", verdict)
            name = substr($1, length(verdict) + 2)
            if (of == "other") { verdicts[name] = verdict; next }
        }
        verdict == "ok" {
            file = name; sub(/: .*/, "", file)
            if (!passes[file]++) files[++n] = file
            passed++
            if (verdicts[name] == "ok") { both[file]++; total++ }
            else print (name in verdicts ? verdicts[name] : "not run") " " name
        }
        function row(name, all, passed) {
            printf "%-32s %4d of %4d %6.1f %%\n", name, passed, all, 100 * passed / all
        }
        END {
            for (i = 1; i <= n; i++) row(files[i], passes[files[i]], both[files[i]])
            if (passed) row("all", passed, total)
        }' of=other "$2" of=one "$1"
}

case ${1-} in
    --compare)
        [ $# = 3 ] || usage
        one=$(results "$2") other=$(results "$3")
        compare "$one" "$other"
        exit ;;
    --rootless) user=rootless; shift ;;
    *) user=root ;;
esac

# --- Running ---------------------------------------------------------------------------------

case ${1-} in
    runc) command=$out/source/runc ;;
    /tmp/* | /run/*) echo "move $1: the cases have a /tmp and a /run of their own" >&2; exit 2 ;;
    /*) command=$1 ;;
    *) usage ;;
esac
shift

missing() { echo "skipped: runc's integration suite: $*"; exit 0; }
[ "$(id -u)" = 0 ] || missing "root"
for program in go bats gawk jq ip newuidmap busybox debootstrap script findmnt gcc; do
    command -v $program >/dev/null || missing "$program"
done
pkg-config --exists libseccomp || missing "libseccomp's headers"
[ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ] || missing "cgroups of version 1, or both"
"$here/assets.sh" "$out"
[ -x "$command" ] || { echo "$command is not a program" >&2; exit 2; }
[ $user = root ] || setpriv --reuid 1000 --regid 1000 --clear-groups test -x "$command" \
    || { echo "an ordinary user cannot reach $command" >&2; exit 2; }

cases=$out/source/tests/integration
[ $# -gt 0 ] || set -- "$cases"/*.bats
files=("${@##*/}")
for file in "${files[@]}"; do
    [ -e "$cases/$file" ] || { echo "the suite has no $file" >&2; exit 2; }
done

name=$(basename "$command")
# Some cases look for the name `runc` in what it says, and commands call themselves what they are
# called.
called=$out/called/$name/runc
mkdir -p "${called%/*}"
ln -sf "$command" "$called"
export RUNC=$called ROOTLESS_FEATURES=
if [ $user = rootless ]; then
    name+=-rootless
    ROOTLESS_FEATURES=${LOCULE_ROOTLESS_FEATURES-idmap+cgroup}
fi
results=$out/RESULTS-$name
logs=$out/logs-$name
mkdir -p "$logs"
touch "$results"

for file in "${files[@]}"; do
    log=$logs/${file%.bats}.log
    status=0
    rm -f "$log" # the last run's must not pass for this one's
    timeout --foreground --kill-after 60 "$limit" "$here/box.sh" "$out/source" "$file" $user "$log" || status=$?
    touch "$log"
    lines=$(judge "$file" "$log")
    { grep -v "^[a-z ]* $file: " "$results" || true; echo "$lines"; } | sort -k 2 >"$results.new"
    mv "$results.new" "$results"
    printf '%-32s %s passed, %s failed, %s skipped%s\n' "$file" "$(grep -c '^ok' <<<"$lines")" \
        "$(grep -c '^not ok' <<<"$lines")" "$(grep -c '^skip' <<<"$lines")" \
        "$([ $status != 124 ] || echo "; took longer than $limit seconds")"
    sed -n 's/^not ok [^:]*: /    /p' <<<"$lines"
done

echo
summary "$results" "${files[@]}"
echo "Cases: ${results#"$PWD/"}; what they printed: ${logs#"$PWD/"}"
! grep -qE "^not ok ($(IFS='|'; echo "${files[*]}")): " "$results"
