#!/bin/sh
# What the suites of the machines said, from target/vm/suites-*.log: of each suite its result and
# what it skipped; then, where nobody has to look for it, all about what failed.
cd "$(dirname "$0")/../../target/vm" || exit
for log in suites-?.log; do
    echo "--- ${log%.log}"
    grep -E '^(=== |test result: |skipped: )' "$log"
done
for log in suites-?.log; do
    sed -n -e '/^failures:$/,/^test result: /p' -e '/^FAILED /p' -e '/^  *| /p' \
        -e '/^failed: /p' -e '/^error/p' -e '/^machine . /,$p' "$log" | sed "s/^/${log%.log}: /"
done
