package locule

// Commands: processes in containers, in the manner of os/exec.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/locule/locule/bindings/go/internal/liblocule"
)

// Cmd is a command to run in a container: a running one ([Container.Command]) or one of its
// own ([Runtime.Command]). It is used as one of os/exec is, once, by one goroutine at a time;
// only [Cmd.Signal] and [Cmd.Resize] may be called meanwhile by others.
type Cmd struct {
	// Path is the program, found through PATH of the container if it has no slash.
	Path string
	// Args is the command line; Args[0] is the program's name and gives way to Path.
	Args []string
	// Env is the environment as "NAME=value". nil: that of the container's configuration.
	Env []string
	// Dir is the working directory in the container. "": that of its configuration.
	Dir string
	// User is who runs it. nil: the user of the container's configuration.
	User *specs.User

	// Stdin is standard input; nil is /dev/null. An [*os.File] becomes the stream itself. Any
	// other reader gets a pipe and a goroutine that copies, for which Wait waits.
	Stdin io.Reader
	// Stdout and Stderr are standard output and error, with the rules of Stdin. If they are
	// the same, one goroutine at a time writes to it.
	Stdout, Stderr io.Writer
	// ExtraFiles are further open files: entry i becomes descriptor 3+i.
	ExtraFiles []*os.File
	// SeccompListener is as for [WithSeccompListener].
	SeccompListener *os.File
	// TTY gives the command a terminal of this size. All streams are copied then, and Stderr
	// gets nothing. At the end of Stdin the terminal gets an end-of-file character, control-D,
	// and Wait does not wait for Stdin.
	TTY *WinSize

	// Cancel is called when the context of Start is done before the command has ended. nil:
	// kill the command, and with [Runtime.Command] its container.
	Cancel func() error
	// WaitDelay limits how long Wait waits after the context is done or the command has ended:
	// then the command is killed and the pipes are closed. 0: without limit. A process that
	// the command leaves behind may hold its output open.
	WaitDelay time.Duration

	// Spec is the configuration for [Runtime.Command], where Path, Args, Env, Dir and User of
	// the command take the place of its process. nil: [DefaultSpec], with [HostRootfs].
	Spec *specs.Spec
	// Image is what the container of [Runtime.Command] or [Runtime.ImageCommand] is made of, in
	// place of Spec. Path, if it is not empty, takes the place of the image's Entrypoint.
	Image *Image
	// Overrides are what else is to be other than Image has it. Where Path, Args, Env, Dir and User
	// of the command are set, they come before.
	Overrides ImageOverrides
	// Create are the options for [Runtime.Command], except those about streams.
	Create []CreateOption

	// Container is where it runs. With [Runtime.Command] it is set by Start, and Wait deletes
	// and closes it.
	Container *Container

	runtime *Runtime
	stdio   stdio
	process *process
	waited  bool
	watched chan watched // nil if the context cannot end
}

// watched is what came of watching the context.
type watched struct {
	err     error
	cause   error         // what ended the context, if that ended the command
	timer   *time.Timer   // what is left of WaitDelay
	expired chan struct{} // closed, if nothing is left
}

// Command is a command in this container, which must be created or running. It is like
// [os/exec.Command].
func (c *Container) Command(name string, arg ...string) *Cmd {
	return &Cmd{Path: name, Args: append([]string{name}, arg...), Container: c}
}

// Command is a command in a container of its own, which [Cmd.Start] creates and [Cmd.Wait]
// deletes. Unless [Cmd.Spec] says otherwise it sees the host's files, and what it changes
// vanishes.
//
//	out, err := rt.Command("uname", "-n").Output(ctx)
func (r *Runtime) Command(name string, arg ...string) *Cmd {
	return &Cmd{Path: name, Args: append([]string{name}, arg...), runtime: r}
}

// ImageCommand is a command in a container of its own, made of an image: its Entrypoint and the
// arguments, or without any its Cmd. [Cmd.Start] creates the container, and [Cmd.Wait] deletes it.
// A program by its name, without the Entrypoint, is run by [Runtime.Command] with [Cmd.Image].
//
//	out, err := rt.ImageCommand(image, "uname", "-n").Output(ctx)
func (r *Runtime) ImageCommand(image *Image, arg ...string) *Cmd {
	return &Cmd{Args: append([]string{""}, arg...), Image: image, runtime: r}
}

// String is the command line, for people; that of [Runtime.ImageCommand] without what is the
// image's.
func (c *Cmd) String() string {
	var b bytes.Buffer
	for i, arg := range c.argv() {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(arg)
	}
	return b.String()
}

func (c *Cmd) argv() []string {
	var argv []string
	if c.Path != "" {
		argv = append(argv, c.Path)
	}
	if len(c.Args) > 1 {
		argv = append(argv, c.Args[1:]...)
	}
	return argv
}

// Run starts the command and waits for it. The error is nil if it exited with code 0, and an
// [*ExitError] if it ended otherwise.
func (c *Cmd) Run(ctx context.Context) error {
	if err := c.Start(ctx); err != nil {
		return err
	}
	return c.Wait()
}

// Start starts the command, and blocks until its program has been executed. The context
// governs the command until it has ended: see [Cmd.Cancel]. [Cmd.Wait] must follow.
func (c *Cmd) Start(ctx context.Context) error {
	if c.process != nil || c.waited {
		return errors.New("locule: command already started")
	}
	c.waited = true // until it has been started
	s := &c.stdio
	s.stdin, s.stdout, s.stderr, s.extra = c.Stdin, c.Stdout, c.Stderr, c.ExtraFiles
	var err error
	if c.runtime != nil {
		err = c.startContainer(ctx)
	} else {
		err = c.startProcess(ctx)
	}
	if err != nil {
		return err
	}
	c.waited = false
	c.process.exited() // is watched even if nobody waits
	if ctx.Done() != nil {
		c.watched = make(chan watched, 1)
		go func() { c.watched <- c.watchContext(ctx) }()
	}
	return nil
}

// execProcess is a process object of which only args must be there.
type execProcess struct {
	Args        []string    `json:"args"`
	Env         *[]string   `json:"env,omitempty"`
	Cwd         string      `json:"cwd,omitempty"`
	User        *specs.User `json:"user,omitempty"`
	Terminal    bool        `json:"terminal"` // else it would be as for the first process
	ConsoleSize *specs.Box  `json:"consoleSize,omitempty"`
}

func (c *Cmd) startProcess(ctx context.Context) error {
	process := execProcess{Args: c.argv(), Cwd: c.Dir, User: c.User}
	if c.Env != nil {
		process.Env = &c.Env
	}
	if c.TTY != nil {
		c.stdio.tty = true
		process.Terminal, process.ConsoleSize = true, c.TTY.box()
	}
	lib, err := c.exec(ctx, process)
	if err != nil {
		c.stdio.abandon()
		return err
	}
	if err := c.stdio.started(lib); err != nil {
		_ = lib.Signal(int(syscall.SIGKILL))
		lib.Close()
		return wrap(ctx, "exec", c.Container.id, err)
	}
	c.process = newProcess(lib)
	events, id := &c.Container.events, c.Container.id
	c.process.ended = func(pid int, status ExitStatus) {
		events.publish(Event{Kind: EventExited, ID: id, Pid: pid, Status: status})
	}
	return nil
}

func (c *Cmd) exec(ctx context.Context, process execProcess) (*liblocule.Process, error) {
	id := c.Container.id
	if err := done(ctx, "exec", id); err != nil {
		return nil, err
	}
	text, err := json.Marshal(process)
	if err != nil {
		return nil, invalid("exec", err.Error())
	}
	if err := c.stdio.check("exec"); err != nil {
		return nil, err
	}
	listener, err := oneDescriptor("exec", c.SeccompListener)
	if err != nil {
		return nil, err
	}
	if err := c.stdio.open(); err != nil {
		return nil, err
	}
	cancel, stop, err := cancelWith(ctx)
	if err != nil {
		return nil, wrap(ctx, "exec", id, err)
	}
	defer stop()
	streams, pass := c.stdio.lower()
	lib, err := c.Container.lib.Exec(&liblocule.ExecOptions{
		Process:   text,
		Stdio:     streams,
		TimeoutMS: timeout(ctx, 0),
		PassFDs:   pass,
		Cancel:    cancel,

		SeccompListener: listener,
	})
	return lib, wrap(ctx, "exec", id, err)
}

func (c *Cmd) startContainer(ctx context.Context) error {
	var config createConfig
	for _, opt := range c.Create {
		opt(&config)
	}
	spec, err := c.configure(&config)
	if err != nil {
		c.stdio.abandon()
		return err
	}
	config.stdio, config.pipes = c.stdio, [3]bool{}
	if c.TTY != nil {
		config.size = c.TTY
	}
	if c.SeccompListener != nil {
		config.listener = c.SeccompListener
	}
	container := new(Container)
	if err := c.runtime.create(ctx, container, "", spec, &config); err != nil {
		return err
	}
	c.stdio = config.stdio
	err = container.Start(ctx)
	if err != nil {
		c.stdio.abandon()
	} else {
		err = wrap(ctx, "start", container.id, c.stdio.started(container.init.lib))
	}
	if err != nil {
		container.scrap()
		return err
	}
	c.Container, c.process = container, container.init
	return nil
}

// configure makes the configuration of the command's own container, in config if it is of an image.
func (c *Cmd) configure(config *createConfig) (*specs.Spec, error) {
	if c.Image != nil {
		config.image, config.overrides = c.Image, c.Overrides
	}
	if config.image != nil {
		return c.Spec, c.override(&config.overrides)
	}
	var spec specs.Spec
	if c.Spec != nil {
		spec = *c.Spec
	} else {
		made, err := DefaultSpec(SpecOptions{Rootless: true})
		if err != nil {
			return nil, err
		}
		spec = *made
		HostRootfs()(config)
	}
	var process specs.Process
	if spec.Process != nil {
		process = *spec.Process
	}
	process.Args = c.argv()
	process.Terminal = c.TTY != nil
	if c.Env != nil {
		process.Env = c.Env
	}
	if c.Dir != "" {
		process.Cwd = c.Dir
	}
	if c.User != nil {
		process.User = *c.User
	}
	spec.Process = &process
	return &spec, nil
}

// override puts what the command says into the overrides.
func (c *Cmd) override(o *ImageOverrides) error {
	if c.Path != "" {
		o.Entrypoint = []string{}
	}
	if argv := c.argv(); len(argv) > 0 {
		o.Args = argv
	}
	if c.Env != nil {
		o.Env, o.ClearEnv = c.Env, true
	}
	if c.Dir != "" {
		o.Cwd = c.Dir
	}
	if c.User == nil {
		return nil
	}
	o.User = fmt.Sprintf("%d:%d", c.User.UID, c.User.GID) // for HOME
	var err error
	o.Patch, err = patchUser(o.Patch, c.User) // it can say more
	return err
}

// patchUser is the patch with this user.
func patchUser(patch any, user *specs.User) (any, error) {
	text, err := json.Marshal(patch)
	if err != nil {
		return nil, invalid("create", err.Error())
	}
	var config, process map[string]json.RawMessage
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, invalid("create", "Patch is no object: "+err.Error())
	}
	if json.Unmarshal(config["process"], &process) != nil || process == nil {
		process = make(map[string]json.RawMessage)
	}
	if config == nil {
		config = make(map[string]json.RawMessage)
	}
	if process["user"], err = json.Marshal(user); err != nil {
		return nil, invalid("create", err.Error())
	}
	config["process"], err = json.Marshal(process)
	return config, err
}

// watchContext ends the command when ctx is done first.
func (c *Cmd) watchContext(ctx context.Context) watched {
	exited := c.process.exited()
	select {
	case <-exited:
		return watched{}
	case <-ctx.Done():
	}
	result := watched{cause: ctx.Err()}
	cancel := c.Cancel
	if cancel == nil {
		cancel = c.kill
	}
	switch err := cancel(); {
	case err == nil:
		result.err = ctx.Err()
	case errors.Is(err, os.ErrProcessDone):
		result.cause = nil
	default:
		result.err = fmt.Errorf("locule: cancelling the command: %w", err)
	}
	if c.WaitDelay == 0 {
		return result
	}
	result.timer = time.NewTimer(c.WaitDelay)
	select {
	case <-exited:
		return result
	case <-result.timer.C:
	}
	if err := c.kill(); err == nil && result.err == nil {
		result.err = ErrWaitDelay
	}
	result.timer, result.expired = nil, make(chan struct{})
	close(result.expired)
	return result
}

func (c *Cmd) kill() error {
	if c.runtime == nil {
		return c.Signal(syscall.SIGKILL)
	}
	return gone(c.Container.SignalAll(syscall.SIGKILL))
}

// Signal sends a signal to the command. Returns [os.ErrProcessDone] if it has ended.
func (c *Cmd) Signal(sig os.Signal) error {
	number, ok := sig.(syscall.Signal)
	if !ok {
		return invalid("signal", "not a signal of this system")
	}
	if c.process == nil {
		return errors.New("locule: command not started")
	}
	select {
	case <-c.process.done:
		return os.ErrProcessDone
	default:
	}
	return gone(wrap(context.Background(), "signal", c.Container.id, c.process.lib.Signal(int(number))))
}

func gone(err error) error {
	if errors.Is(err, ErrState) || errors.Is(err, ErrClosed) {
		return os.ErrProcessDone
	}
	return err
}

// Pid is the pid of the command, as this process sees it, or 0 before Start.
func (c *Cmd) Pid() int {
	if c.process == nil {
		return 0
	}
	return c.process.pid
}

// ExitStatus is how the command ended: of use after Wait.
func (c *Cmd) ExitStatus() ExitStatus {
	if c.process != nil {
		select {
		case <-c.process.done:
			return c.process.status
		default:
		}
	}
	return ExitStatus{}
}

// Resize tells the command's terminal its size.
func (c *Cmd) Resize(size WinSize) error {
	if c.process == nil {
		return errors.New("locule: command not started")
	}
	return wrap(context.Background(), "resize", c.Container.id, c.process.lib.Resize(size.Rows, size.Cols))
}

// Wait waits until the command has ended and its streams are copied, and releases what
// belongs to it. The error is nil if it exited with code 0; an [*ExitError] if it ended
// otherwise, which is also [context.Canceled] or [context.DeadlineExceeded] if that is why;
// and of another type when copying failed. No thread is blocked.
func (c *Cmd) Wait() error {
	switch {
	case c.process == nil:
		return errors.New("locule: command not started")
	case c.waited:
		return errors.New("locule: Wait was already called")
	}
	c.waited = true
	<-c.process.exited()
	status := c.process.status
	var end watched
	if c.watched != nil {
		end = <-c.watched
	}
	err := wrap(context.Background(), "wait", c.Container.id, c.process.err)
	switch {
	case err != nil:
	case !status.Success():
		err = &ExitError{ExitStatus: status, cause: end.cause}
	default:
		err = end.err
	}
	if e := c.waitStreams(end); err == nil {
		err = e
	}
	if e := c.release(); err == nil {
		err = e
	}
	return err
}

// waitStreams waits for the copies, within what is left of WaitDelay.
func (c *Cmd) waitStreams(end watched) error {
	defer c.stdio.close()
	if end.expired != nil {
		return c.stdio.wait(closedDelay)
	}
	timer := end.timer
	if timer == nil {
		if c.WaitDelay == 0 {
			return c.stdio.wait(nil)
		}
		timer = time.NewTimer(c.WaitDelay)
	}
	defer timer.Stop()
	return c.stdio.wait(timer.C)
}

// closedDelay is a delay that has passed.
var closedDelay = func() <-chan time.Time {
	c := make(chan time.Time)
	close(c)
	return c
}()

// release gives back the process, or the container if it is the command's own.
func (c *Cmd) release() error {
	if c.runtime == nil {
		c.process.close()
		return nil
	}
	err := c.Container.Delete(context.Background(), ForceDelete)
	c.Container.Close()
	return err
}

// Output runs the command and returns its standard output. An [*ExitError] has the beginning
// and the end of its standard error, if that is not collected otherwise.
func (c *Cmd) Output(ctx context.Context) ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("locule: Stdout already set")
	}
	var stdout bytes.Buffer
	c.Stdout = &stdout
	var stderr *excerpt
	if c.Stderr == nil && c.TTY == nil {
		stderr = new(excerpt)
		c.Stderr = stderr
	}
	err := c.Run(ctx)
	var exit *ExitError
	if stderr != nil && errors.As(err, &exit) {
		exit.Stderr = stderr.bytes()
	}
	return stdout.Bytes(), err
}

// CombinedOutput runs the command and returns its standard output and standard error.
func (c *Cmd) CombinedOutput(ctx context.Context) ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errors.New("locule: Stdout or Stderr already set")
	}
	var output bytes.Buffer
	c.Stdout, c.Stderr = &output, &output
	err := c.Run(ctx)
	return output.Bytes(), err
}

// StdinPipe is a pipe to the command's standard input. Close it to end the input; Wait closes
// it, too.
func (c *Cmd) StdinPipe() (io.WriteCloser, error) {
	if err := c.canPipe("Stdin", c.Stdin != nil); err != nil {
		return nil, err
	}
	w, err := c.stdio.stdinPipe()
	c.Stdin = c.stdio.stdin
	return w, err
}

// StdoutPipe is a pipe from the command's standard output. Wait closes it: read to its end
// first.
func (c *Cmd) StdoutPipe() (io.ReadCloser, error) {
	if err := c.canPipe("Stdout", c.Stdout != nil); err != nil {
		return nil, err
	}
	return c.stdio.outputPipe(&c.Stdout)
}

// StderrPipe is a pipe from the command's standard error. Wait closes it: read to its end
// first.
func (c *Cmd) StderrPipe() (io.ReadCloser, error) {
	if err := c.canPipe("Stderr", c.Stderr != nil); err != nil {
		return nil, err
	}
	return c.stdio.outputPipe(&c.Stderr)
}

func (c *Cmd) canPipe(stream string, set bool) error {
	switch {
	case set:
		return errors.New("locule: " + stream + " already set")
	case c.process != nil:
		return errors.New("locule: " + stream + "Pipe after the command was started")
	}
	return nil
}

// excerpt keeps the beginning and the end of what is written to it.
type excerpt struct {
	head, tail []byte
	omitted    int
}

const excerptSize = 32 << 10

func (e *excerpt) Write(b []byte) (int, error) {
	written := len(b)
	n := min(excerptSize-len(e.head), len(b))
	e.head = append(e.head, b[:n]...)
	e.tail = append(e.tail, b[n:]...)
	if extra := len(e.tail) - excerptSize; extra > 0 {
		e.omitted += extra
		e.tail = append(e.tail[:0], e.tail[extra:]...)
	}
	return written, nil
}

func (e *excerpt) bytes() []byte {
	text := e.head
	if e.omitted > 0 {
		text = fmt.Appendf(text, "\n... omitting %d bytes ...\n", e.omitted)
	}
	return append(text, e.tail...)
}
