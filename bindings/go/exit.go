package locule

// How processes end.

import (
	"strconv"
	"syscall"

	"github.com/locule/locule/bindings/go/internal/liblocule"
)

// ExitStatus is how a process ended. The zero value is of a process that has not.
type ExitStatus struct{ exit liblocule.Exit }

// Ended tells whether the process has ended at all.
func (s ExitStatus) Ended() bool { return s.exit.Kind != liblocule.ExitNone }

// Success tells whether the process exited with code 0.
func (s ExitStatus) Success() bool {
	return s.exit.Kind == liblocule.ExitCode && s.exit.Code == 0
}

// ExitCode is the exit code, 0 to 255, or -1 if the process did not exit by itself.
func (s ExitStatus) ExitCode() int {
	if s.exit.Kind != liblocule.ExitCode {
		return -1
	}
	return s.exit.Code
}

// Signaled tells whether a signal killed the process.
func (s ExitStatus) Signaled() bool { return s.exit.Kind == liblocule.ExitSignal }

// Signal is the signal that killed the process, or -1.
func (s ExitStatus) Signal() syscall.Signal {
	if !s.Signaled() {
		return -1
	}
	return syscall.Signal(s.exit.Signal)
}

// CoreDump tells whether the process left a core dump.
func (s ExitStatus) CoreDump() bool { return s.exit.CoreDumped }

// Unknown tells whether the process is gone and nobody could learn how: its keeper was killed,
// or it has none and is not a child of this process.
func (s ExitStatus) Unknown() bool { return s.exit.Kind == liblocule.ExitUnknown }

// String is such as "exit status 1" or "signal: killed".
func (s ExitStatus) String() string {
	switch {
	case !s.Ended():
		return "not ended"
	case s.Signaled() && s.CoreDump():
		return "signal: " + s.Signal().String() + " (core dumped)"
	case s.Signaled():
		return "signal: " + s.Signal().String()
	case s.exit.Kind == liblocule.ExitCode:
		return "exit status " + strconv.Itoa(s.exit.Code)
	}
	return "exit status unknown"
}

// ExitError says that a [Cmd] ran and ended without [ExitStatus.Success].
type ExitError struct {
	ExitStatus
	// Stderr is the beginning and the end of what the command wrote to standard error, if it
	// was run by [Cmd.Output] and its standard error was not collected otherwise.
	Stderr []byte

	cause error
}

// Error is the status in words.
func (e *ExitError) Error() string {
	if e.cause != nil {
		return e.ExitStatus.String() + ": " + e.cause.Error()
	}
	return e.ExitStatus.String()
}

// Unwrap returns what the context said, if that is why the command was killed, so that
// errors.Is(err, context.DeadlineExceeded) tells a timeout from another end.
func (e *ExitError) Unwrap() error { return e.cause }
