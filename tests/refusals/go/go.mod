module github.com/locule/locule/tests/refusals

go 1.25.0

require (
	github.com/locule/locule/bindings/go v0.0.0
	github.com/opencontainers/runtime-spec v1.3.0
)

replace github.com/locule/locule/bindings/go => ../../../bindings/go
