package locule

// What can be chosen when a container is created.

import (
	"encoding/json"
	"io"
	"os"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/locule/locule/bindings/go/internal/liblocule"
)

// CreateOption is a choice for [Runtime.Create], [Runtime.Explain] and [Runtime.Command].
type CreateOption func(*createConfig)

type createConfig struct {
	bundle     string
	flags      uint64
	parentage  uint32
	timeout    time.Duration
	hostRootfs bool
	size       *WinSize
	pipes      [3]bool
	stdio      stdio
	listener   *os.File
	lowerDirs  []string
	changes    string
	image      *Image
	overrides  ImageOverrides
}

// WithBundle names the bundle: the directory from which relative paths in the spec are taken,
// and where config.json is if no spec is given. The default is the current directory.
func WithBundle(dir string) CreateOption {
	return func(c *createConfig) { c.bundle = dir }
}

// WithOverlay takes the root filesystem as the read-only lower layer of a private overlay:
// what the container changes there vanishes with it.
func WithOverlay() CreateOption {
	return func(c *createConfig) { c.flags |= liblocule.CreateRootfsOverlay }
}

// WithLower puts further read-only layers beneath the root filesystem, the topmost first, under a
// private overlay like [WithOverlay]. They are layers as overlayfs has them, where a character
// device 0, 0 hides what has its name further down. An image has layers of its own.
func WithLower(dirs ...string) CreateOption {
	return func(c *createConfig) {
		c.flags |= liblocule.CreateRootfsOverlay
		c.lowerDirs = dirs
	}
}

// WithChanges keeps in this directory what the container changes in its root filesystem, under an
// overlay like [WithOverlay]: a container that is created with it again finds the changes, and
// [ImageStore.Commit] makes an image of them. It is made if missing, cannot be on an overlay, and is
// for one container at a time.
func WithChanges(dir string) CreateOption {
	return func(c *createConfig) {
		c.flags |= liblocule.CreateRootfsOverlay
		c.changes = dir
	}
}

// HostRootfs shows the container the host's own files, under a private overlay like
// [WithOverlay]: the quickest way to a container, and no protection of what is in the files.
func HostRootfs() CreateOption {
	return func(c *createConfig) {
		c.flags |= liblocule.CreateRootfsOverlay
		c.hostRootfs = true
	}
}

// WithDetach lets the container live on when this process ends. Otherwise it is killed then,
// and everything of it is removed.
func WithDetach() CreateOption {
	return func(c *createConfig) { c.flags |= liblocule.CreateDetach }
}

// Parentage is which process becomes the parent of a container's first process.
type Parentage uint32

const (
	// ParentageKeeper is the default: a keeper process that stays with the container.
	ParentageKeeper Parentage = liblocule.ParentageKeeper
	// ParentageOrphan is the nearest subreaper, or pid 1.
	ParentageOrphan Parentage = liblocule.ParentageOrphan
	// ParentageChild is this process: it gets SIGCHLD.
	ParentageChild Parentage = liblocule.ParentageChild
)

// WithParentage chooses the parent of the first process.
func WithParentage(p Parentage) CreateOption {
	return func(c *createConfig) { c.parentage = uint32(p) }
}

// WithTimeout limits how long creation may take, the unpacking of an image included. The default is
// the context's deadline, or else a minute, in which unpacking does not count.
func WithTimeout(d time.Duration) CreateOption {
	return func(c *createConfig) { c.timeout = d }
}

// WithStdio sets the standard streams of the first process; nil is /dev/null. An [*os.File]
// becomes the stream itself. Any other reader or writer gets a pipe and a goroutine that
// copies, and [Container.Wait] waits until the output is copied. If stdout and stderr are the
// same, one goroutine at a time writes to it.
func WithStdio(stdin io.Reader, stdout, stderr io.Writer) CreateOption {
	return func(c *createConfig) {
		c.stdio.stdin, c.stdio.stdout, c.stdio.stderr = stdin, stdout, stderr
	}
}

// WithStdinPipe connects the first process's standard input to [Container.Stdin].
func WithStdinPipe() CreateOption { return func(c *createConfig) { c.pipes[0] = true } }

// WithStdoutPipe connects the first process's standard output to [Container.Stdout].
func WithStdoutPipe() CreateOption { return func(c *createConfig) { c.pipes[1] = true } }

// WithStderrPipe connects the first process's standard error to [Container.Stderr].
func WithStderrPipe() CreateOption { return func(c *createConfig) { c.pipes[2] = true } }

// WithExtraFiles gives the first process further open files: entry i becomes descriptor 3+i.
func WithExtraFiles(files ...*os.File) CreateOption {
	return func(c *createConfig) { c.stdio.extra = files }
}

// WithSeccompListener has the listener of the seccomp filter come over a connected Unix socket,
// in one message with the container process state, in place of the profile's listenerPath.
// Serve its other end from a goroutine: creation and start may wait for answers to
// notifications.
func WithSeccompListener(socket *os.File) CreateOption {
	return func(c *createConfig) { c.listener = socket }
}

// WithTTY gives the first process a terminal of this size. Its input is copied from stdin,
// and what it prints to stdout, as with any reader or writer; there is no stderr. At the end
// of stdin it gets an end-of-file character, control-D.
func WithTTY(size WinSize) CreateOption {
	return func(c *createConfig) { c.size = &size }
}

// lower makes the options for the library, except for streams and time, and finds out whether
// there will be a terminal.
func (c *createConfig) lower(id string, spec *specs.Spec) (*liblocule.CreateOptions, error) {
	if spec == nil && c.bundle == "" && c.image == nil {
		return nil, invalid("create", "neither a spec nor a bundle nor an image is given")
	}
	o := &liblocule.CreateOptions{
		Flags:     c.flags,
		ID:        id,
		Bundle:    c.bundle,
		Parentage: c.parentage,
		Lower:     c.lowerDirs,
		Changes:   c.changes,
	}
	var err error
	if o.SeccompListener, err = oneDescriptor("create", c.listener); err != nil {
		return nil, err
	}
	if c.image != nil {
		return o, c.lowerImage(o, spec)
	}
	ours := spec != nil
	if spec == nil {
		spec = readBundle(c.bundle)
	}
	if spec == nil {
		return o, nil // the library says why
	}
	if c.hostRootfs || c.size != nil {
		spec = c.change(spec)
		ours = true
	}
	c.stdio.tty = spec.Process != nil && spec.Process.Terminal
	if ours {
		text, err := json.Marshal(spec)
		if err != nil {
			return nil, invalid("create", err.Error())
		}
		o.Spec = text
	}
	return o, nil
}

// oneDescriptor is the file's, if there is a file.
func oneDescriptor(op string, socket *os.File) ([]int, error) {
	if socket == nil {
		return nil, nil
	}
	fd := int(socket.Fd())
	if fd < 0 {
		return nil, invalid(op, "the socket for the seccomp listener is not open")
	}
	return []int{fd}, nil
}

// change makes the changes that options ask for, in a copy.
func (c *createConfig) change(spec *specs.Spec) *specs.Spec {
	changed := *spec
	if c.hostRootfs {
		var root specs.Root
		if spec.Root != nil {
			root = *spec.Root
		}
		root.Path = "/"
		changed.Root = &root
	}
	if c.size != nil && spec.Process != nil {
		process := *spec.Process
		process.Terminal = true
		process.ConsoleSize = c.size.box()
		changed.Process = &process
	}
	return &changed
}

func (s WinSize) box() *specs.Box {
	return &specs.Box{Height: uint(s.Rows), Width: uint(s.Cols)}
}
