// Package liblocule is the only place of this module with cgo: one Go function for each
// function of locule.h, with Go types in and out. It holds no policy.
//
// Every handle may be used and closed by any number of goroutines: a call that meets a closed
// handle returns [ErrClosed], and one that is under way keeps the handle until it is done.
package liblocule

// #include <stdlib.h>
// #include <locule.h>
import "C"

import (
	"errors"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"unsafe"
)

// ErrClosed is returned by calls on a handle that has been closed.
var ErrClosed = errors.New("handle already closed")

// Error is what a locule_error says.
type Error struct {
	Code      int
	Errno     int
	Stage     uint32
	StageName string
	Message   string
	Pointer   string
	ID        string
	Step      string
	Hint      string
	// What a callback returned, if that ended the call.
	Cause error
}

func (e *Error) Error() string { return e.Message }

// failed turns what a call returned into an error, or nil, and gives e back.
func failed(code C.int, e *C.locule_error) error {
	if code >= 0 {
		return nil
	}
	if e == nil {
		return &Error{Code: int(code), Message: "locule: " + CategoryName(int(code))}
	}
	defer C.locule_error_unref(e)
	return &Error{
		Code:      int(code),
		Errno:     int(C.locule_error_errno(e)),
		Stage:     uint32(C.locule_error_stage(e)),
		StageName: C.GoString(C.locule_error_stage_name(e)),
		Message:   C.GoString(C.locule_error_message(e)),
		Pointer:   C.GoString(C.locule_error_pointer(e)),
		ID:        C.GoString(C.locule_error_container_id(e)),
		Step:      C.GoString(C.locule_error_step(e)),
		Hint:      C.GoString(C.locule_error_hint(e)),
	}
}

// CategoryName is the name of a category of errors, such as "not-found".
func CategoryName(code int) string { return C.GoString(C.locule_category_name(C.int(code))) }

// Version is the version of the library that runs.
func Version() string { return C.GoString(C.locule_version()) }

// Has tells whether the library that runs has a feature.
func Has(feature string) bool {
	var memory memory
	defer memory.free()
	name := memory.string(feature)
	return memory.check() == nil && C.locule_has(name) != 0
}

// handle is a counted C object. The C reference is given back once: after Close and the end of
// the calls under way, or, if Close was forgotten, when the garbage collector finds the handle.
type handle struct {
	mu      sync.Mutex
	ptr     unsafe.Pointer
	users   int
	closed  bool
	unref   func(unsafe.Pointer)
	cleanup runtime.Cleanup
}

func (h *handle) init(ptr unsafe.Pointer, unref func(unsafe.Pointer)) {
	h.ptr, h.unref = ptr, unref
	h.cleanup = runtime.AddCleanup(h, unref, ptr)
}

// acquire returns the C object for one call; release must follow.
func (h *handle) acquire() (unsafe.Pointer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	h.users++
	return h.ptr, nil
}

// release also keeps h reachable, and so its cleanup from running, during the call.
func (h *handle) release() {
	h.mu.Lock()
	h.users--
	last := h.closed && h.users == 0
	h.mu.Unlock()
	if last {
		h.drop()
	}
}

// Close gives the handle up. It waits for nothing, and may be called more than once.
func (h *handle) Close() {
	h.mu.Lock()
	last := !h.closed && h.users == 0
	h.closed = true
	h.mu.Unlock()
	if last {
		h.drop()
	}
}

func (h *handle) drop() {
	h.cleanup.Stop()
	h.unref(h.ptr)
	runtime.KeepAlive(h)
}

// memory is what one call lends to C. It all comes from C.malloc, except what is pinned, and
// is freed together.
type memory struct {
	blocks []unsafe.Pointer
	pinner runtime.Pinner
	nul    string // one that has a NUL byte
}

// string returns a C string, or NULL for "".
func (m *memory) string(s string) *C.char {
	if s == "" {
		return nil
	}
	return m.copy(s)
}

func (m *memory) copy(s string) *C.char {
	if strings.IndexByte(s, 0) >= 0 {
		m.nul = s
	}
	p := C.CString(s)
	m.blocks = append(m.blocks, unsafe.Pointer(p))
	return p
}

// check must come before the call: C would see less than the whole of a string with a NUL.
func (m *memory) check() error {
	if m.nul != "" {
		return &Error{
			Code:      C.LOCULE_E_INVALID,
			Stage:     C.LOCULE_STAGE_ARGUMENTS,
			StageName: "arguments",
			Message:   strconv.Quote(m.nul) + " contains a NUL byte",
		}
	}
	return nil
}

// strings returns an array of C strings that ends with NULL, or NULL for nil.
func (m *memory) strings(list []string) **C.char {
	if list == nil {
		return nil
	}
	size := C.size_t(len(list)+1) * C.size_t(unsafe.Sizeof((*C.char)(nil)))
	p := C.malloc(size)
	m.blocks = append(m.blocks, p)
	array := unsafe.Slice((**C.char)(p), len(list)+1)
	for i, s := range list {
		array[i] = m.copy(s)
	}
	array[len(list)] = nil
	return &array[0]
}

// ints returns an array of ints, or NULL for an empty one.
func (m *memory) ints(list []int) *C.int {
	if len(list) == 0 {
		return nil
	}
	p := C.malloc(C.size_t(len(list)) * C.size_t(unsafe.Sizeof(C.int(0))))
	m.blocks = append(m.blocks, p)
	array := unsafe.Slice((*C.int)(p), len(list))
	for i, n := range list {
		array[i] = C.int(n)
	}
	return &array[0]
}

// bytes lends Go memory for the call: it holds no pointers and the library copies it.
func (m *memory) bytes(b []byte) unsafe.Pointer {
	if len(b) == 0 {
		return nil
	}
	m.pinner.Pin(unsafe.SliceData(b))
	return unsafe.Pointer(unsafe.SliceData(b))
}

func (m *memory) free() {
	for _, block := range m.blocks {
		C.free(block)
	}
	m.pinner.Unpin()
}

// take copies a buffer of the library's and frees it.
func take(buf *C.locule_buf) []byte {
	defer C.locule_buf_free(buf)
	if buf.data == nil {
		return nil
	}
	// Not C.GoBytes, whose length is an int.
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(buf.data)), buf.len)...)
}

// Cancel is a locule_cancel. A nil *Cancel cancels nothing.
type Cancel struct{ handle }

func (c *Cancel) acquire() (*C.locule_cancel, error) {
	ptr, err := c.handle.acquire()
	return (*C.locule_cancel)(ptr), err
}

// NewCancel makes a token.
func NewCancel() (*Cancel, error) {
	var ptr *C.locule_cancel
	var e *C.locule_error
	if err := failed(C.locule_cancel_new(&ptr, &e), e); err != nil {
		return nil, err
	}
	c := new(Cancel)
	c.init(unsafe.Pointer(ptr), func(p unsafe.Pointer) { C.locule_cancel_unref((*C.locule_cancel)(p)) })
	return c, nil
}

// Trigger stops the calls that were given the token.
func (c *Cancel) Trigger() {
	if ptr, err := c.acquire(); err == nil {
		defer c.release()
		C.locule_cancel_trigger(ptr)
	}
}

// lend returns the token for a call; done must follow it.
func (c *Cancel) lend() (ptr *C.locule_cancel, done func(), err error) {
	if c == nil {
		return nil, func() {}, nil
	}
	ptr, err = c.acquire()
	return ptr, c.release, err
}
