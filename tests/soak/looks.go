package main

// What must be the same afterwards as before.

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

type look struct {
	name string
	at   func() []string
}

func looks(scratch string) []look {
	return []look{
		{"descriptors", descriptors},
		{"threads", func() []string { return list("/proc/self/task") }},
		{"children", children},
		{"mounts", func() []string { return lines("/proc/self/mountinfo") }},
		{"mounts of the machine", func() []string { return ofTheMachine(scratch) }},
		{"cgroups", cgroups},
		{"state directories", func() []string { return directories(filepath.Join(scratch, "state")) }},
		{"keepers", keepers},
		{"goroutines", func() []string { return []string{strconv.Itoa(runtime.NumGoroutine())} }},
	}
}

// warmThreads makes as many threads as the program can ever use at once. Go keeps them and
// makes another one only when all are in use.
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
}

func list(dir string) (names []string) {
	entries, err := os.ReadDir(dir)
	must(err)
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func lines(path string) []string {
	text, err := os.ReadFile(path)
	must(err)
	return strings.Split(string(text), "\n")
}

func descriptors() (found []string) {
	for _, name := range list("/proc/self/fd") {
		// That of the listing itself is gone.
		if target, err := os.Readlink("/proc/self/fd/" + name); err == nil {
			found = append(found, name+" "+target)
		}
	}
	return found
}

func children() []string {
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
	if err == syscall.ECHILD {
		return nil
	}
	return []string{fmt.Sprint(pid, err)}
}

// ofTheMachine is mounts that everybody sees. There may be others' meanwhile: those that name us
// count.
func ofTheMachine(scratch string) (found []string) {
	for _, line := range lines("/proc/1/mountinfo") {
		if strings.Contains(line, scratch) || strings.Contains(line, ids) {
			found = append(found, line)
		}
	}
	return found
}

func cgroups() (found []string) {
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(entry.Name(), ids) {
			found = append(found, path)
		}
		return nil
	})
	return found
}

func directories(dir string) (found []string) {
	entries, err := os.ReadDir(dir)
	must(err)
	for _, entry := range entries {
		if entry.IsDir() {
			found = append(found, entry.Name())
		}
	}
	return found
}

// keepers are those that look after this process: they have a pidfd of it.
func keepers() (found []string) {
	us := fmt.Sprintf("\nPid:\t%d\n", os.Getpid())
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		if text, _ := os.ReadFile(path); !strings.HasPrefix(string(text), "locule") {
			continue
		}
		infos, _ := filepath.Glob(filepath.Dir(path) + "/fdinfo/*")
		for _, info := range infos {
			if text, _ := os.ReadFile(info); strings.Contains(string(text), us) {
				found = append(found, path)
				break
			}
		}
	}
	return found
}

// lasting looks until it finds what is expected, for a while: a keeper that has been told to
// leave, for one, is gone a moment later.
func lasting(look func() []string, expected []string) (now []string) {
	for range 100 {
		if now = look(); slices.Equal(now, expected) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return now
}

// changes is the first of what only one of the lists has.
func changes(before, after []string) string {
	var only []string
	for _, pair := range [][2][]string{{before, after}, {after, before}} {
		for _, entry := range pair[0] {
			if !slices.Contains(pair[1], entry) {
				only = append(only, entry)
			}
		}
	}
	if len(only) == 0 {
		return ""
	}
	return ": " + only[0]
}

// resident is resident memory in kB.
func resident() int {
	debug.FreeOSMemory()
	pages, err := strconv.Atoi(strings.Fields(lines("/proc/self/statm")[0])[1])
	must(err)
	return pages * os.Getpagesize() / 1024
}
