package locule

// Waiting for processes without a thread for each: their descriptors are in one epoll set,
// which itself is in the netpoller of the Go runtime.
//
// The set is a descriptor of our own. To give the netpoller the processes' descriptors, they
// would have to be made non-blocking, and that is a property of the open file which a
// duplicate shares with the library.

import (
	"os"
	"sync"
	"syscall"

	"github.com/locule/locule/bindings/go/internal/liblocule"
)

// process is a process of a container and its exit.
type process struct {
	lib *liblocule.Process
	pid int
	// Whether to learn of its end may be to call a plugin.
	plugged bool

	mu      sync.Mutex // held while the descriptor enters and leaves the set
	fd      int        // in the set, or -1
	watched bool
	closed  bool

	once  sync.Once
	ended func(pid int, status ExitStatus) // if not nil, called before done is closed
	done  chan struct{}
	// Written before done is closed.
	status ExitStatus
	err    error
}

func newProcess(lib *liblocule.Process) *process {
	return &process{lib: lib, pid: lib.Pid(), fd: -1, done: make(chan struct{})}
}

// exited is closed once status and err are there.
func (p *process) exited() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.watched && !p.closed && !p.look() {
		if err := watcher.add(p); err != nil {
			p.finish(ExitStatus{}, err)
		}
	}
	p.watched = true
	return p.done
}

// look asks the library whether the process has ended.
func (p *process) look() bool {
	exit, ended, err := p.lib.TryWait()
	if ended || err != nil {
		p.finish(ExitStatus{exit}, err)
	}
	return ended || err != nil
}

func (p *process) finish(status ExitStatus, err error) {
	p.once.Do(func() {
		p.status, p.err = status, err
		if p.ended != nil && err == nil {
			p.ended(p.pid, status)
		}
		close(p.done)
	})
}

// close gives the handle up; who still waits gets an error.
func (p *process) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.fd >= 0 {
		watcher.remove(p)
	}
	p.finish(ExitStatus{}, liblocule.ErrClosed)
	p.lib.Close()
}

func (p *process) callsPlugins() bool { return p.plugged }

func (p *process) again() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if err := watcher.add(p); err != nil {
		p.finish(ExitStatus{}, err)
	}
}

// waitable is something with a descriptor that becomes readable.
type waitable interface {
	// callsPlugins tells whether look may call a plugin, which may wait for others in the set.
	callsPlugins() bool
	// again puts it into the set, unless it is there or no longer to be watched.
	again()
	// look sees what there is; it returns true if nothing more will come.
	look() bool
	// finish says that nothing will be known any more.
	finish(status ExitStatus, err error)
}

// watcher is the set of all descriptors that somebody waits for. There is an epoll descriptor
// and a goroutine only while there are any.
var watcher watchers

type watchers struct {
	mu  sync.Mutex
	set *epollSet
}

type epollSet struct {
	fd      int
	file    *os.File // owns fd
	watched map[int]waitable
}

// add watches p until it has ended or is removed. Called with p's lock.
func (w *watchers) add(p *process) error {
	fd, err := p.lib.FD()
	if err == nil {
		err = w.addFD(fd, p)
	}
	if err == nil {
		p.fd = fd
	}
	return err
}

func (w *watchers) addFD(fd int, what waitable) (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	set := w.set
	if set == nil {
		if set, err = newEpollSet(); err != nil {
			return err
		}
	} else if set.watched[fd] == what {
		return nil
	}
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
	if err := syscall.EpollCtl(set.fd, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
		if w.set == nil {
			set.file.Close()
		}
		return os.NewSyscallError("epoll_ctl", err)
	}
	set.watched[fd] = what
	if w.set == nil {
		w.set = set
		go w.run(set)
	}
	return nil
}

func newEpollSet() (*epollSet, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	// How os.NewFile knows that it may go to the netpoller.
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(fd), "locule processes")
	return &epollSet{fd: fd, file: file, watched: make(map[int]waitable)}, nil
}

// remove undoes add. Called with p's lock.
func (w *watchers) remove(p *process) { w.removeFD(p.fd, p) }

func (w *watchers) removeFD(fd int, what waitable) {
	w.mu.Lock()
	var empty *epollSet
	if w.set != nil && w.set.watched[fd] == what {
		empty = w.forget(fd)
	}
	w.mu.Unlock()
	// Without the lock: Close waits for run to leave the netpoller.
	if empty != nil {
		empty.file.Close()
	}
}

// forget takes a descriptor out of the set, and the set out of w when it was the last. The
// caller closes the set that it returns. Called with the lock.
func (w *watchers) forget(fd int) *epollSet {
	set := w.set
	delete(set.watched, fd)
	// A descriptor that somebody has duplicated would stay in the set after it is closed.
	_ = syscall.EpollCtl(set.fd, syscall.EPOLL_CTL_DEL, fd, nil)
	if len(set.watched) > 0 {
		return nil
	}
	w.set = nil
	return set
}

func (w *watchers) run(set *epollSet) {
	defer set.file.Close()
	conn, err := set.file.SyscallConn()
	for err == nil {
		var events [64]syscall.EpollEvent
		count := 0
		// The netpoller reports edges of the set, so it must be looked at before every sleep;
		// conn.Read does so. Nothing is ever read.
		err = conn.Read(func(uintptr) bool {
			var errno error = syscall.EINTR
			for errno == syscall.EINTR {
				count, errno = syscall.EpollWait(set.fd, events[:], 0)
			}
			return count > 0
		})
		if err == nil && w.collect(set, events[:count]) {
			return
		}
	}
	// Closed because it was empty; or else the processes' ends will never be known.
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range set.watched {
		p.finish(ExitStatus{}, err)
	}
	if w.set == set {
		w.set = nil
	}
}

// collect lets those who wait for the processes of these events know. It returns true when
// the set has become empty and is no longer used.
func (w *watchers) collect(set *epollSet, events []syscall.EpollEvent) bool {
	for _, event := range events {
		fd := int(event.Fd)
		w.mu.Lock()
		p := set.watched[fd]
		w.mu.Unlock()
		// By now the number may be of another process, which then has not ended.
		if p == nil || !p.callsPlugins() && !p.look() {
			continue
		}
		w.mu.Lock()
		var empty *epollSet
		if set.watched[fd] == p {
			empty = w.forget(fd)
		}
		w.mu.Unlock()
		if p.callsPlugins() {
			// Out of the set meanwhile, or it would be reported without end.
			go func() {
				if !p.look() {
					p.again()
				}
			}()
		}
		if empty != nil {
			return true
		}
	}
	return false
}
