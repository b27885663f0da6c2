// Thousands of containers from eight goroutines of one Go program: none fails, and nothing of
// them stays, here or on the machine. See soak.py.
//
//	soak COUNT
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	locule "github.com/locule/locule/bindings/go"
)

const (
	goroutines = 8
	warmUp     = 500
	mostGrowth = 8 * 1024 // kB of resident memory
)

var (
	ids     = fmt.Sprintf("soak-%d-", os.Getpid())
	numbers atomic.Int64
	wrong   bool
)

func newID() string { return ids + strconv.FormatInt(numbers.Add(1), 10) }

func report(fine bool, format string, a ...any) {
	word := "ok    "
	if !fine {
		word, wrong = "FAILED", true
	}
	fmt.Printf("%s   go %s\n", word, fmt.Sprintf(format, a...))
}

// must ends the program when something fails that has nothing to do with containers.
func must(err error) {
	if err != nil {
		report(false, "the host itself: %v", err)
		os.Exit(1)
	}
}

// inGoroutines calls once so often; what went wrong comes back.
func inGoroutines(count int, once func(number int) error) (failures []error) {
	var next atomic.Int64
	var mu sync.Mutex
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for number := int(next.Add(1)); number <= count; number = int(next.Add(1)) {
				if err := once(number); err != nil {
					mu.Lock()
					failures = append(failures, err)
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	return failures
}

func fromBundle(rt *locule.Runtime, bundle string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := rt.Create(ctx, newID(), nil, locule.WithBundle(bundle))
	if err != nil {
		return err
	}
	defer c.Close()
	return errors.Join(lives(ctx, c, 7), c.Delete(ctx))
}

func lives(ctx context.Context, c *locule.Container, code int) error {
	if err := c.Start(ctx); err != nil {
		return err
	}
	status, err := c.Wait(ctx)
	if err == nil && status.ExitCode() != code {
		err = fmt.Errorf("%v for %d", status, code)
	}
	return err
}

// byDefault does as Runtime.Command does, with an id by which to find what is left.
func byDefault(rt *locule.Runtime, number int) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	spec, err := locule.DefaultSpec(locule.SpecOptions{
		Args: []string{"/bin/sh", "-c", fmt.Sprintf("echo %d; exit 7", number)},
	})
	if err != nil {
		return err
	}
	var output strings.Builder
	c, err := rt.Create(ctx, newID(), spec, locule.HostRootfs(), locule.WithStdio(nil, &output, nil))
	if err != nil {
		return err
	}
	defer c.Close()
	err = errors.Join(lives(ctx, c, 7), c.Delete(ctx))
	if err == nil && output.String() != fmt.Sprintln(number) {
		err = fmt.Errorf("output %q", output.String())
	}
	return err
}

func makeBundle(path, busybox string) {
	for _, name := range []string{"bin", "proc", "dev", "sys"} {
		must(os.MkdirAll(filepath.Join(path, "rootfs", name), 0o755))
	}
	program, err := os.ReadFile(busybox)
	must(err)
	must(os.WriteFile(filepath.Join(path, "rootfs/bin/sh"), program, 0o755))
	spec, err := locule.DefaultSpec(locule.SpecOptions{
		Args: []string{"/bin/sh", "-c", "exit 7"}, Env: []string{"PATH=/bin"},
	})
	must(err)
	text, err := json.Marshal(spec)
	must(err)
	must(os.WriteFile(filepath.Join(path, "config.json"), text, 0o644))
}

func soak(kind string, count int, scratch string, once func(number int) error) {
	failures := inGoroutines(min(warmUp, count), once)
	before := map[string][]string{}
	for _, look := range looks(scratch) {
		before[look.name] = look.at()
	}
	before["keepers"] = nil // those of the warm-up may be on their way
	memory, start := resident(), time.Now()
	failures = append(failures, inGoroutines(count, once)...)
	elapsed, grown := time.Since(start), resident()
	first := ""
	if len(failures) > 0 {
		first = ", first: " + failures[0].Error()
	}
	report(first == "", "%s: %d containers in %.1f s, %d failures%s", kind, count, elapsed.Seconds(), len(failures), first)
	for _, look := range looks(scratch) {
		was := before[look.name]
		now := lasting(look.at, was)
		report(slices.Equal(now, was), "%s: %s: %d before, %d after%s", kind, look.name, len(was), len(now), changes(was, now))
	}
	report(grown-memory <= mostGrowth, "%s: resident memory: %d kB, then %d kB", kind, memory, grown)
}

func main() {
	count, err := strconv.Atoi(os.Args[1])
	must(err)
	warmThreads()
	scratch, err := os.MkdirTemp("", "locule-soak-")
	must(err)
	rt, err := locule.Open(locule.WithStateDir(filepath.Join(scratch, "state")))
	must(err)
	if busybox := staticBusybox(); busybox == "" {
		fmt.Println("skipped: go bundle: a static busybox (busybox-static)")
	} else {
		bundle := filepath.Join(scratch, "bundle")
		makeBundle(bundle, busybox)
		soak("bundle", count, scratch, func(int) error { return fromBundle(rt, bundle) })
	}
	soak("default", max(count/10, 1), scratch, func(n int) error { return byDefault(rt, n) })
	rt.Close()
	must(os.RemoveAll(scratch))
	if wrong {
		os.Exit(1)
	}
}

func staticBusybox() string {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return ""
	}
	if out, _ := exec.Command("ldd", path).CombinedOutput(); strings.Contains(string(out), "=>") {
		return ""
	}
	return path
}
