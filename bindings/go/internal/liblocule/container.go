package liblocule

// #include <locule.h>
import "C"

import "unsafe"

// Flags and kinds of locule.h.
const (
	CreateRootfsOverlay = C.LOCULE_CREATE_ROOTFS_OVERLAY
	CreateDetach        = C.LOCULE_CREATE_DETACH

	ParentageKeeper = C.LOCULE_PARENTAGE_KEEPER
	ParentageOrphan = C.LOCULE_PARENTAGE_ORPHAN
	ParentageChild  = C.LOCULE_PARENTAGE_CHILD

	SignalAll   = C.LOCULE_SIGNAL_ALL
	DeleteForce = C.LOCULE_DELETE_FORCE
)

// Stdio is a standard stream: a descriptor, or -1 for /dev/null.
type Stdio [3]int

func (s Stdio) lower() (streams [3]C.struct_locule_stdio) {
	for i, fd := range s {
		if fd >= 0 {
			streams[i] = C.struct_locule_stdio{kind: C.LOCULE_STDIO_FD, fd: C.int(fd)}
		}
	}
	return streams
}

// CreateOptions are the fields of locule_create_opts.
type CreateOptions struct {
	Flags     uint64
	ID        string
	Bundle    string
	Spec      []byte
	Stdio     Stdio
	Parentage uint32
	TimeoutMS uint32
	PassFDs   []int
	Cancel    *Cancel
	// SeccompListener is empty, or has one descriptor.
	SeccompListener []int
	Lower           []string
	Changes         string
	Image           *Image
	Overrides       []byte
}

// lower writes the options for C. The struct is Go memory, but all its pointers lead to C
// memory or to what m has pinned.
func (o *CreateOptions) lower(m *memory) (C.struct_locule_create_opts, func(), error) {
	opts := C.struct_locule_create_opts{
		size:          C.sizeof_struct_locule_create_opts,
		flags:         C.uint64_t(o.Flags),
		id:            m.string(o.ID),
		bundle:        m.string(o.Bundle),
		spec_json:     m.bytes(o.Spec),
		spec_json_len: C.size_t(len(o.Spec)),
		stdio:         o.Stdio.lower(),
		parentage:     C.uint32_t(o.Parentage),
		timeout_ms:    C.uint32_t(o.TimeoutMS),
		pass_fds:      m.ints(o.PassFDs),
		pass_fd_count: C.size_t(len(o.PassFDs)),

		seccomp_listener: m.ints(o.SeccompListener),
		lower:            m.strings(o.Lower),
		lower_count:      C.size_t(len(o.Lower)),
		changes:          m.string(o.Changes),

		image_overrides_json:     m.bytes(o.Overrides),
		image_overrides_json_len: C.size_t(len(o.Overrides)),
	}
	if err := m.check(); err != nil {
		return opts, nil, err
	}
	image, imageDone, err := o.Image.lend()
	if err != nil {
		return opts, nil, err
	}
	cancel, cancelDone, err := o.Cancel.lend()
	if err != nil {
		imageDone()
		return opts, nil, err
	}
	opts.image, opts.cancel = image, cancel
	return opts, func() { imageDone(); cancelDone() }, nil
}

// ExecOptions are the fields of locule_exec_opts.
type ExecOptions struct {
	Process   []byte
	Stdio     Stdio
	TimeoutMS uint32
	PassFDs   []int
	Cancel    *Cancel
	// SeccompListener is empty, or has one descriptor.
	SeccompListener []int
}

// Container is a locule_container.
type Container struct{ handle }

func (c *Container) acquire() (*C.locule_container, error) {
	ptr, err := c.handle.acquire()
	return (*C.locule_container)(ptr), err
}

func newContainer(ptr *C.locule_container) *Container {
	c := new(Container)
	c.init(unsafe.Pointer(ptr), func(p unsafe.Pointer) { C.locule_container_unref((*C.locule_container)(p)) })
	return c
}

// Create is locule_container_create.
func (r *Runtime) Create(o *CreateOptions) (*Container, error) {
	runtime, err := r.acquire()
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
	var ptr *C.locule_container
	var e *C.locule_error
	if err := failed(C.locule_container_create(runtime, &opts, &ptr, &e), e); err != nil {
		return nil, err
	}
	return newContainer(ptr), nil
}

// Open is locule_container_open.
func (r *Runtime) Open(id string) (*Container, error) {
	runtime, err := r.acquire()
	if err != nil {
		return nil, err
	}
	defer r.release()
	var memory memory
	defer memory.free()
	name := memory.copy(id) // not NULL for ""
	if err := memory.check(); err != nil {
		return nil, err
	}
	var ptr *C.locule_container
	var e *C.locule_error
	if err := failed(C.locule_container_open(runtime, name, &ptr, &e), e); err != nil {
		return nil, err
	}
	return newContainer(ptr), nil
}

// ID is the container's id, or "" of a closed handle.
func (c *Container) ID() string {
	ptr, err := c.acquire()
	if err != nil {
		return ""
	}
	defer c.release()
	return C.GoString(C.locule_container_id(ptr))
}

// Init is the container's first process.
func (c *Container) Init() (*Process, error) {
	ptr, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	var process *C.locule_process
	var e *C.locule_error
	if err := failed(C.locule_container_init(ptr, &process, &e), e); err != nil {
		return nil, err
	}
	return newProcess(process), nil
}

// Start is locule_container_start.
func (c *Container) Start(cancel *Cancel) error {
	ptr, err := c.acquire()
	if err != nil {
		return err
	}
	defer c.release()
	token, done, err := cancel.lend()
	if err != nil {
		return err
	}
	defer done()
	var e *C.locule_error
	return failed(C.locule_container_start(ptr, token, &e), e)
}

// Exec is locule_container_exec.
func (c *Container) Exec(o *ExecOptions) (*Process, error) {
	ptr, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	var memory memory
	defer memory.free()
	cancel, done, err := o.Cancel.lend()
	if err != nil {
		return nil, err
	}
	defer done()
	opts := C.struct_locule_exec_opts{
		size:             C.sizeof_struct_locule_exec_opts,
		process_json:     memory.bytes(o.Process),
		process_json_len: C.size_t(len(o.Process)),
		stdio:            o.Stdio.lower(),
		timeout_ms:       C.uint32_t(o.TimeoutMS),
		pass_fds:         memory.ints(o.PassFDs),
		pass_fd_count:    C.size_t(len(o.PassFDs)),
		cancel:           cancel,
		seccomp_listener: memory.ints(o.SeccompListener),
	}
	var process *C.locule_process
	var e *C.locule_error
	if err := failed(C.locule_container_exec(ptr, &opts, &process, &e), e); err != nil {
		return nil, err
	}
	return newProcess(process), nil
}

// Signal is locule_container_signal.
func (c *Container) Signal(signal int, flags uint64) error {
	ptr, err := c.acquire()
	if err != nil {
		return err
	}
	defer c.release()
	var e *C.locule_error
	return failed(C.locule_container_signal(ptr, C.int(signal), C.uint64_t(flags), &e), e)
}

// Pause is locule_container_pause.
func (c *Container) Pause() error {
	ptr, err := c.acquire()
	if err != nil {
		return err
	}
	defer c.release()
	var e *C.locule_error
	return failed(C.locule_container_pause(ptr, &e), e)
}

// Resume is locule_container_resume.
func (c *Container) Resume() error {
	ptr, err := c.acquire()
	if err != nil {
		return err
	}
	defer c.release()
	var e *C.locule_error
	return failed(C.locule_container_resume(ptr, &e), e)
}

// UpdateJSON is locule_container_update_json.
func (c *Container) UpdateJSON(resources []byte) error {
	ptr, err := c.acquire()
	if err != nil {
		return err
	}
	defer c.release()
	var memory memory
	defer memory.free()
	var e *C.locule_error
	data, length := memory.bytes(resources), C.size_t(len(resources))
	return failed(C.locule_container_update_json(ptr, data, length, &e), e)
}

// Watch is locule_container_watch.
func (c *Container) Watch(w *Watch) error {
	ptr, err := c.acquire()
	if err != nil {
		return err
	}
	defer c.release()
	opts := C.struct_locule_watch_opts{
		size:      C.sizeof_struct_locule_watch_opts,
		flags:     C.uint64_t(w.Flags),
		kind:      C.uint32_t(w.Kind),
		resource:  C.uint32_t(w.Resource),
		stall_us:  C.uint64_t(w.StallUS),
		window_us: C.uint64_t(w.WindowUS),
	}
	var e *C.locule_error
	return failed(C.locule_container_watch(ptr, &opts, &e), e)
}

// StatsJSON is locule_container_stats_json.
func (c *Container) StatsJSON() ([]byte, error) {
	ptr, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	var buf C.locule_buf
	var e *C.locule_error
	if err := failed(C.locule_container_stats_json(ptr, &buf, &e), e); err != nil {
		return nil, err
	}
	return take(&buf), nil
}

// PidsJSON is locule_container_pids_json.
func (c *Container) PidsJSON() ([]byte, error) {
	ptr, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	var buf C.locule_buf
	var e *C.locule_error
	if err := failed(C.locule_container_pids_json(ptr, &buf, &e), e); err != nil {
		return nil, err
	}
	return take(&buf), nil
}

// StateJSON is locule_container_state_json.
func (c *Container) StateJSON() ([]byte, error) {
	ptr, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	var buf C.locule_buf
	var e *C.locule_error
	if err := failed(C.locule_container_state_json(ptr, &buf, &e), e); err != nil {
		return nil, err
	}
	return take(&buf), nil
}

// Delete is locule_container_delete.
func (c *Container) Delete(flags uint64) error {
	ptr, err := c.acquire()
	if err != nil {
		return err
	}
	defer c.release()
	var e *C.locule_error
	return failed(C.locule_container_delete(ptr, C.uint64_t(flags), &e), e)
}
