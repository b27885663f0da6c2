package locule

// Errors: one struct for everything the library reports, and sentinels to compare it with.

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/locule/locule/bindings/go/internal/liblocule"
)

// Sentinels for [errors.Is]. An [*Error] is the one of its [Code].
var (
	// ErrNotFound says that there is no such container, process, image or file. Such an error is
	// [fs.ErrNotExist], too.
	ErrNotFound = errors.New("locule: not found")
	// ErrExists says that the id is in use, or that the directory for an image that is unpacked is
	// not empty. Such an error is [fs.ErrExist], too.
	ErrExists = errors.New("locule: already exists")
	// ErrState says that the container is in a state that does not allow the call.
	ErrState = errors.New("locule: wrong state")
	// ErrInvalid says that an argument is wrong. Such an error is [fs.ErrInvalid], too.
	ErrInvalid = errors.New("locule: invalid argument")
	// ErrSpec says that config.json, another OCI document or an image is wrong: see [Error.Pointer].
	ErrSpec = errors.New("locule: invalid configuration")
	// ErrPermission says that the system refused for lack of privilege. Such an error is
	// [fs.ErrPermission], too.
	ErrPermission = errors.New("locule: permission denied")
	// ErrUnsupported says that the kernel, the machine or the library cannot do it. Such an
	// error is [errors.ErrUnsupported], too.
	ErrUnsupported = errors.New("locule: not supported")
	// ErrBusy says that something is in use that must not be.
	ErrBusy = errors.New("locule: busy")
	// ErrTimeout says that the library's own time limit passed, not the context's. Such an
	// error is [os.ErrDeadlineExceeded], too.
	ErrTimeout = errors.New("locule: timed out")
	// ErrResource says that memory, disk, descriptors or processes ran out, or that an image
	// unpacks to more than it may.
	ErrResource = errors.New("locule: out of resources")
	// ErrProgram says that the program could not be executed.
	ErrProgram = errors.New("locule: cannot execute the program")
	// ErrHook says that a hook failed.
	ErrHook = errors.New("locule: hook failed")
	// ErrKeeper says that the container's keeper process is gone.
	ErrKeeper = errors.New("locule: keeper gone")
	// ErrPlugin says that a plugin refused or failed.
	ErrPlugin = errors.New("locule: plugin failed")
	// ErrClosed says that the handle was closed. Such an error is [fs.ErrClosed], too.
	ErrClosed = errors.New("locule: handle closed")
)

// Code is the category of an error: what a program decides by.
type Code int

// The categories. A later version of the library may return others.
const (
	CodeInvalid     Code = -4097 // an argument is wrong
	CodeSpec        Code = -4098 // config.json or an image is wrong
	CodeNotFound    Code = -4099 // no such container, process, image or file
	CodeExists      Code = -4100 // the id is in use, or a directory not empty
	CodeState       Code = -4101 // not in this state of the container
	CodePermission  Code = -4102 // lack of privilege
	CodeUnsupported Code = -4103 // the kernel, machine or library cannot
	CodeBusy        Code = -4104 // something is in use
	CodeTimeout     Code = -4105 // the time limit passed
	CodeCancelled   Code = -4106 // the context was done
	CodeResource    Code = -4107 // memory, disk, descriptors, processes
	CodeSystem      Code = -4108 // a system call failed for another reason
	CodeProgram     Code = -4109 // the program could not be executed
	CodeHook        Code = -4110 // a hook failed
	CodeKeeper      Code = -4111 // the keeper is gone
	CodePlugin      Code = -4112 // a plugin refused or failed
	CodeCallback    Code = -4113 // the function of WithProgress returned an error
	CodeBug         Code = -4114 // a defect in Locule
)

// String is the name of the category, such as "not-found".
func (c Code) String() string { return liblocule.CategoryName(int(c)) }

// Error is what the library says about a failure. Get it with [errors.As], compare it with
// [errors.Is] and the sentinels of this package.
type Error struct {
	// Code is the category.
	Code Code
	// Op is what was called, such as "create".
	Op string
	// ID is the container's, if there is one.
	ID string
	// Stage is where in a container's life it happened, such as "mounts".
	Stage string
	// Pointer is the JSON pointer of the field to blame in the document that was given, such
	// as "/mounts/3", if there is one.
	Pointer string
	// Step is the step of the plan that failed, as [Runtime.Explain] prints it, if it was one.
	Step string
	// Hint is what can be done about it, if that is known.
	Hint string
	// Msg is the whole story on one line.
	Msg string
	// Errno is what the system call that failed returned, or 0.
	Errno syscall.Errno

	// What the context says, or a function of the caller's, if it ended the call.
	cause error
}

// Error is the operation, the container, the message and the hint.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("locule: ")
	if e.Op != "" {
		b.WriteString(e.Op)
		if e.ID != "" {
			b.WriteString(" " + e.ID)
		}
		b.WriteString(": ")
	}
	b.WriteString(e.Msg)
	if e.cause != nil {
		b.WriteString(": " + e.cause.Error())
	}
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

var sentinels = map[Code][]error{
	CodeInvalid:     {ErrInvalid, fs.ErrInvalid},
	CodeSpec:        {ErrSpec},
	CodeNotFound:    {ErrNotFound, fs.ErrNotExist},
	CodeExists:      {ErrExists, fs.ErrExist},
	CodeState:       {ErrState},
	CodePermission:  {ErrPermission, fs.ErrPermission},
	CodeUnsupported: {ErrUnsupported, errors.ErrUnsupported},
	CodeBusy:        {ErrBusy},
	CodeTimeout:     {ErrTimeout, os.ErrDeadlineExceeded},
	CodeResource:    {ErrResource},
	CodeProgram:     {ErrProgram},
	CodeHook:        {ErrHook},
	CodeKeeper:      {ErrKeeper},
	CodePlugin:      {ErrPlugin},
}

// Is tells whether target is a sentinel of the error's category.
func (e *Error) Is(target error) bool {
	for _, sentinel := range sentinels[e.Code] {
		if target == sentinel {
			return true
		}
	}
	return false
}

// Unwrap returns what the context says, or what the function of [WithProgress] returned, if that
// ended the call, else the [syscall.Errno] of the system call that failed, or nil.
func (e *Error) Unwrap() error {
	switch {
	case e.cause != nil:
		return e.cause
	case e.Errno != 0:
		return e.Errno
	}
	return nil
}

// closedError is [ErrClosed] with the operation that met it.
type closedError struct{ op string }

func (e *closedError) Error() string { return "locule: " + e.op + ": handle closed" }

func (e *closedError) Is(target error) bool {
	return target == ErrClosed || target == fs.ErrClosed
}

// wrap makes an error of the internal package one of this package.
func wrap(ctx context.Context, op, id string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, liblocule.ErrClosed) {
		return &closedError{op}
	}
	var e *liblocule.Error
	if !errors.As(err, &e) {
		return err
	}
	wrapped := &Error{
		Code:    Code(e.Code),
		Op:      op,
		ID:      e.ID,
		Stage:   e.StageName,
		Pointer: e.Pointer,
		Step:    e.Step,
		Hint:    e.Hint,
		Msg:     e.Message,
		Errno:   syscall.Errno(e.Errno),
	}
	if wrapped.ID == "" {
		wrapped.ID = id
	}
	if wrapped.Code == CodeCancelled || wrapped.Code == CodeTimeout {
		wrapped.cause = ctx.Err()
	}
	if e.Cause != nil {
		wrapped.cause = e.Cause
	}
	return wrapped
}

// done is the error of a call that does not begin because its context is done.
func done(ctx context.Context, op, id string) error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	return &Error{
		Code: CodeCancelled, Op: op, ID: id, Stage: "arguments", Errno: syscall.ECANCELED,
		Msg: "not begun", cause: err,
	}
}

func invalid(op, msg string) error {
	return &Error{Code: CodeInvalid, Op: op, Stage: "arguments", Msg: msg}
}
