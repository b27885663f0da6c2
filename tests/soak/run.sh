#!/usr/bin/env bash
# Runs thousands of containers from one Python and one Go program: see soak.py. One line for each
# thing that is looked at, and a sum at the end. Run by `make soak` and `make test-soak`, which say
# in PKG_CONFIG_PATH, LD_LIBRARY_PATH and PYTHON where the library is.
#
#     run.sh COUNT
set -u -o pipefail

# Others may mount and unmount on this machine meanwhile, which a mount namespace does not see.
if [ "$(id -u)" = 0 ] && [ "${1-}" != --inside ]; then
    exec unshare --mount "$0" --inside "$@"
fi
[ "${1-}" != --inside ] || shift

count=${1:?how many containers}
here=$(cd "$(dirname "$0")" && pwd)
out=$here/../../target/soak
passed=0 failed=0 skipped=0

# Shows and counts the lines of a program. One that ends in the middle has not passed.
run() { # NAME COMMAND...
    local name=$1 line before=$failed status=none
    shift
    while IFS= read -r line; do
        case $line in
            "ok "*) ((++passed)) ;;
            FAILED*) ((++failed)) ;;
            skipped:*) ((++skipped)) ;;
            "status "*) status=${line#status }; continue ;;
        esac
        echo "$line"
    done < <("$@" 2>&1; echo "status $?")
    if [ "$status" != 0 ] && [ "$failed" = "$before" ]; then
        echo "FAILED   $name: ended with status $status"
        ((++failed))
    fi
}

if [ "$(id -u)" != 0 ]; then
    echo 'skipped: the soak: root'
    skipped=1
else
    if "${PYTHON:-python3}" -c 'import locule' 2>/dev/null; then
        run python "${PYTHON:-python3}" "$here/soak.py" "$count"
    else
        echo 'skipped: python: the package locule'
        ((++skipped))
    fi
    if command -v go >/dev/null; then
        mkdir -p "$out"
        if (cd "$here" && go build -o "$out/soak" .); then
            run go "$out/soak" "$count"
        else
            echo 'FAILED   go: does not compile'
            ((++failed))
        fi
    else
        echo 'skipped: go: go'
        ((++skipped))
    fi
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
