package locule

// The default configuration.

import (
	"context"
	"encoding/json"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/locule/locule/bindings/go/internal/liblocule"
)

// SpecOptions are the choices for [DefaultSpec]. The zero value is fine.
type SpecOptions struct {
	// Args is the program and its arguments. Default: "sh".
	Args []string
	// Env is the environment as "NAME=value". A PATH, and TERM with Terminal, are added if they
	// are not in it.
	Env []string
	// Cwd is the working directory in the container. Default: "/".
	Cwd string
	// Hostname is the host name in the container. Default: "locule".
	Hostname string
	// Rootfs is the root filesystem, absolute or from the bundle. Default: "rootfs".
	Rootfs string
	// UID and GID are the user and group of the program in the container.
	UID, GID uint32
	// MemoryBytes is the most memory the container may use. 0: no limit.
	MemoryBytes uint64
	// CPUMilli is the most processor time, in thousandths of one processor. 0: no limit.
	CPUMilli uint32
	// Pids is the most processes it may have. 0: no limit.
	Pids uint32
	// ReadOnly makes the root filesystem read-only.
	ReadOnly bool
	// Rootless adds a user namespace and leaves out what needs root, if this process is not
	// root.
	Rootless bool
	// HostNetwork shares the network of this process.
	HostNetwork bool
	// Terminal gives the program a terminal.
	Terminal bool
}

// DefaultSpec is a configuration that suits most containers, with these choices: namespaces,
// the usual mounts, masked paths, capabilities and seccomp profile. Change it at will.
func DefaultSpec(o SpecOptions) (*specs.Spec, error) {
	lowered := liblocule.SpecOptions{
		Args: o.Args, Env: o.Env, Cwd: o.Cwd, Hostname: o.Hostname, Rootfs: o.Rootfs,
		UID: o.UID, GID: o.GID,
		MemoryBytes: o.MemoryBytes, CPUMilli: o.CPUMilli, Pids: o.Pids,
	}
	for _, choice := range []struct {
		set  bool
		flag uint64
	}{
		{o.ReadOnly, liblocule.SpecReadonly},
		{o.Rootless, liblocule.SpecRootlessAuto},
		{o.HostNetwork, liblocule.SpecNetworkHost},
		{o.Terminal, liblocule.SpecTerminal},
	} {
		if choice.set {
			lowered.Flags |= choice.flag
		}
	}
	text, err := liblocule.GenerateSpec(&lowered)
	if err != nil {
		return nil, wrap(context.Background(), "spec", "", err)
	}
	spec := new(specs.Spec)
	if err := json.Unmarshal(text, spec); err != nil {
		return nil, err
	}
	return spec, nil
}
