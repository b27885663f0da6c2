package liblocule

// #include <locule.h>
import "C"

import "unsafe"

// How a process ended: LOCULE_EXIT_* of locule.h.
const (
	ExitNone    = C.LOCULE_EXIT_NONE
	ExitCode    = C.LOCULE_EXIT_CODE
	ExitSignal  = C.LOCULE_EXIT_SIGNAL
	ExitUnknown = C.LOCULE_EXIT_UNKNOWN
)

// Exit is a locule_exit.
type Exit struct {
	Kind       uint32
	Code       int
	Signal     int
	CoreDumped bool
}

// Process is a locule_process.
type Process struct{ handle }

func (p *Process) acquire() (*C.locule_process, error) {
	ptr, err := p.handle.acquire()
	return (*C.locule_process)(ptr), err
}

func newProcess(ptr *C.locule_process) *Process {
	p := new(Process)
	p.init(unsafe.Pointer(ptr), func(p unsafe.Pointer) { C.locule_process_unref((*C.locule_process)(p)) })
	return p
}

// Pid is the pid as this process sees it, or 0 of a closed handle.
func (p *Process) Pid() int {
	ptr, err := p.acquire()
	if err != nil {
		return 0
	}
	defer p.release()
	return int(C.locule_process_pid(ptr))
}

// FD is the descriptor to poll for the exit. It belongs to the handle.
func (p *Process) FD() (int, error) {
	ptr, err := p.acquire()
	if err != nil {
		return -1, err
	}
	defer p.release()
	fd := C.locule_process_fd(ptr)
	return int(fd), failed(fd, nil)
}

// TryWait looks, without waiting, whether the process has ended.
func (p *Process) TryWait() (exit Exit, ended bool, err error) {
	ptr, err := p.acquire()
	if err != nil {
		return Exit{}, false, err
	}
	defer p.release()
	out := C.struct_locule_exit{size: C.sizeof_struct_locule_exit}
	var e *C.locule_error
	code := C.locule_process_wait(ptr, 0, nil, &out, &e)
	if err := failed(code, e); err != nil {
		return Exit{}, false, err
	}
	return Exit{
		Kind:       uint32(out.kind),
		Code:       int(out.code),
		Signal:     int(out.signal),
		CoreDumped: out.core_dumped != 0,
	}, code == 1, nil
}

// Signal is locule_process_signal.
func (p *Process) Signal(signal int) error {
	ptr, err := p.acquire()
	if err != nil {
		return err
	}
	defer p.release()
	var e *C.locule_error
	return failed(C.locule_process_signal(ptr, C.int(signal), &e), e)
}

// TakeTerminal is locule_process_take_terminal: the caller owns the descriptor.
func (p *Process) TakeTerminal() (int, error) {
	ptr, err := p.acquire()
	if err != nil {
		return -1, err
	}
	defer p.release()
	var e *C.locule_error
	fd := C.locule_process_take_terminal(ptr, &e)
	return int(fd), failed(fd, e)
}

// Resize is locule_process_resize.
func (p *Process) Resize(rows, columns uint16) error {
	ptr, err := p.acquire()
	if err != nil {
		return err
	}
	defer p.release()
	var e *C.locule_error
	return failed(C.locule_process_resize(ptr, C.uint16_t(rows), C.uint16_t(columns), &e), e)
}
