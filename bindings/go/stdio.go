package locule

// The standard streams of a process, with the rules of os/exec: an *os.File goes to the
// process as it is, any other reader or writer gets a pipe and a goroutine that copies.

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/locule/locule/bindings/go/internal/liblocule"
)

// ErrWaitDelay is returned by [Cmd.Wait] if the process ended successfully, but its output
// pipes were still open after [Cmd.WaitDelay].
var ErrWaitDelay = errors.New("locule: WaitDelay expired before I/O complete")

// WinSize is the size of a terminal in characters.
type WinSize struct {
	Rows, Cols uint16
}

// stdio is the streams of one process, from before it is started until its output is copied.
type stdio struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	extra          []*os.File
	tty            bool
	looseStdin     bool // nobody waits until the input is copied

	files    [3]*os.File // what the process gets; nil is /dev/null
	ours     []io.Closer // the ends that stay here, to be closed after the process
	theirs   []io.Closer // the ends of the process, to be closed here once it has them
	copies   []func() error
	detached []func() error // copies that nobody waits for

	errs    chan error
	pending int
}

// stdinPipe makes a pipe to standard input.
func (s *stdio) stdinPipe() (io.WriteCloser, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.stdin = r
	s.theirs = append(s.theirs, r)
	end := &closeOnce{File: w}
	s.ours = append(s.ours, end)
	return end, nil
}

// outputPipe makes a pipe from standard output or error.
func (s *stdio) outputPipe(stream *io.Writer) (io.ReadCloser, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	*stream = w
	s.theirs = append(s.theirs, w)
	s.ours = append(s.ours, r)
	return r, nil
}

// closeOnce lets both the program and Wait close a pipe.
type closeOnce struct {
	*os.File
	once sync.Once
	err  error
}

func (c *closeOnce) Close() error {
	c.once.Do(func() { c.err = c.File.Close() })
	return c.err
}

// open makes the pipes. With a terminal there are none: see started.
func (s *stdio) open() error {
	if s.tty {
		return nil
	}
	if err := s.openStdin(); err != nil {
		return err
	}
	var err error
	if s.files[1], err = s.openOutput(s.stdout); err != nil {
		return err
	}
	if s.stderr != nil && sameWriter(s.stderr, s.stdout) {
		s.files[2] = s.files[1]
		return nil
	}
	s.files[2], err = s.openOutput(s.stderr)
	return err
}

func (s *stdio) openStdin() error {
	if file, ok := s.stdin.(*os.File); ok || s.stdin == nil {
		s.files[0] = file
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	s.files[0] = r
	s.theirs = append(s.theirs, r)
	s.ours = append(s.ours, w)
	copies := &s.copies
	if s.looseStdin {
		copies = &s.detached
	}
	*copies = append(*copies, func() error {
		_, err := io.Copy(w, s.stdin)
		// A program may end without having read its input.
		if errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrClosed) {
			err = nil
		}
		if e := w.Close(); err == nil && !errors.Is(e, os.ErrClosed) {
			err = e
		}
		return err
	})
	return nil
}

func (s *stdio) openOutput(writer io.Writer) (*os.File, error) {
	if file, ok := writer.(*os.File); ok || writer == nil {
		return file, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.theirs = append(s.theirs, w)
	s.ours = append(s.ours, r)
	s.copies = append(s.copies, func() error {
		_, err := io.Copy(writer, r)
		r.Close() // a program whose writer fails gets SIGPIPE instead of a full pipe
		return err
	})
	return w, nil
}

// sameWriter compares writers, which may be of a type that cannot be compared.
func sameWriter(a, b io.Writer) (same bool) {
	defer func() { _ = recover() }()
	return a == b
}

// lower is the streams as descriptors for the library.
func (s *stdio) lower() (streams liblocule.Stdio, pass []int) {
	for i, file := range s.files {
		streams[i] = -1
		if file != nil {
			// Fd also makes the file blocking, as programs expect of their streams.
			streams[i] = int(file.Fd())
		}
	}
	for _, file := range s.extra {
		pass = append(pass, int(file.Fd()))
	}
	return streams, pass
}

// check refuses files that are not open, for which Fd would be -1, the name of /dev/null.
func (s *stdio) check(op string) error {
	for _, stream := range []any{s.stdin, s.stdout, s.stderr} {
		if file, ok := stream.(*os.File); ok && (file == nil || int(file.Fd()) < 0) {
			return invalid(op, "a standard stream is a file that is not open")
		}
	}
	for _, file := range s.extra {
		if file == nil || int(file.Fd()) < 0 {
			return invalid(op, "an extra file is not open")
		}
	}
	return nil
}

// abandon closes everything after a process could not be started.
func (s *stdio) abandon() {
	closeAll(s.theirs)
	closeAll(s.ours)
}

// started begins to copy, once the process has its streams.
func (s *stdio) started(p *liblocule.Process) error {
	if s.tty {
		return s.startTerminal(p)
	}
	closeAll(s.theirs)
	s.theirs = nil
	s.startCopies()
	return nil
}

// terminalEOF is what a terminal takes for the end of input: control-D.
var terminalEOF = []byte{4}

// startTerminal copies between the streams and the terminal's master. The ends of pipes that
// the process would have been given are read and written here.
func (s *stdio) startTerminal(p *liblocule.Process) error {
	fd, err := p.TakeTerminal()
	if err != nil {
		s.abandon()
		return err
	}
	// For the netpoller. The library shares the flag, but neither reads nor writes.
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		s.abandon()
		return err
	}
	master := os.NewFile(uintptr(fd), "terminal")
	if s.stdin != nil {
		s.detached = append(s.detached, func() error {
			if _, err := io.Copy(onlyWriter{master}, s.stdin); err == nil {
				_, _ = master.Write(terminalEOF)
			}
			return nil
		})
	}
	output := s.stdout
	if output == nil {
		output = io.Discard // or the program would stop when the terminal is full
	}
	theirs := s.theirs
	s.theirs = nil
	s.copies = append(s.copies, func() error {
		_, err := io.Copy(output, terminalReader{master})
		closeAll(theirs)
		master.Close()
		return err
	})
	s.ours = append(s.ours, master)
	s.startCopies()
	return nil
}

// onlyWriter hides ReadFrom, which would try splice on a terminal.
type onlyWriter struct{ io.Writer }

// terminalReader reads a master until nobody has the terminal open: then Linux says EIO.
type terminalReader struct{ master *os.File }

func (t terminalReader) Read(b []byte) (int, error) {
	n, err := t.master.Read(b)
	if errors.Is(err, syscall.EIO) || errors.Is(err, os.ErrClosed) {
		err = io.EOF
	}
	return n, err
}

func (s *stdio) startCopies() {
	for _, copy := range s.detached {
		go func() { _ = copy() }()
	}
	s.pending = len(s.copies)
	s.errs = make(chan error, s.pending)
	for _, copy := range s.copies {
		go func() { s.errs <- copy() }()
	}
}

// wait waits until everything is copied, but no longer than delay, if there is one. Only one
// goroutine may call it, and once.
func (s *stdio) wait(delay <-chan time.Time) error {
	var first error
	for ; s.pending > 0; s.pending-- {
		select {
		case err := <-s.errs:
			if first == nil {
				first = err
			}
		case <-delay:
			return ErrWaitDelay
		}
	}
	return first
}

// close closes the ends of pipes that are left, which also ends the copies.
func (s *stdio) close() {
	closeAll(s.ours)
	s.ours = nil
}

func closeAll(files []io.Closer) {
	for _, file := range files {
		file.Close()
	}
}
