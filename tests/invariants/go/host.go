// A busy Go program that runs containers through Locule, and checks that it is left as it was:
// the first promise of the design, item by item. See host.c.
//
//	host VARIANT DIRECTORY [--break WHAT]
//
// DIRECTORY is empty, absolute and the host's own to fill. LOCULE_TEST_PLUGIN is a folder with the
// component stamp.wasm, for the variant plugins. With --break the host itself does what the library
// must not do, to show that the checks see it. LOCULE_CYCLES is how many containers are run.
package main

import (
	"context"
	"io/fs"
	"math/rand"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	locule "github.com/locule/locule/bindings/go"
)

const (
	workers    = 4
	allocators = 2
	warmUp     = 8
)

var (
	variant, dir, breaking string

	cycles   = 30
	stopping = make(chan struct{})
	sampling sync.Mutex
	before   map[string]string
	samples  atomic.Int64
	next     atomic.Int64 // the number of the next container
)

func nap() { time.Sleep(time.Millisecond) }

// until calls f again and again.
func untilStopped(f func()) {
	for {
		select {
		case <-stopping:
			return
		default:
			f()
			nap()
		}
	}
}

// --- The goroutines of the host ---------------------------------------------------------------

// warmThreads makes as many threads as the host can ever use at once. Go keeps them and makes
// another one only when all are in use: so from here on, a new thread is somebody else's.
func warmThreads() {
	const enough = 48
	var here, leave sync.WaitGroup
	here.Add(enough)
	leave.Add(1)
	for range enough {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			here.Done()
			leave.Wait()
		}()
	}
	here.Wait()
	leave.Done()
	// There may be more than it took, which have not begun yet: those have every signal blocked.
	for strings.Contains(masks(), "fffffffffffbfeff") {
		nap()
	}
}

// allocate keeps the allocator and the collector busy.
func allocate() {
	var blocks [64][]byte
	untilStopped(func() {
		for range 500 {
			blocks[rand.Intn(len(blocks))] = make([]byte, rand.Intn(8192)+1)
		}
	})
}

// odd has a thread of its own, with an odd signal mask and a low priority.
func odd(ready chan<- struct{}) {
	runtime.LockOSThread()
	setMask(setSignals, ^uint64(1<<(syscall.SIGUSR1-1)))
	call(syscall.SYS_SETPRIORITY, 0, 0, 7)
	ready <- struct{}{}
	<-stopping
}

// reap waits for whatever child there is, as init systems and test runners do.
func reap() {
	untilStopped(func() {
		for range 50 {
			var status syscall.WaitStatus
			if pid, err := syscall.Wait4(-1, &status, 0, nil); err != syscall.ECHILD && err != syscall.EINTR {
				children.add("waitpid(-1) gave %d, status %x, %v", pid, status, err)
			}
		}
	})
}

func checkNoChild() {
	var status syscall.WaitStatus
	if pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil); err != syscall.ECHILD {
		children.add("waitpid(-1) gave %d, status %x, %v", pid, status, err)
	}
}

// watch looks again and again while containers run: what is changed for a moment only is a
// change, too.
func watch() {
	untilStopped(func() {
		sampling.Lock()
		defer sampling.Unlock()
		if before == nil {
			return
		}
		for _, item := range items {
			if !item.sampled {
				continue
			}
			if now := item.look(); now != before[item.name] {
				passing.add("%s: %s", item.name, difference(before[item.name], now))
			}
		}
		// A new descriptor is to be close-on-exec: a host that executes something else at this
		// moment must not hand it on.
		for _, d := range openDescriptors() {
			known := strings.Contains("\n"+before["descriptors"], "\n"+strconv.Itoa(d.fd)+" ")
			if !d.closeOnExec && !known {
				passing.add("not close-on-exec: %s", d.target)
			}
		}
		checkNoChild()
		samples.Add(1)
	})
}

// signals counts what arrives, but for SIGURG, with which Go interrupts its own threads.
type signals struct {
	mu       sync.Mutex
	received map[os.Signal]int
}

func (s *signals) count(arrived <-chan os.Signal) {
	for number := range arrived {
		s.mu.Lock()
		s.received[number]++
		s.mu.Unlock()
	}
}

func countSignals() *signals {
	s := &signals{received: map[os.Signal]int{}}
	arrived := make(chan os.Signal, 1024)
	signal.Notify(arrived, syscall.SIGALRM, syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGHUP,
		syscall.SIGUSR1, syscall.SIGIO, syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGTERM)
	signal.Ignore(syscall.SIGUSR2)
	if variant == "sigchld-ignored" {
		signal.Ignore(syscall.SIGCHLD)
	}
	go s.count(arrived)
	return s
}

func setTimer(every time.Duration) {
	interval := syscall.NsecToTimeval(int64(every))
	timer := timerValue{interval, interval}
	call(syscall.SYS_SETITIMER, 0, uintptr(unsafe.Pointer(&timer)), 0)
}

// --- The workers ------------------------------------------------------------------------------

// phases lets the workers and the main goroutine wait for each other between the parts of the
// test: each worker sends, and then waits until the main goroutine has something done.
type phases struct {
	here chan struct{}
	on   []chan struct{}
}

func (p *phases) meet(worker int) {
	p.here <- struct{}{}
	<-p.on[worker]
}

// each waits for the workers, does something and lets them go on.
func (p *phases) each(do func()) {
	for range workers {
		<-p.here
	}
	do()
	for _, on := range p.on {
		on <- struct{}{}
	}
}

// work is one worker. Half of them have a thread of their own, of which the properties that
// only the thread can see are compared; the others change threads as Go likes.
func work(number int, p *phases, rt **locule.Runtime) {
	until := func(last int64) {
		for cycle := next.Add(1) - 1; cycle < last; cycle = next.Add(1) - 1 {
			runContainer(*rt, int(cycle))
		}
		next.Store(last) // every worker has taken one too many
	}
	ownThread, ownLook := number < workers/2, ""
	if ownThread {
		runtime.LockOSThread()
		if number == 1 {
			setMask(setSignals, 1<<(syscall.SIGINT-1)|1<<(syscall.SIGCHLD-1)|1<<38)
			prctl(syscall.PR_SET_TIMERSLACK, 77777)
		}
		ownLook = own()
	}
	p.meet(number) // everything is as it shall stay; then the runtime is opened
	until(warmUp)
	p.meet(number) // whatever is made once is made; then the memory is looked at
	if number == 0 && breaking != "" {
		breaks[breaking]()
	}
	until(int64(warmUp + cycles))
	if ownThread {
		if now := own(); now != ownLook {
			attributes.add("%s", difference(ownLook, now))
		}
	}
	p.meet(number) // all containers are gone; then everything is looked at
}

// --- The variants -----------------------------------------------------------------------------

// refuseClone3 does as sandboxes do that cannot look into its arguments.
func refuseClone3() {
	const clone3, enosys = 435, 38 // on every machine
	program := []syscall.SockFilter{
		{Code: syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS}, // the number of the system call
		{Code: syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, Jf: 1, K: clone3},
		{Code: syscall.BPF_RET, K: 0x00050000 | enosys}, // SECCOMP_RET_ERRNO
		{Code: syscall.BPF_RET, K: 0x7fff0000},          // SECCOMP_RET_ALLOW
	}
	header := syscall.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	number := uintptr(map[string]int{"amd64": 317, "arm64": 277}[runtime.GOARCH]) // seccomp
	const setModeFilter, allThreads = 1, 1
	if result := call(number, setModeFilter, allThreads, uintptr(unsafe.Pointer(&header))); result != 0 {
		must(syscall.Errno(-result))
	}
	if call(clone3, 0, 0) != -enosys {
		must(syscall.EINVAL)
	}
}

// setUpStreams gives the host streams of which the other ends can be looked at.
func setUpStreams() (ends [3]int) {
	for number := range ends {
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		must(err)
		must(syscall.Dup3(pair[1], number, 0))
		must(syscall.Close(pair[1]))
		ends[number] = pair[0]
	}
	_, err := syscall.Write(ends[0], []byte("input"))
	must(err)
	return ends
}

func checkStreams(ends [3]int) {
	waiting := func(fd int) (count int32) {
		call(syscall.SYS_IOCTL, uintptr(fd), syscall.TIOCINQ, uintptr(unsafe.Pointer(&count)))
		return count
	}
	written, unread := [3]int32{}, waiting(0)
	for number, end := range ends {
		written[number] = waiting(end)
	}
	report(written == [3]int32{} && unread == 5, "nothing written to descriptors 0 to 2, nothing read",
		"%v written, %d of 5 to read", written, unread)
}

func beOdd() {
	_, err := syscall.Setsid()
	must(err)
	path := dir + "/a \"directory\"\n with an \xff odd name"
	must(os.Mkdir(path, 0o755))
	must(os.Chdir(path))
	os.Clearenv()
	must(os.Setenv("TMPDIR", "/no/such/directory"))
	must(os.Setenv("LC_ALL", "xx_YY.nonsense"))
	syscall.Umask(0o137)
	var limit syscall.Rlimit
	must(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	limit.Cur = 777
	must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
}

// --- The whole --------------------------------------------------------------------------------

func checkLeft(rt *locule.Runtime) {
	var left []string
	states, err := rt.List(context.Background())
	must(err)
	for _, state := range states {
		left = append(left, state.ID)
	}
	reportLeft("no container is left", left)

	left = nil
	entries, err := os.ReadDir(dir + "/state")
	must(err)
	for _, entry := range entries {
		if entry.IsDir() {
			left = append(left, entry.Name())
		}
	}
	reportLeft("no directory of a container is left", left)

	left = nil
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(entry.Name(), ids) {
			left = append(left, path)
		}
		return nil
	})
	reportLeft("no cgroup is left", left)
}

func reportLeft(item string, left []string) {
	report(len(left) == 0, item, "%s", strings.Join(left, " "))
}

// lasting looks until it finds what is expected, for a while: a thread that is just in a
// handler, for one, has another signal mask.
func lasting(look func() string, expected string) (now string) {
	for range 50 {
		if now = look(); now == expected {
			break
		}
		nap()
	}
	return now
}

func collected() int {
	debug.FreeOSMemory()
	return resident()
}

func main() {
	if len(os.Args) != 3 && (len(os.Args) != 5 || os.Args[3] != "--break") {
		os.Exit(2)
	}
	variant, dir = os.Args[1], os.Args[2]
	if len(os.Args) == 5 {
		breaking = os.Args[4]
	}
	if number, err := strconv.Atoi(os.Getenv("LOCULE_CYCLES")); err == nil {
		cycles = number
	}
	must(syscall.Dup3(1, reportFD, syscall.O_CLOEXEC))
	switch variant {
	case "no-clone3":
		refuseClone3()
	case "resident-2g":
		touched(2 << 30)
	}
	ends := setUpStreams()
	beOdd()
	counted := countSignals()

	// What Go makes once: the netpoller with its descriptors, and threads.
	r, w, err := os.Pipe()
	must(err)
	r.Close()
	w.Close()
	warmThreads()

	p := &phases{here: make(chan struct{})}
	var rt *locule.Runtime
	for number := range workers {
		p.on = append(p.on, make(chan struct{}))
		go work(number, p, &rt)
	}
	for range allocators {
		go allocate()
	}
	ready := make(chan struct{})
	go odd(ready)
	<-ready
	go watch()
	if variant == "foreign-reaper" {
		go reap()
	}
	setTimer(2 * time.Millisecond)

	var oldSize int
	p.each(func() {
		sampling.Lock()
		defer sampling.Unlock()
		looks := map[string]string{}
		for _, item := range items {
			looks[item.name] = lasting(item.look, item.look())
		}
		before = looks
		oldSize = size()
		rt, err = locule.Open(locule.WithStateDir(dir+"/state"), locule.WithPlugins(plugins()...))
		must(err)
	})
	var old int
	p.each(func() { old = collected() })
	p.each(func() {
		now := collected()
		sampling.Lock() // what the host itself does from here on is not watched
		defer sampling.Unlock()
		checkLeft(rt)
		rt.Close()
		for _, item := range items {
			if now := lasting(item.look, before[item.name]); now == before[item.name] {
				report(true, item.name, "")
			} else {
				report(false, item.name, "%s", difference(before[item.name], now))
			}
		}
		attributes.report("keyrings, timer slack, signal stack, memory policy of every worker", "")
		passing.report("nor for a moment; descriptors are close-on-exec", "looked %d times", samples.Load())
		checkNoChild()
		children.report("no child, at no time", "")
		counted.report()
		checkStreams(ends)
		report(now-old <= 8*1024, "resident memory does not grow", "%d kB, then %d kB", old, now)
		most := largestSize()
		report(most-oldSize < 256*1024, "address space stays bounded, at every moment", "%d kB, at most %d kB", oldSize, most)
		if withPlugins() {
			report(calls.Load() > int64(cycles), "plugins are called", "%d calls", calls.Load())
		}
		works.report("containers work, outputs and exit statuses are right", "%d containers", warmUp+cycles)
	})
	close(stopping)
	if failures > 0 {
		os.Exit(1)
	}
}

func (s *signals) report() {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.received[syscall.SIGALRM]
	delete(s.received, syscall.SIGALRM)
	report(len(s.received) == 0, "no SIGCHLD, no other signal from a container",
		"%d of the host's own, others %v", own, s.received)
}
