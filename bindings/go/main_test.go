package locule

// What the tests share: runtimes and containers that clean up after themselves, and a check
// that nothing of all the tests is left.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestMain(m *testing.M) {
	if helper := os.Getenv("LOCULE_TEST_HELPER"); helper != "" {
		os.Exit(runHelper(helper))
	}
	// The netpoller has descriptors, too: let it open them before they are counted.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	before := openFiles()
	code := m.Run()
	if left := leftovers(before); code == 0 && left != "" {
		fmt.Fprint(os.Stderr, "left behind:\n", left)
		code = 1
	}
	if rootfs.dir != "" {
		os.RemoveAll(rootfs.dir)
	}
	os.Exit(code)
}

// leftovers looks for files, goroutines of the watcher and cgroups that outlived the tests.
func leftovers(before map[string]bool) string {
	var left strings.Builder
	for range 50 {
		left.Reset()
		runtime.GC()
		for file := range openFiles() {
			if !before[file] {
				fmt.Fprintln(&left, "file", file)
			}
		}
		watcher.mu.Lock()
		if watcher.set != nil {
			fmt.Fprintln(&left, "watched processes:", len(watcher.set.watched))
		}
		watcher.mu.Unlock()
		for _, path := range cgroups(idPrefix()) {
			fmt.Fprintln(&left, "cgroup", path)
		}
		if left.Len() == 0 {
			return ""
		}
		time.Sleep(20 * time.Millisecond)
	}
	return left.String()
}

// cgroups are those with this in their names.
func cgroups(name string) (paths []string) {
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.Contains(entry.Name(), name) {
			paths = append(paths, path)
		}
		return nil
	})
	return paths
}

func openFiles() map[string]bool {
	files := make(map[string]bool)
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, entry := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil {
			files[entry.Name()+" -> "+target] = true
		}
	}
	return files
}

func idPrefix() string { return "gotest-" + strconv.Itoa(os.Getpid()) + "-" }

var ids atomic.Int64

func newID() string { return idPrefix() + strconv.FormatInt(ids.Add(1), 10) }

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: root")
	}
}

// openRuntime opens a runtime with a state directory of its own, which must be empty again at
// the end of the test.
func openRuntime(t testing.TB, opts ...Option) *Runtime {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	rt, err := Open(append([]Option{WithStateDir(dir)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if states, err := rt.List(context.Background()); err != nil || len(states) > 0 {
			t.Errorf("left in the state directory: %v, %v", states, err)
		}
		rt.Close()
		var left []string
		entries, _ := os.ReadDir(dir)
		for _, entry := range entries {
			if entry.IsDir() {
				left = append(left, entry.Name())
			}
		}
		if len(left) > 0 {
			t.Errorf("left in the state directory: %v", left)
		}
	})
	return rt
}

var rootfs struct {
	once sync.Once
	dir  string
	err  string
}

// busyboxRootfs is a root filesystem with busybox in it.
func busyboxRootfs(t testing.TB) string {
	t.Helper()
	rootfs.once.Do(func() { rootfs.dir, rootfs.err = makeRootfs() })
	if rootfs.err != "" {
		t.Skip("skipped: " + rootfs.err)
	}
	return rootfs.dir
}

func makeRootfs() (string, string) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return "", "busybox (busybox-static)"
	}
	if out, _ := exec.Command("ldd", busybox).CombinedOutput(); strings.Contains(string(out), "=>") {
		return "", "a static busybox (busybox-static)"
	}
	dir, err := os.MkdirTemp("", "locule-go-rootfs-")
	if err != nil {
		return "", err.Error()
	}
	text, err := os.ReadFile(busybox)
	if err != nil {
		return dir, err.Error()
	}
	for _, name := range []string{"bin", "proc", "dev", "sys", "tmp", "etc"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return dir, err.Error()
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return dir, err.Error()
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), text, 0o755); err != nil {
		return dir, err.Error()
	}
	for _, name := range strings.Fields("sh true false cat sleep echo wc id pwd env hostname stty head kill ls tr test yes tty") {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			return dir, err.Error()
		}
	}
	return dir, ""
}

// spec is a configuration that runs args from the busybox root filesystem.
func spec(t testing.TB, args ...string) *specs.Spec {
	t.Helper()
	s, err := DefaultSpec(SpecOptions{
		Args:   args,
		Env:    []string{"PATH=/bin"},
		Rootfs: busyboxRootfs(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// create creates a container that is deleted at the end of the test.
func create(t testing.TB, rt *Runtime, s *specs.Spec, opts ...CreateOption) *Container {
	t.Helper()
	c, err := rt.Create(testContext(t), newID(), s, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := c.Delete(context.Background(), ForceDelete)
		if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrClosed) {
			t.Errorf("delete: %v", err)
		}
		c.Close()
	})
	return c
}

// start creates and starts a container.
func start(t testing.TB, rt *Runtime, s *specs.Spec, opts ...CreateOption) *Container {
	t.Helper()
	c := create(t, rt, s, opts...)
	if err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return c
}

// sleeper is a running container.
func sleeper(t testing.TB, rt *Runtime) *Container {
	t.Helper()
	return start(t, rt, spec(t, "sleep", "1000"))
}

// command is a command in a container of its own.
func command(t testing.TB, rt *Runtime, args ...string) *Cmd {
	t.Helper()
	cmd := rt.Command(args[0], args[1:]...)
	cmd.Spec = spec(t)
	return cmd
}

// testContext ends before the test binary's own limit, so that a hang has a name.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func must[T any](t testing.TB) func(T, error) T {
	t.Helper()
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func threads(t testing.TB) int {
	t.Helper()
	text := must[[]byte](t)(os.ReadFile("/proc/self/status"))
	for line := range strings.Lines(string(text)) {
		if count, ok := strings.CutPrefix(line, "Threads:"); ok {
			return must[int](t)(strconv.Atoi(strings.TrimSpace(count)))
		}
	}
	t.Fatal("no thread count")
	return 0
}
