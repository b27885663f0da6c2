package liblocule

// #include <locule.h>
//
// extern void loculeGoLog(uint32_t level, char *plugin, char *id, char *message, uintptr_t user);
// extern void loculeGoRelease(uintptr_t user);
//
// static void hear(uint32_t level, const char *plugin, const char *id, const char *message, void *user)
// {
//     loculeGoLog(level, (char *)plugin, (char *)id, (char *)message, (uintptr_t)user);
// }
//
// static void forget(void *user)
// {
//     loculeGoRelease((uintptr_t)user);
// }
//
// // A cgo.Handle is a number, which Go must never see as a pointer.
// static void log_to(struct locule_runtime_opts *opts, uintptr_t user)
// {
//     opts->plugin_log = hear;
//     opts->plugin_log_user = (void *)user;
//     opts->plugin_log_release = forget;
// }
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

// Flags and kinds of locule.h.
const (
	RuntimeNoCgroups         = C.LOCULE_RUNTIME_NO_CGROUPS
	RuntimeIgnoreAnnotations = C.LOCULE_RUNTIME_IGNORE_ANNOTATIONS

	CgroupsSystemd = C.LOCULE_CGROUPS_SYSTEMD

	LogDebug = C.LOCULE_LOG_DEBUG
	LogInfo  = C.LOCULE_LOG_INFO
	LogWarn  = C.LOCULE_LOG_WARN
	LogError = C.LOCULE_LOG_ERROR

	ExplainText = C.LOCULE_EXPLAIN_TEXT
	ExplainJSON = C.LOCULE_EXPLAIN_JSON

	SpecReadonly     = C.LOCULE_SPEC_READONLY
	SpecRootlessAuto = C.LOCULE_SPEC_ROOTLESS_AUTO
	SpecNetworkHost  = C.LOCULE_SPEC_NETWORK_HOST
	SpecTerminal     = C.LOCULE_SPEC_TERMINAL
)

// Runtime is a locule_runtime.
type Runtime struct{ handle }

func (r *Runtime) acquire() (*C.locule_runtime, error) {
	ptr, err := r.handle.acquire()
	return (*C.locule_runtime)(ptr), err
}

// RuntimeOptions are the fields of locule_runtime_opts. Empty strings and 0 are the defaults.
type RuntimeOptions struct {
	StateDir, Keeper string
	Flags            uint64
	Cgroups          uint32
	Plugins          []*Plugin
	PluginDir        string
	PluginRules      []byte
	// Hears what Wasm plugins say and what is said of plugins, on any goroutine.
	PluginLog func(level uint32, plugin, id, message string)
}

// NewRuntime opens a runtime.
func NewRuntime(o *RuntimeOptions) (*Runtime, error) {
	var memory memory
	defer memory.free()
	plugins, done, err := memory.plugins(o.Plugins)
	if err != nil {
		return nil, err
	}
	defer done()
	opts := C.struct_locule_runtime_opts{
		size:                  C.sizeof_struct_locule_runtime_opts,
		flags:                 C.uint64_t(o.Flags),
		state_dir:             memory.string(o.StateDir),
		keeper_path:           memory.string(o.Keeper),
		cgroup_manager:        C.uint32_t(o.Cgroups),
		plugins:               plugins,
		plugin_count:          C.size_t(len(o.Plugins)),
		plugin_dir:            memory.string(o.PluginDir),
		plugin_rules_json:     memory.bytes(o.PluginRules),
		plugin_rules_json_len: C.size_t(len(o.PluginRules)),
	}
	if err := memory.check(); err != nil {
		return nil, err
	}
	if o.PluginLog != nil {
		C.log_to(&opts, C.uintptr_t(cgo.NewHandle(o.PluginLog))) // loculeGoRelease deletes it
	}
	var ptr *C.locule_runtime
	var e *C.locule_error
	if err := failed(C.locule_runtime_new(&opts, &ptr, &e), e); err != nil {
		return nil, err
	}
	r := new(Runtime)
	r.init(unsafe.Pointer(ptr), func(p unsafe.Pointer) { C.locule_runtime_unref((*C.locule_runtime)(p)) })
	return r, nil
}

// StateDir is the directory where containers are kept, or "" of a closed handle.
func (r *Runtime) StateDir() string {
	ptr, err := r.acquire()
	if err != nil {
		return ""
	}
	defer r.release()
	return C.GoString(C.locule_runtime_state_dir(ptr))
}

// ListJSON is an array of state documents.
func (r *Runtime) ListJSON() ([]byte, error) {
	ptr, err := r.acquire()
	if err != nil {
		return nil, err
	}
	defer r.release()
	var buf C.locule_buf
	var e *C.locule_error
	if err := failed(C.locule_runtime_list_json(ptr, &buf, &e), e); err != nil {
		return nil, err
	}
	return take(&buf), nil
}

// FeaturesJSON is the features document.
func (r *Runtime) FeaturesJSON() ([]byte, error) {
	ptr, err := r.acquire()
	if err != nil {
		return nil, err
	}
	defer r.release()
	var buf C.locule_buf
	var e *C.locule_error
	if err := failed(C.locule_runtime_features_json(ptr, &buf, &e), e); err != nil {
		return nil, err
	}
	return take(&buf), nil
}

// PluginsJSON is an array of the plugins.
func (r *Runtime) PluginsJSON() ([]byte, error) {
	ptr, err := r.acquire()
	if err != nil {
		return nil, err
	}
	defer r.release()
	var buf C.locule_buf
	var e *C.locule_error
	if err := failed(C.locule_runtime_plugins_json(ptr, &buf, &e), e); err != nil {
		return nil, err
	}
	return take(&buf), nil
}

// Explain is the plan of a creation.
func (r *Runtime) Explain(o *CreateOptions, format uint32) ([]byte, error) {
	ptr, err := r.acquire()
	if err != nil {
		return nil, err
	}
	defer r.release()
	var memory memory
	defer memory.free()
	opts, done, err := o.lower(&memory)
	if err != nil {
		return nil, err
	}
	defer done()
	var buf C.locule_buf
	var e *C.locule_error
	code := C.locule_runtime_explain(ptr, &opts, C.uint32_t(format), &buf, &e)
	if err := failed(code, e); err != nil {
		return nil, err
	}
	return take(&buf), nil
}

// SpecOptions are the fields of locule_spec_opts.
type SpecOptions struct {
	Flags       uint64
	Args, Env   []string
	Cwd         string
	Hostname    string
	Rootfs      string
	UID, GID    uint32
	MemoryBytes uint64
	CPUMilli    uint32
	Pids        uint32
}

// GenerateSpec is a config.json.
func GenerateSpec(o *SpecOptions) ([]byte, error) {
	var memory memory
	defer memory.free()
	opts := C.struct_locule_spec_opts{
		size:         C.sizeof_struct_locule_spec_opts,
		flags:        C.uint64_t(o.Flags),
		args:         memory.strings(o.Args),
		env:          memory.strings(o.Env),
		cwd:          memory.string(o.Cwd),
		hostname:     memory.string(o.Hostname),
		rootfs:       memory.string(o.Rootfs),
		uid:          C.uint32_t(o.UID),
		gid:          C.uint32_t(o.GID),
		memory_bytes: C.uint64_t(o.MemoryBytes),
		cpu_milli:    C.uint32_t(o.CPUMilli),
		pids:         C.uint32_t(o.Pids),
	}
	if err := memory.check(); err != nil {
		return nil, err
	}
	var buf C.locule_buf
	var e *C.locule_error
	if err := failed(C.locule_spec_generate(&opts, &buf, &e), e); err != nil {
		return nil, err
	}
	return take(&buf), nil
}
