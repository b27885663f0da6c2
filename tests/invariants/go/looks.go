package main

// What the process looks like: each function returns a text that must stay the same. The items
// are those of host.c, with the same names. Nothing here changes anything.

// extern char **environ;
import "C"

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

type item struct {
	name string
	look func() string
	// Is to be so at every moment, not only in the end.
	sampled bool
}

var items = []item{
	{"umask", umask, true},
	{"working directory and root of every thread", directory, true},
	{"environment", environment, true},
	{"signal mask of every thread", masks, false},
	{"signal dispositions, all 64", dispositions, true},
	{"credentials and capabilities of every thread", credentials, true},
	{"namespaces of every thread", namespaces, true},
	{"cgroup of every thread", cgroups, true},
	{"oom_score_adj", oom, true},
	{"dumpable and subreaper flags", flags, true},
	{"session, process group and terminal", session, true},
	{"resource limits", limits, true},
	{"nice, scheduler, affinity of every thread", schedule, true},
	{"threads: none added, none renamed", threadNames, true},
	{"interval timers", timers, true},
	{"descriptors", descriptors, false},
	{"mounts", mounts, false},
}

func read(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error() + "\n"
	}
	return string(text)
}

func link(path string) string {
	target, err := os.Readlink(path)
	if err != nil {
		return err.Error() + "\n"
	}
	return path + ": " + target + "\n"
}

// names are those of a directory's entries that are numbers.
func numbers(dir string) (numbers []int) {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		if number, err := strconv.Atoi(entry.Name()); err == nil {
			numbers = append(numbers, number)
		}
	}
	return numbers
}

func ofThreads(look func(thread int) string) string {
	var text strings.Builder
	for _, thread := range numbers("/proc/self/task") {
		text.WriteString(look(thread))
	}
	return text.String()
}

func task(thread int, name string) string {
	return fmt.Sprintf("/proc/self/task/%d/%s", thread, name)
}

// status is those lines of a thread's status that start with one of the names.
func status(thread int, names ...string) string {
	var text strings.Builder
	for line := range strings.Lines(read(task(thread, "status"))) {
		for _, name := range names {
			if strings.HasPrefix(line, name) {
				fmt.Fprint(&text, thread, " ", line)
			}
		}
	}
	return text.String()
}

func umask() string { return status(os.Getpid(), "Umask") }

func directory() string {
	return ofThreads(func(t int) string { return link(task(t, "cwd")) + link(task(t, "root")) })
}

// environment is that of C and that of Go, which are not the same thing.
func environment() string {
	var text strings.Builder
	for _, variable := range unsafe.Slice(C.environ, 1<<16) {
		if variable == nil {
			break
		}
		fmt.Fprintf(&text, "%p %q\n", variable, C.GoString(variable))
	}
	fmt.Fprintf(&text, "%q\n", os.Environ())
	return text.String()
}

func masks() string {
	return ofThreads(func(t int) string { return status(t, "SigBlk") })
}

func dispositions() string {
	var text strings.Builder
	for number := uintptr(1); number <= 64; number++ {
		var action struct{ handler, flags, restorer, mask uint64 } // the kernel's own structure
		call(syscall.SYS_RT_SIGACTION, number, 0, uintptr(unsafe.Pointer(&action)), 8)
		fmt.Fprintf(&text, "%d: %x %x %x\n", number, action.handler, action.flags, action.mask)
	}
	return text.String()
}

func credentials() string {
	return ofThreads(func(t int) string {
		return status(t, "Uid:", "Gid:", "Groups:", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb",
			"NoNewPrivs:", "Seccomp")
	})
}

func namespaces() string {
	return ofThreads(func(t int) (text string) {
		for _, name := range []string{"cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "user", "uts"} {
			text += link(task(t, "ns/"+name))
		}
		return text
	})
}

func cgroups() string {
	return ofThreads(func(t int) string { return fmt.Sprintln(t) + read(task(t, "cgroup")) })
}

func oom() string { return read("/proc/self/oom_score_adj") }

func flags() string {
	subreaper := int32(-1)
	prctl(37, uintptr(unsafe.Pointer(&subreaper))) // PR_GET_CHILD_SUBREAPER
	dumpable, hugePages := prctl(syscall.PR_GET_DUMPABLE, 0), prctl(42, 0)
	return fmt.Sprintln("dumpable", dumpable, "subreaper", subreaper, "huge pages off", hugePages) +
		read("/proc/self/coredump_filter")
}

func session() string {
	_, rest, _ := strings.Cut(read("/proc/self/stat"), ") ")
	fields := strings.Fields(rest)
	return fmt.Sprintln("group, session, terminal, its foreground group:", fields[2:6])
}

func limits() string { return read("/proc/self/limits") }

func schedule() string {
	return ofThreads(func(t int) string {
		id := uintptr(t)
		return fmt.Sprintf("%d: policy %d, nice %d, io %d\n%s", t,
			call(syscall.SYS_SCHED_GETSCHEDULER, id), 20-call(syscall.SYS_GETPRIORITY, 0, id),
			call(syscall.SYS_IOPRIO_GET, 1, id), status(t, "Cpus_allowed:", "Mems_allowed:"))
	})
}

func threadNames() string {
	return ofThreads(func(t int) string { return fmt.Sprint(t, " ", read(task(t, "comm"))) })
}

func timers() string {
	var text strings.Builder
	for which := uintptr(0); which < 3; which++ {
		var timer timerValue
		call(syscall.SYS_GETITIMER, which, uintptr(unsafe.Pointer(&timer)))
		fmt.Fprintln(&text, which, "every", timer.interval)
	}
	return text.String()
}

type timerValue struct{ interval, value syscall.Timeval }

type descriptor struct {
	fd          int
	target      string
	closeOnExec bool
}

func openDescriptors() (list []descriptor) {
	for _, fd := range numbers("/proc/self/fd") {
		target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err != nil {
			continue // that of the listing itself, above all
		}
		flags := call(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD)
		list = append(list, descriptor{fd, target, flags&syscall.FD_CLOEXEC != 0})
	}
	return list
}

func descriptors() string {
	var text strings.Builder
	for _, d := range openDescriptors() {
		status := call(syscall.SYS_FCNTL, uintptr(d.fd), syscall.F_GETFL)
		fmt.Fprintln(&text, d.fd, d.target, "close-on-exec", d.closeOnExec, "status", status)
	}
	return text.String()
}

func mounts() string { return read("/proc/self/mountinfo") }

// own is what only the calling thread can see of itself.
func own() string {
	var stack struct {
		sp    uint64
		flags int32
		_     int32
		size  uint64
	}
	deathSignal, policy := int32(-1), int32(-1)
	call(syscall.SYS_SIGALTSTACK, 0, uintptr(unsafe.Pointer(&stack)))
	prctl(syscall.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&deathSignal)))
	call(syscall.SYS_GET_MEMPOLICY, uintptr(unsafe.Pointer(&policy)), 0, 0, 0, 0)
	var keyrings [3]int
	for i := range keyrings {
		keyrings[i] = call(syscall.SYS_KEYCTL, 0, uintptr(i-3), 0) // session, process, thread
	}
	return fmt.Sprintln("keyrings:", keyrings) + fmt.Sprintln("signal stack:", stack) +
		fmt.Sprintln("death signal", deathSignal, "timer slack", prctl(syscall.PR_GET_TIMERSLACK, 0),
			"securebits", prctl(syscall.PR_GET_SECUREBITS, 0), "keepcaps", prctl(syscall.PR_GET_KEEPCAPS, 0),
			"personality", call(syscall.SYS_PERSONALITY, 0xffffffff), "memory policy", policy)
}

// resident is resident memory in kB.
func resident() int {
	pages, _ := strconv.Atoi(strings.Fields(read("/proc/self/statm"))[1])
	return pages * os.Getpagesize() / 1024
}

// size is that of the address space in kB, largestSize what it was at most.
func size() int        { return fromStatus("VmSize:") }
func largestSize() int { return fromStatus("VmPeak:") }

func fromStatus(name string) int {
	_, rest, _ := strings.Cut(read("/proc/self/status"), "\n"+name)
	number, _ := strconv.Atoi(strings.Fields(rest)[0])
	return number
}

// difference is the first line in which two texts differ.
func difference(before, after string) string {
	old, now := strings.Split(before, "\n"), strings.Split(after, "\n")
	for i := range old {
		if i >= len(now) || old[i] != now[i] {
			return fmt.Sprintf("was %q, is %q", old[i], strings.Join(now[min(i, len(now)):min(i+1, len(now))], ""))
		}
	}
	return fmt.Sprintf("there is more: %q", strings.Join(now[len(old):], "\n"))
}

// call is a system call; a negative number is an error. What the arguments point to stays where
// it is until the call is over.
//
//go:uintptrescapes
func call(number uintptr, a ...uintptr) int {
	var all [6]uintptr
	copy(all[:], a)
	result, _, errno := syscall.RawSyscall6(number, all[0], all[1], all[2], all[3], all[4], all[5])
	if errno != 0 {
		return -int(errno)
	}
	return int(result)
}

//go:uintptrescapes
func prctl(option, argument uintptr) int { return call(syscall.SYS_PRCTL, option, argument) }
