package locule

// What a plugin can learn about a container, and what it can change.

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/locule/locule/bindings/go/internal/liblocule"
)

// Call is one call of a plugin, which is over when the plugin's function returns: after that its
// methods fail with [ErrClosed].
//
// The methods that change something are for [StageCreate], for [StageExec] (below process of the
// configuration) and for [StageUpdate] (below linux.resources). What they change takes effect if
// every plugin and the configuration as a whole agree. They fail with [ErrBusy] where another
// plugin has changed the same place, unless this one may override that; with [ErrState] where this
// stage, or a judge, may not change it; and with [ErrInvalid] for what makes no sense.
type Call struct{ lib *liblocule.PluginCall }

// Stage is where in its life the container is; for a Judge [StageCreate].
func (c *Call) Stage() Stage { return Stage(c.lib.Stage) }

// ID is the container's.
func (c *Call) ID() string { return c.lib.ID }

// Bundle is the directory of the container's bundle.
func (c *Call) Bundle() string { return c.lib.Bundle }

// Pid is the first process, as this process sees it; 0 while there is none.
func (c *Call) Pid() int { return c.lib.Pid }

// Detail is what is special about the stage: at kill "signal" and "all" (true or false), at
// stopped "exit-code" or "signal", at exec "container-pid". It is empty if there is none of that
// name.
func (c *Call) Detail(name string) string { return c.lib.Detail(name) }

// Get decodes a part of the configuration, as the plugins so far have made it, by JSON pointer: ""
// for all of it. It fails with [ErrNotFound] if nothing is there. At exec /process is the process
// to run, at update /linux/resources are the new limits.
func (c *Call) Get(pointer string, into any) error {
	get := func() ([]byte, error) { return c.lib.GetJSON(pointer) }
	return document(context.Background(), "get", c.lib.ID, get, into)
}

// Spec is the whole configuration.
func (c *Call) Spec() (*specs.Spec, error) {
	spec := new(specs.Spec)
	return spec, c.Get("", spec)
}

// Changes is what plugins have changed so far in this stage.
func (c *Call) Changes() ([]Change, error) {
	var changes []Change
	return changes, document(context.Background(), "changes", c.lib.ID, c.lib.ChangesJSON, &changes)
}

type members map[string]any

// Adjust changes the configuration by the name of an adjustment, such as set-env, and its members.
// The other methods are this one, with types.
func (c *Call) Adjust(adjustment string, with map[string]any) error {
	document := members{"adjust": adjustment}
	for name, value := range with {
		document[name] = value
	}
	text, err := json.Marshal(document)
	if err != nil {
		return invalid("adjust", err.Error())
	}
	return wrap(context.Background(), "adjust", c.lib.ID, c.lib.AdjustJSON(text))
}

// SetAnnotation sets an annotation.
func (c *Call) SetAnnotation(key, value string) error {
	return c.Adjust("set-annotation", members{"key": key, "value": value})
}

// RemoveAnnotation removes an annotation.
func (c *Call) RemoveAnnotation(key string) error {
	return c.Adjust("remove-annotation", members{"key": key})
}

// SetEnv sets a variable of the program's environment.
func (c *Call) SetEnv(name, value string) error {
	return c.Adjust("set-env", members{"name": name, "value": value})
}

// RemoveEnv removes a variable from the program's environment.
func (c *Call) RemoveEnv(name string) error {
	return c.Adjust("remove-env", members{"name": name})
}

// SetMount adds a mount after those that are there, or replaces that with its destination.
func (c *Call) SetMount(m specs.Mount) error {
	return c.Adjust("set-mount", members{
		"destination": m.Destination, "kind": m.Type, "source": m.Source, "options": list(m.Options),
	})
}

// RemoveMount removes the mounts at a destination.
func (c *Call) RemoveMount(destination string) error {
	return c.Adjust("remove-mount", members{"destination": destination})
}

// SetDevice adds a device node, or replaces that with its path, and allows access to it: any of
// r, w and m.
func (c *Call) SetDevice(d specs.LinuxDevice, access string) error {
	device := members{
		"path": d.Path, "kind": d.Type, "major": d.Major, "minor": d.Minor, "access": access,
	}
	if d.FileMode != nil {
		device["mode"] = uint32(*d.FileMode)
	}
	if d.UID != nil {
		device["uid"] = *d.UID
	}
	if d.GID != nil {
		device["gid"] = *d.GID
	}
	return c.Adjust("set-device", device)
}

// RemoveDevice removes a device node.
func (c *Call) RemoveDevice(path string) error {
	return c.Adjust("remove-device", members{"path": path})
}

// SetResource sets a limit by its place in linux.resources, such as memory/limit.
func (c *Call) SetResource(name, value string) error {
	return c.Adjust("set-resource", members{"name": name, "value": value})
}

// SetUnified sets a file of the container's cgroup of version 2, such as memory.high.
func (c *Call) SetUnified(file, value string) error {
	return c.Adjust("set-unified", members{"file": file, "value": value})
}

// SetRlimit sets a resource limit, such as RLIMIT_NOFILE.
func (c *Call) SetRlimit(r specs.POSIXRlimit) error {
	decimal := func(n uint64) string { return strconv.FormatUint(n, 10) }
	return c.Adjust("set-rlimit", members{
		"kind": r.Type, "soft": decimal(r.Soft), "hard": decimal(r.Hard),
	})
}

// RemoveRlimit removes a resource limit.
func (c *Call) RemoveRlimit(kind string) error {
	return c.Adjust("remove-rlimit", members{"kind": kind})
}

// SetArgs sets what is run.
func (c *Call) SetArgs(args ...string) error {
	return c.Adjust("set-args", members{"args": list(args)})
}

// SetCwd sets the directory in which it is run.
func (c *Call) SetCwd(path string) error {
	return c.Adjust("set-cwd", members{"path": path})
}

// SetUser sets as whom it is run.
func (c *Call) SetUser(uid, gid uint32, additional ...uint32) error {
	return c.Adjust("set-user", members{"uid": uid, "gid": gid, "additional-gids": list(additional)})
}

// SetOOMScoreAdj sets how early the kernel kills it when memory is short, -1000 to 1000.
func (c *Call) SetOOMScoreAdj(value int) error {
	return c.Adjust("set-oom-score-adj", members{"value": value})
}

// SetNamespace gives the container the namespace at a path, or a new one if that is empty.
func (c *Call) SetNamespace(n specs.LinuxNamespace) error {
	namespace := members{"kind": n.Type}
	if n.Path != "" {
		namespace["path"] = n.Path
	}
	return c.Adjust("set-namespace", namespace)
}

// RemoveNamespace leaves the container in this process's namespace of a kind.
func (c *Call) RemoveNamespace(kind specs.LinuxNamespaceType) error {
	return c.Adjust("remove-namespace", members{"kind": kind})
}

// AddCapability puts a capability into the bounding, the effective and the permitted set.
func (c *Call) AddCapability(name string) error {
	return c.Adjust("add-capability", members{"name": name})
}

// DropCapability takes a capability out of every set.
func (c *Call) DropCapability(name string) error {
	return c.Adjust("drop-capability", members{"name": name})
}

// SetNoNewPrivileges says whether the program may not gain privileges by executing others.
func (c *Call) SetNoNewPrivileges(value bool) error {
	return c.Adjust("set-no-new-privileges", members{"value": value})
}

// SetSeccomp sets the seccomp profile.
func (c *Call) SetSeccomp(profile *specs.LinuxSeccomp) error {
	text, err := json.Marshal(profile)
	if err != nil {
		return invalid("adjust", err.Error())
	}
	return c.Adjust("set-seccomp", members{"profile": string(text)})
}

// SetApparmorProfile sets the AppArmor profile.
func (c *Call) SetApparmorProfile(name string) error {
	return c.Adjust("set-apparmor-profile", members{"name": name})
}

// SetSelinuxLabel sets the SELinux label of the program.
func (c *Call) SetSelinuxLabel(label string) error {
	return c.Adjust("set-selinux-label", members{"label": label})
}

// MaskPath hides a path.
func (c *Call) MaskPath(path string) error {
	return c.Adjust("mask-path", members{"path": path})
}

// WriteProtectPath makes a path read-only.
func (c *Call) WriteProtectPath(path string) error {
	return c.Adjust("write-protect-path", members{"path": path})
}

// SetRootReadOnly says whether the root filesystem is read-only.
func (c *Call) SetRootReadOnly(value bool) error {
	return c.Adjust("set-root-read-only", members{"value": value})
}

// AddHook adds a hook after those that are there, at createRuntime and so on.
func (c *Call) AddHook(kind string, h specs.Hook) error {
	hook := members{"path": h.Path, "args": list(h.Args), "env": list(h.Env)}
	if h.Timeout != nil {
		hook["timeout"] = *h.Timeout
	}
	return c.Adjust("add-hook", members{"kind": kind, "hook": hook})
}

// Merge merges a JSON merge patch (RFC 7396) into the configuration.
func (c *Call) Merge(patch any) error {
	text, err := json.Marshal(patch)
	if err != nil {
		return invalid("adjust", err.Error())
	}
	return c.Adjust("merge", members{"patch": string(text)})
}

// list is an empty JSON array for nil, which would be null.
func list[T any](values []T) []T {
	if values == nil {
		return []T{}
	}
	return values
}
