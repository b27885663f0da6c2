module github.com/locule/locule/tests

go 1.25.0

require (
	github.com/locule/locule/bindings/go v0.1.0
	github.com/opencontainers/runtime-spec v1.3.0
	google.golang.org/grpc v1.72.2
	google.golang.org/protobuf v1.36.8
)

require github.com/opencontainers/image-spec v1.1.1 // indirect

require (
	golang.org/x/net v0.47.0 // indirect
	golang.org/x/sys v0.38.0 // indirect
	golang.org/x/text v0.31.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20250528174236-200df99c418a // indirect
	k8s.io/cri-api v0.35.0
)

// These programs test the library of this tree.
replace github.com/locule/locule/bindings/go => ../bindings/go
