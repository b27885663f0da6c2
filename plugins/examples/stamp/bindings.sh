#!/bin/bash
# Generates gen/ from the interface; with --check it says whether gen/ is of this interface.
#
# That takes no generator: with the bindings a checksum of all that they come from is kept, without
# the comments in it, and of themselves.
set -euo pipefail

readonly version=0.63.0
cd "$(dirname "${BASH_SOURCE[0]}")"
readonly tools=$PWD/../../../target/plugins/tools/wit-bindgen-$version

checksum() {
    { sed 's,[[:space:]]*//.*,,; /^$/d' wit/*.wit wit/deps/*/*.wit; cat gen/plugin.[ch]; } |
        sha256sum | cut -d' ' -f1
}

if [[ ${1-} == --check ]]; then
    [[ $(checksum) == "$(cat gen/checksum)" ]] && exit
    echo "the bindings are not of this interface: run plugins/examples/stamp/bindings.sh" >&2
    exit 1
fi

generator=$(command -v wit-bindgen || echo "$tools/bin/wit-bindgen")
if [[ $("$generator" --version 2>/dev/null) != "wit-bindgen-cli $version"* ]]; then
    generator=$tools/bin/wit-bindgen
    # Some minutes, once.
    cargo install "wit-bindgen-cli@$version" --no-default-features --features c --locked --root "$tools"
fi
"$generator" c wit --world stamp --rename-world plugin --no-object-file --out-dir gen
checksum >gen/checksum
