module github.com/locule/locule/bindings/go

go 1.25.0

require github.com/opencontainers/runtime-spec v1.3.0
