module github.com/locule/locule/tests

go 1.25.0

require (
	github.com/locule/locule/bindings/go v0.1.0
	github.com/opencontainers/runtime-spec v1.3.0
)

// These programs test the library of this tree.
replace github.com/locule/locule/bindings/go => ../bindings/go
