package main

// What --break does: what the library must not do.

/*
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static void *sleep_on(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static int start_thread(void)
{
	pthread_t thread;
	return pthread_create(&thread, NULL, sleep_on, NULL);
}
*/
import "C"

import (
	"os"
	"os/signal"
	"syscall"
	"unsafe"
)

var breaks = map[string]func(){
	"umask": func() { syscall.Umask(0) },
	"umask-for-a-moment": func() {
		old, seen := syscall.Umask(0), samples.Load()
		for samples.Load() < seen+2 {
			nap()
		}
		syscall.Umask(old)
	},
	"child": func() {
		_, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
		must(err)
	},
	"fd": func() {
		_, err := syscall.Open("/dev/null", syscall.O_RDONLY, 0)
		must(err)
	},
	"thread":      func() { C.start_thread() },
	"directory":   func() { must(syscall.Chdir("/")) },
	"environment": func() { C.setenv(C.CString("LOCULE_WAS_HERE"), C.CString("1"), 1) },
	"mask":        func() { setMask(blockSignals, 1<<(syscall.SIGUSR2-1)) },
	"handler":     func() { signal.Ignore(syscall.SIGPIPE) },
	"output": func() {
		_, err := syscall.Write(1, []byte("hello\n"))
		must(err)
	},
	"subreaper": func() { prctl(36, 1) }, // PR_SET_CHILD_SUBREAPER
	"namespace": func() { must(syscall.Unshare(syscall.CLONE_NEWUTS)) },
	"keyring":   func() { call(syscall.SYS_KEYCTL, 1, 0) }, // KEYCTL_JOIN_SESSION_KEYRING
	"oom":       func() { must(os.WriteFile("/proc/self/oom_score_adj", []byte("5"), 0)) },
	"limit":     func() { must(syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})) },
	"memory":    func() { spent = touched(64 << 20) },
	"address-space": func() {
		_, err := syscall.Mmap(-1, 0, 1<<30, syscall.PROT_NONE, syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_NORESERVE)
		must(err)
	},
}

var spent []byte

// touched is memory of which every page is there.
func touched(size int) []byte {
	memory, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	must(err)
	// In small pages, whose tables a fork would have to copy.
	must(syscall.Madvise(memory, syscall.MADV_NOHUGEPAGE))
	for at := 0; at < size; at += 4096 {
		memory[at] = 1
	}
	return memory
}

// What rt_sigprocmask takes.
const blockSignals, setSignals = 0, 2

// setMask changes the signal mask of the calling thread, of which Go knows nothing.
func setMask(how uintptr, mask uint64) {
	call(syscall.SYS_RT_SIGPROCMASK, how, uintptr(unsafe.Pointer(&mask)), 0, 8)
}
