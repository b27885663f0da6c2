package locule

// Containers.

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/locule/locule/bindings/go/internal/liblocule"
)

// StatePaused is the status of a container whose processes are frozen. It is runc's addition
// to the statuses of the runtime-spec.
const StatePaused specs.ContainerState = "paused"

// Container is a handle to a container. All methods may be called by any number of goroutines
// at once: one that waits never blocks another.
//
// Those that take a context and do not say that they block only look whether it is done.
type Container struct {
	lib  *liblocule.Container
	id   string
	init *process

	stdin          io.WriteCloser
	stdout, stderr io.ReadCloser

	stdio   *stdio
	copied  chan struct{} // closed when the output is copied; nil when a Cmd does that
	copyErr error         // written before

	closing sync.Once
	runtime *Runtime
	events  hub
}

func (c *Container) openPipes(config *createConfig) (err error) {
	s := &config.stdio
	if config.pipes[0] {
		if c.stdin, err = s.stdinPipe(); err != nil {
			return err
		}
	}
	if config.pipes[1] {
		if c.stdout, err = s.outputPipe(&s.stdout); err != nil {
			return err
		}
	}
	if config.pipes[2] {
		if c.stderr, err = s.outputPipe(&s.stderr); err != nil {
			return err
		}
	}
	return nil
}

// adopt makes lib, of this runtime, the container of the handle.
func (c *Container) adopt(r *Runtime, lib *liblocule.Container) error {
	c.runtime, c.lib, c.id = r, lib, lib.ID()
	init, err := lib.Init()
	if err != nil {
		return err
	}
	c.init = newProcess(init)
	c.init.plugged = r.plugged
	return nil
}

// ID is the container's id.
func (c *Container) ID() string { return c.id }

// Pid is the pid of the first process, as this process sees it, also after it has ended.
func (c *Container) Pid() int { return c.init.pid }

// Stdin is the pipe of [WithStdinPipe], else nil. Closing it is the end of the program's
// input.
func (c *Container) Stdin() io.WriteCloser { return c.stdin }

// Stdout is the pipe of [WithStdoutPipe], else nil. It ends with the last process that has
// the other end open.
func (c *Container) Stdout() io.ReadCloser { return c.stdout }

// Stderr is the pipe of [WithStderrPipe], else nil.
func (c *Container) Stderr() io.ReadCloser { return c.stderr }

// Start lets the program run. It blocks until the program has been executed; the end of ctx
// stops it. Fails with [ErrState] if the container does not wait for this, and with
// [ErrProgram] if the program cannot be executed.
func (c *Container) Start(ctx context.Context) error {
	if err := done(ctx, "start", c.id); err != nil {
		return err
	}
	cancel, stop, err := cancelWith(ctx)
	if err != nil {
		return wrap(ctx, "start", c.id, err)
	}
	defer stop()
	return wrap(ctx, "start", c.id, c.lib.Start(cancel))
}

// State is the state document (runtime-spec, runtime.md). Fails with [ErrNotFound] once the
// container has been deleted.
func (c *Container) State(ctx context.Context) (*specs.State, error) {
	var state specs.State
	if err := document(ctx, "state", c.id, c.lib.StateJSON, &state); err != nil {
		return nil, err
	}
	return &state, nil
}

// Pids are the pids of every process in the container, as this process sees them.
func (c *Container) Pids(ctx context.Context) ([]int, error) {
	var pids []int
	return pids, document(ctx, "pids", c.id, c.lib.PidsJSON, &pids)
}

// Stats is what the container uses. Fails with [ErrUnsupported] without a cgroup.
func (c *Container) Stats(ctx context.Context) (*Stats, error) {
	var stats Stats
	if err := document(ctx, "stats", c.id, c.lib.StatsJSON, &stats); err != nil {
		return nil, err
	}
	return &stats, nil
}

// Signal sends a signal to the first process. Fails with [ErrState] if it has ended.
func (c *Container) Signal(sig os.Signal) error { return c.signal(sig, 0) }

// SignalAll sends a signal to every process in the container.
func (c *Container) SignalAll(sig os.Signal) error { return c.signal(sig, liblocule.SignalAll) }

func (c *Container) signal(sig os.Signal, flags uint64) error {
	number, ok := sig.(syscall.Signal)
	if !ok {
		return invalid("signal", "not a signal of this system")
	}
	return wrap(context.Background(), "signal", c.id, c.lib.Signal(int(number), flags))
}

// Kill kills every process in the container and blocks until the first has ended, or ctx is
// done. A container that has stopped is fine.
func (c *Container) Kill(ctx context.Context) error {
	if err := done(ctx, "kill", c.id); err != nil {
		return err
	}
	err := wrap(ctx, "kill", c.id, c.lib.Signal(int(syscall.SIGKILL), liblocule.SignalAll))
	if err != nil && !errors.Is(err, ErrState) {
		return err
	}
	_, err = c.await(ctx, "kill")
	return err
}

// Pause freezes every process in the container, and blocks until all are.
func (c *Container) Pause(ctx context.Context) error {
	if err := done(ctx, "pause", c.id); err != nil {
		return err
	}
	return wrap(ctx, "pause", c.id, c.lib.Pause())
}

// Resume thaws what [Container.Pause] froze.
func (c *Container) Resume(ctx context.Context) error {
	if err := done(ctx, "resume", c.id); err != nil {
		return err
	}
	return wrap(ctx, "resume", c.id, c.lib.Resume())
}

// Update changes resource limits. What is nil in resources stays as it is.
func (c *Container) Update(ctx context.Context, resources *specs.LinuxResources) error {
	if err := done(ctx, "update", c.id); err != nil {
		return err
	}
	text, err := json.Marshal(resources)
	if err != nil {
		return invalid("update", err.Error())
	}
	return wrap(ctx, "update", c.id, c.lib.UpdateJSON(text))
}

// Exited is closed when the first process has ended, or this handle is closed; then
// [Container.Wait] returns at once, except for output that is still to be copied.
func (c *Container) Exited() <-chan struct{} { return c.init.exited() }

// Wait blocks until the first process has ended and what it wrote has been copied to the
// writers of [WithStdio], or until ctx is done. No thread is blocked: any number of goroutines
// may wait. It may be called again.
//
// The error is about the waiting: that the program failed is said by the [ExitStatus] alone.
func (c *Container) Wait(ctx context.Context) (ExitStatus, error) {
	status, err := c.await(ctx, "wait")
	if err != nil || c.copied == nil {
		return status, err
	}
	select {
	case <-c.copied:
		return status, c.copyErr
	case <-ctx.Done():
		return status, &Error{Code: CodeCancelled, Op: "wait", ID: c.id, Msg: "copying output", cause: ctx.Err()}
	}
}

// await waits for the first process.
func (c *Container) await(ctx context.Context, op string) (ExitStatus, error) {
	exited := c.init.exited()
	select {
	case <-exited: // even if ctx is done, too
		return c.init.status, wrap(ctx, op, c.id, c.init.err)
	default:
	}
	select {
	case <-exited:
		return c.init.status, wrap(ctx, op, c.id, c.init.err)
	case <-ctx.Done():
		return ExitStatus{}, &Error{Code: CodeCancelled, Op: op, ID: c.id, Msg: "waiting for the first process", cause: ctx.Err()}
	}
}

// Resize tells the first process's terminal its size.
func (c *Container) Resize(size WinSize) error {
	return wrap(context.Background(), "resize", c.id, c.init.lib.Resize(size.Rows, size.Cols))
}

// DeleteOption is a choice for [Container.Delete].
type DeleteOption uint64

// ForceDelete kills the container first if it has not stopped.
const ForceDelete DeleteOption = liblocule.DeleteForce

// Delete deletes the container, and blocks until all of it is gone. Fails with [ErrState] if
// it runs, unless [ForceDelete] is given. The handle stays valid until [Container.Close].
//
// To clean up whatever happened, also to the context:
//
//	defer c.Delete(context.WithoutCancel(ctx), locule.ForceDelete)
func (c *Container) Delete(ctx context.Context, opts ...DeleteOption) error {
	if err := done(ctx, "delete", c.id); err != nil {
		return err
	}
	var flags uint64
	for _, opt := range opts {
		flags |= uint64(opt)
	}
	return wrap(ctx, "delete", c.id, c.lib.Delete(flags))
}

// Close gives the handle up, and the pipes that were made with it. The container goes on.
// Those who wait get [ErrClosed]. It may be called more than once; the error is always nil.
func (c *Container) Close() error {
	c.closing.Do(func() {
		if c.stdio != nil && c.copied != nil {
			c.stdio.close()
		}
		if c.init != nil {
			c.init.close()
		}
		if c.runtime != nil {
			c.runtime.listeners.remove(c)
		}
		if c.lib != nil {
			c.lib.Close()
		}
	})
	return nil
}
