package liblocule

// #include <locule.h>
//
// extern int loculeGoHandle(locule_plugin_call *call, uintptr_t user);
// extern int loculeGoJudge(locule_plugin_call *call, uintptr_t user);
// extern void loculeGoRelease(uintptr_t user);
//
// // A cgo.Handle is a number, which Go must never see as a pointer.
// static int handle(locule_plugin_call *call, void *user)
// {
//     return loculeGoHandle(call, (uintptr_t)user);
// }
//
// static int judge(locule_plugin_call *call, void *user)
// {
//     return loculeGoJudge(call, (uintptr_t)user);
// }
//
// static void release(void *user)
// {
//     loculeGoRelease((uintptr_t)user);
// }
//
// static int plugin_new(struct locule_plugin_opts *opts, int handles, int judges, uintptr_t user,
//                       locule_plugin **out, locule_error **err)
// {
//     opts->handle = handles ? handle : NULL;
//     opts->judge = judges ? judge : NULL;
//     opts->user = (void *)user;
//     opts->release = release;
//     return locule_plugin_new(opts, out, err);
// }
import "C"

import (
	"runtime/cgo"
	"sync"
	"unsafe"
)

// Flags and kinds of locule.h.
const (
	PluginOverride = C.LOCULE_PLUGIN_OVERRIDE
	PluginRequired = C.LOCULE_PLUGIN_REQUIRED

	OnFailureFail    = C.LOCULE_ON_FAILURE_FAIL
	OnFailureSkip    = C.LOCULE_ON_FAILURE_SKIP
	OnFailureDisable = C.LOCULE_ON_FAILURE_DISABLE
)

// Plugin is a locule_plugin.
type Plugin struct{ handle }

func (p *Plugin) acquire() (*C.locule_plugin, error) {
	ptr, err := p.handle.acquire()
	return (*C.locule_plugin)(ptr), err
}

func newPlugin(ptr *C.locule_plugin) *Plugin {
	p := new(Plugin)
	p.init(unsafe.Pointer(ptr), func(p unsafe.Pointer) { C.locule_plugin_unref((*C.locule_plugin)(p)) })
	return p
}

// PluginOptions are the fields of locule_plugin_opts.
type PluginOptions struct {
	Flags     uint64
	Name      string
	Stages    []string
	Priority  int32
	OnFailure uint32
	// Called while the call of the library waits that led to the stage, on another goroutine.
	Handle, Judge func(*PluginCall)
}

// NewPlugin makes a plugin of callbacks.
func NewPlugin(o *PluginOptions) (*Plugin, error) {
	var memory memory
	defer memory.free()
	opts := C.struct_locule_plugin_opts{
		size:       C.sizeof_struct_locule_plugin_opts,
		flags:      C.uint64_t(o.Flags),
		name:       memory.string(o.Name),
		stages:     memory.strings(o.Stages),
		priority:   C.int32_t(o.Priority),
		on_failure: C.uint32_t(o.OnFailure),
	}
	if err := memory.check(); err != nil {
		return nil, err
	}
	var ptr *C.locule_plugin
	var e *C.locule_error
	user := C.uintptr_t(cgo.NewHandle(o)) // loculeGoRelease deletes it, whatever happens
	code := C.plugin_new(&opts, truth(o.Handle != nil), truth(o.Judge != nil), user, &ptr, &e)
	if err := failed(code, e); err != nil {
		return nil, err
	}
	return newPlugin(ptr), nil
}

func truth(is bool) C.int {
	if is {
		return 1
	}
	return 0
}

// LoadPlugin loads a Wasm plugin.
func LoadPlugin(json []byte, base string) (*Plugin, error) {
	var memory memory
	defer memory.free()
	dir := memory.string(base)
	if err := memory.check(); err != nil {
		return nil, err
	}
	var ptr *C.locule_plugin
	var e *C.locule_error
	code := C.locule_plugin_load(memory.bytes(json), C.size_t(len(json)), dir, &ptr, &e)
	if err := failed(code, e); err != nil {
		return nil, err
	}
	return newPlugin(ptr), nil
}

// InspectPlugin says what a Wasm component is.
func InspectPlugin(path string) ([]byte, error) {
	var memory memory
	defer memory.free()
	file := memory.copy(path)
	if err := memory.check(); err != nil {
		return nil, err
	}
	var buf C.locule_buf
	var e *C.locule_error
	if err := failed(C.locule_plugin_inspect_json(file, &buf, &e), e); err != nil {
		return nil, err
	}
	return take(&buf), nil
}

// plugins lends an array of plugins for a call; done must follow it.
func (m *memory) plugins(list []*Plugin) (array **C.locule_plugin, done func(), err error) {
	var lent []*Plugin
	done = func() {
		for _, p := range lent {
			p.release()
		}
	}
	if len(list) == 0 {
		return nil, done, nil
	}
	p := C.malloc(C.size_t(len(list)) * C.size_t(unsafe.Sizeof((*C.locule_plugin)(nil))))
	m.blocks = append(m.blocks, p)
	pointers := unsafe.Slice((**C.locule_plugin)(p), len(list))
	for i, plugin := range list {
		ptr, err := plugin.acquire()
		if err != nil {
			done()
			return nil, func() {}, err
		}
		lent = append(lent, plugin)
		pointers[i] = ptr
	}
	return &pointers[0], done, nil
}

// PluginCall is a locule_plugin_call. After the callback its methods return [ErrClosed].
type PluginCall struct {
	Stage, ID, Bundle string
	Pid               int

	mu  sync.Mutex // so that the call does not end while a goroutine uses it
	ptr *C.locule_plugin_call
}

func newPluginCall(ptr *C.locule_plugin_call) *PluginCall {
	return &PluginCall{
		Stage:  C.GoString(C.locule_plugin_call_stage(ptr)),
		ID:     C.GoString(C.locule_plugin_call_container_id(ptr)),
		Bundle: C.GoString(C.locule_plugin_call_bundle(ptr)),
		Pid:    int(C.locule_plugin_call_pid(ptr)),
		ptr:    ptr,
	}
}

func (c *PluginCall) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ptr = nil
}

// use returns the C object, and keeps it until c.mu is unlocked.
func (c *PluginCall) use() (*C.locule_plugin_call, error) {
	c.mu.Lock()
	if c.ptr == nil {
		return nil, ErrClosed
	}
	return c.ptr, nil
}

// Detail is what is special about the stage, or "".
func (c *PluginCall) Detail(name string) string {
	var memory memory
	defer memory.free()
	text := memory.copy(name)
	ptr, err := c.use()
	defer c.mu.Unlock()
	if err != nil || memory.check() != nil {
		return ""
	}
	return C.GoString(C.locule_plugin_call_detail(ptr, text))
}

// GetJSON is a part of the configuration.
func (c *PluginCall) GetJSON(pointer string) ([]byte, error) {
	var memory memory
	defer memory.free()
	text := memory.copy(pointer)
	if err := memory.check(); err != nil {
		return nil, err
	}
	ptr, err := c.use()
	defer c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var buf C.locule_buf
	var e *C.locule_error
	if err := failed(C.locule_plugin_call_get_json(ptr, text, &buf, &e), e); err != nil {
		return nil, err
	}
	return take(&buf), nil
}

// ChangesJSON is what plugins have changed so far.
func (c *PluginCall) ChangesJSON() ([]byte, error) {
	ptr, err := c.use()
	defer c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var buf C.locule_buf
	var e *C.locule_error
	if err := failed(C.locule_plugin_call_changes_json(ptr, &buf, &e), e); err != nil {
		return nil, err
	}
	return take(&buf), nil
}

// AdjustJSON changes the configuration.
func (c *PluginCall) AdjustJSON(json []byte) error {
	var memory memory
	defer memory.free()
	ptr, err := c.use()
	defer c.mu.Unlock()
	if err != nil {
		return err
	}
	var e *C.locule_error
	return failed(C.locule_plugin_call_adjust_json(ptr, memory.bytes(json), C.size_t(len(json)), &e), e)
}

// Refuse refuses the stage.
func (c *PluginCall) Refuse(code uint32, message string) {
	c.say(message, func(ptr *C.locule_plugin_call, text *C.char) {
		C.locule_plugin_call_refuse(ptr, C.uint32_t(code), text)
	})
}

// Fail says that the plugin has failed.
func (c *PluginCall) Fail(message string) {
	c.say(message, func(ptr *C.locule_plugin_call, text *C.char) {
		C.locule_plugin_call_fail(ptr, text)
	})
}

func (c *PluginCall) say(message string, say func(*C.locule_plugin_call, *C.char)) {
	var memory memory
	defer memory.free()
	text := memory.copy(message) // a NUL byte ends it, and no more is lost than that
	ptr, err := c.use()
	defer c.mu.Unlock()
	if err == nil {
		say(ptr, text)
	}
}
