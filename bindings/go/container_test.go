package locule

// Containers, step by step.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func status(t *testing.T, c *Container) specs.ContainerState {
	t.Helper()
	return must[*specs.State](t)(c.State(context.Background())).Status
}

func TestTheLifeOfAContainer(t *testing.T) {
	ctx := testContext(t)
	rt := openRuntime(t)
	var out bytes.Buffer
	c := create(t, rt, spec(t, "sh", "-c", "cat; exit 5"), WithStdio(nil, &out, nil), WithStdinPipe())
	if status(t, c) != specs.StateCreated || c.Pid() <= 0 || !strings.HasPrefix(c.ID(), idPrefix()) {
		t.Error(status(t, c), c.Pid(), c.ID())
	}
	check(t, c.Start(ctx))
	if status(t, c) != specs.StateRunning {
		t.Error(status(t, c))
	}
	if err := c.Start(ctx); !errors.Is(err, ErrState) {
		t.Error("started twice:", err)
	}
	if err := c.Delete(ctx); !errors.Is(err, ErrState) {
		t.Error("deleted while it runs:", err)
	}
	select {
	case <-c.Exited():
		t.Error("has not ended yet")
	default:
	}
	_, err := io.WriteString(c.Stdin(), "hello")
	check(t, err)
	check(t, c.Stdin().Close())
	for range 2 {
		if s, err := c.Wait(ctx); err != nil || s.ExitCode() != 5 || out.String() != "hello" {
			t.Errorf("%v %v %q", s, err, &out)
		}
	}
	<-c.Exited()
	if status(t, c) != specs.StateStopped {
		t.Error(status(t, c))
	}
	if err := c.Signal(syscall.SIGTERM); !errors.Is(err, ErrState) {
		t.Error("signalled after its end:", err)
	}
	check(t, c.Kill(ctx))
	check(t, c.Delete(ctx))
	if _, err := c.State(ctx); !errors.Is(err, ErrNotFound) || !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := c.Delete(ctx); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	check(t, c.Close())
	check(t, c.Close())
	if _, err := c.State(ctx); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if s, err := c.Wait(ctx); err != nil || s.ExitCode() != 5 {
		t.Error("what is known is forgotten after Close:", s, err)
	}
}

func TestAnIdIsInvented(t *testing.T) {
	rt := openRuntime(t)
	c := must[*Container](t)(rt.Create(testContext(t), "", spec(t, "true")))
	defer c.Close()
	if c.ID() == "" {
		t.Error("no id")
	}
	check(t, c.Delete(testContext(t), ForceDelete))
}

func TestPipesOfTheFirstProcess(t *testing.T) {
	rt := openRuntime(t)
	c := start(t, rt, spec(t, "sh", "-c", "cat; echo err >&2"), WithStdinPipe(), WithStdoutPipe(), WithStderrPipe())
	_, err := io.WriteString(c.Stdin(), "in")
	check(t, err)
	c.Stdin().Close()
	out, err := io.ReadAll(c.Stdout())
	if err != nil || string(out) != "in" {
		t.Errorf("%q %v", out, err)
	}
	if _, err := c.Wait(testContext(t)); err != nil {
		t.Error(err)
	}
	out, err = io.ReadAll(c.Stderr())
	if err != nil || string(out) != "err\n" {
		t.Errorf("after Wait: %q %v", out, err)
	}
}

func TestATerminalOfTheFirstProcess(t *testing.T) {
	rt := openRuntime(t)
	c := start(t, rt, spec(t, "sh", "-c", "stty size; read x; stty size"),
		WithTTY(WinSize{Rows: 5, Cols: 6}), WithStdinPipe(), WithStdoutPipe())
	expect(t, c.Stdout(), "5 6")
	check(t, c.Resize(WinSize{Rows: 7, Cols: 8}))
	_, err := io.WriteString(c.Stdin(), "\n")
	check(t, err)
	expect(t, c.Stdout(), "7 8")
	if s, err := c.Wait(testContext(t)); err != nil || !s.Success() {
		t.Error(s, err)
	}
}

func TestABundle(t *testing.T) {
	rt := openRuntime(t)
	bundle := writeBundle(t, spec(t, "sh", "-c", "tty; stty size"))
	var out bytes.Buffer
	c := must[*Container](t)(rt.Create(testContext(t), newID(), nil, WithBundle(bundle), WithStdio(nil, &out, nil)))
	defer c.Close()
	defer c.Delete(context.Background(), ForceDelete)
	if state := must[*specs.State](t)(c.State(testContext(t))); state.Bundle != bundle {
		t.Error(state.Bundle)
	}
	check(t, c.Start(testContext(t)))
	if _, err := c.Wait(testContext(t)); err != nil || !strings.Contains(out.String(), "not a tty") {
		t.Errorf("%q %v", &out, err)
	}
}

func TestABundleWithATerminal(t *testing.T) {
	rt := openRuntime(t)
	s := spec(t, "tty")
	s.Process.Terminal = true
	for _, opts := range [][]CreateOption{nil, {WithTTY(WinSize{Rows: 1, Cols: 2})}} {
		var out bytes.Buffer
		c := must[*Container](t)(rt.Create(testContext(t), newID(), nil,
			append(opts, WithBundle(writeBundle(t, s)), WithStdio(nil, &out, nil))...))
		check(t, c.Start(testContext(t)))
		if _, err := c.Wait(testContext(t)); err != nil || !strings.HasPrefix(out.String(), "/dev/") {
			t.Errorf("%q %v", &out, err)
		}
		check(t, c.Delete(testContext(t)))
		check(t, c.Close())
	}
}

func writeBundle(t *testing.T, s *specs.Spec) string {
	t.Helper()
	dir := t.TempDir()
	text := must[[]byte](t)(json.Marshal(s))
	check(t, os.WriteFile(dir+"/config.json", text, 0o644))
	return dir
}

func TestWaitGivesUpWithItsContext(t *testing.T) {
	c := sleeper(t, openRuntime(t))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if s, err := c.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || s.Ended() {
		t.Error(s, err)
	}
	if status(t, c) != specs.StateRunning {
		t.Error("the end of waiting ended the container")
	}
}

func TestCloseWakesThoseWhoWait(t *testing.T) {
	rt := openRuntime(t)
	c := sleeper(t, rt)
	errs := make(chan error)
	go func() {
		_, err := c.Wait(context.Background())
		errs <- err
	}()
	time.Sleep(20 * time.Millisecond)
	c.Close()
	if err := <-errs; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	again := must[*Container](t)(rt.Load(testContext(t), c.ID()))
	defer again.Close()
	check(t, again.Delete(testContext(t), ForceDelete))
}

func TestTheContextStopsACreation(t *testing.T) {
	rt := openRuntime(t)
	s := spec(t, "true")
	sleep := must[string](t)(exec.LookPath("sleep"))
	s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: sleep, Args: []string{"sleep", "20"}}}}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := rt.Create(ctx, newID(), s)
	var e *Error
	if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &e) || e.Code != CodeCancelled {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Error("took", took)
	}
}

func TestPauseAndResume(t *testing.T) {
	ctx := testContext(t)
	c := sleeper(t, openRuntime(t))
	err := c.Pause(ctx)
	if errors.Is(err, ErrUnsupported) {
		t.Skip("skipped: a freezer cgroup:", err)
	}
	check(t, err)
	if status(t, c) != StatePaused {
		t.Error(status(t, c))
	}
	if err := c.Command("true").Run(ctx); !errors.Is(err, ErrState) {
		t.Error("a command in a paused container:", err)
	}
	check(t, c.Resume(ctx))
	if status(t, c) != specs.StateRunning {
		t.Error(status(t, c))
	}
	if err := c.Resume(ctx); !errors.Is(err, ErrState) {
		t.Error("resumed twice:", err)
	}
	check(t, c.Command("true").Run(ctx))
}

func TestAPausedContainerIsKilled(t *testing.T) {
	ctx := testContext(t)
	c := sleeper(t, openRuntime(t))
	err := c.Pause(ctx)
	if errors.Is(err, ErrUnsupported) {
		t.Skip("skipped: a freezer cgroup:", err)
	}
	check(t, err)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	check(t, c.Kill(ctx))
}

func TestLimitsAndStatistics(t *testing.T) {
	ctx := testContext(t)
	c := sleeper(t, openRuntime(t))
	stats, err := c.Stats(ctx)
	if errors.Is(err, ErrUnsupported) {
		t.Skip("skipped: cgroups:", err)
	}
	check(t, err)
	if stats.Pids.Current != 1 || stats.Memory.Usage.Usage == 0 || stats.CPU.Usage.Total == 0 {
		t.Errorf("%+v", stats)
	}
	limit, pids := int64(64<<20), int64(23)
	check(t, c.Update(ctx, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &limit},
		Pids:   &specs.LinuxPids{Limit: &pids},
	}))
	stats = must[*Stats](t)(c.Stats(ctx))
	if stats.Memory.Usage.Limit != 64<<20 || stats.Pids.Limit != 23 {
		t.Errorf("%+v %+v", stats.Memory.Usage, stats.Pids)
	}
	if got := must[[]int](t)(c.Pids(ctx)); len(got) != 1 || got[0] != c.Pid() {
		t.Error(got, c.Pid())
	}
}

func TestSignalsReachTheProgram(t *testing.T) {
	rt := openRuntime(t)
	c := start(t, rt, spec(t, "sh", "-c", "trap 'exit 42' USR1; echo ready; while true; do sleep 0.05; done"), WithStdoutPipe())
	expect(t, c.Stdout(), "ready\n")
	check(t, c.Signal(syscall.SIGUSR1))
	if s, err := c.Wait(testContext(t)); err != nil || s.ExitCode() != 42 {
		t.Error(s, err)
	}
}

func TestKillKillsEverything(t *testing.T) {
	ctx := testContext(t)
	c := sleeper(t, openRuntime(t))
	cmd := c.Command("sleep", "1000")
	check(t, cmd.Start(ctx))
	check(t, c.Kill(ctx))
	if s, err := c.Wait(ctx); err != nil || s.Signal() != syscall.SIGKILL {
		t.Error(s, err)
	}
	if err := cmd.Wait(); cmd.ExitStatus().Signal() != syscall.SIGKILL {
		t.Error(err)
	}
}

func TestEventsTellThatMemoryRanOut(t *testing.T) {
	needRoot(t)
	ctx := testContext(t)
	s := spec(t, "sh", "-c", "tail -c 100000000 /dev/zero >/dev/null; sleep 1000")
	limit := int64(8 << 20)
	s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
	c := create(t, openRuntime(t), s)
	check(t, c.WatchOOM(ctx))
	check(t, c.Start(ctx))
	for event, err := range c.Events(ctx) {
		check(t, err)
		if event.Kind != EventOOM || event.ID != c.ID() {
			t.Errorf("%+v", event)
		}
		break
	}
	pressure := Pressure{Resource: ResourceCPU, Stall: 3 * time.Second, Window: time.Second}
	if c.WatchPressure(ctx, pressure) == nil {
		t.Error("a stall that is longer than the window was taken")
	}
}

func TestEvents(t *testing.T) {
	ctx := testContext(t)
	c := sleeper(t, openRuntime(t))
	cmd := c.Command("sh", "-c", "read x; exit 7")
	in := must[io.WriteCloser](t)(cmd.StdinPipe())
	check(t, cmd.Start(ctx))
	go func() {
		time.Sleep(50 * time.Millisecond)
		in.Close()
		_ = cmd.Wait()
		_ = c.Kill(ctx)
	}()
	var seen []Event
	for event, err := range c.Events(ctx) {
		check(t, err)
		seen = append(seen, event)
	}
	if len(seen) != 2 || seen[0].Pid != cmd.Pid() || seen[0].Status.ExitCode() != 7 ||
		seen[1].Pid != c.Pid() || seen[1].Status.Signal() != syscall.SIGKILL || seen[1].ID != c.ID() {
		t.Errorf("%+v", seen)
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	other := sleeper(t, openRuntime(t))
	for _, err := range other.Events(short) {
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

func TestAnotherRuntimeLoadsAndListsAContainer(t *testing.T) {
	ctx := testContext(t)
	rt := openRuntime(t)
	c := sleeper(t, rt)
	other := must[*Runtime](t)(Open(WithStateDir(rt.StateDir())))
	defer other.Close()
	list := must[[]specs.State](t)(other.List(ctx))
	if len(list) != 1 || list[0].ID != c.ID() || list[0].Status != specs.StateRunning {
		t.Errorf("%+v", list)
	}
	loaded := must[*Container](t)(other.Load(ctx, c.ID()))
	defer loaded.Close()
	if loaded.Pid() != c.Pid() {
		t.Error(loaded.Pid(), c.Pid())
	}
	out, err := loaded.Command("echo", "hi").Output(ctx)
	if err != nil || string(out) != "hi\n" {
		t.Errorf("%q %v", out, err)
	}
	check(t, loaded.Kill(ctx))
	for _, handle := range []*Container{c, loaded} {
		if s, err := handle.Wait(ctx); err != nil || s.Signal() != syscall.SIGKILL {
			t.Error(s, err)
		}
	}
	check(t, loaded.Delete(ctx))
}

func TestAnotherProcessLoadsAContainer(t *testing.T) {
	ctx := testContext(t)
	rt := openRuntime(t)
	c := sleeper(t, rt)
	helper := exec.CommandContext(ctx, must[string](t)(os.Executable()))
	helper.Env = append(os.Environ(), "LOCULE_TEST_HELPER=load", "DIR="+rt.StateDir(), "ID="+c.ID())
	out, err := helper.CombinedOutput()
	if err != nil || string(out) != "running\nfrom inside\nsignal: killed\n" {
		t.Errorf("%v %s", err, out)
	}
	if s, err := c.Wait(ctx); err != nil || s.Signal() != syscall.SIGKILL {
		t.Error(s, err)
	}
}

func TestAContainerDiesWithItsProcessUnlessDetached(t *testing.T) {
	ctx := testContext(t)
	rt := openRuntime(t)
	for name, detached := range map[string]bool{"dies": false, "detached": true} {
		id := newID()
		helper := exec.CommandContext(ctx, must[string](t)(os.Executable()))
		helper.Env = append(os.Environ(), "LOCULE_TEST_HELPER=create", "DIR="+rt.StateDir(), "ID="+id, "ROOTFS="+busyboxRootfs(t))
		if detached {
			helper.Env = append(helper.Env, "DETACH=1")
		}
		if out, err := helper.CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		c, err := rt.Load(ctx, id)
		if !detached {
			for ; err == nil && ctx.Err() == nil; c, err = rt.Load(ctx, id) {
				c.Close()
				time.Sleep(10 * time.Millisecond)
			}
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		check(t, err)
		if status(t, c) != specs.StateRunning {
			t.Error(name, status(t, c))
		}
		check(t, c.Delete(ctx, ForceDelete))
		check(t, c.Close())
	}
}

func TestAHostKilledAtAnyInstantLeavesNothing(t *testing.T) {
	ctx := testContext(t)
	rt := openRuntime(t)
	for i := range 20 {
		var out bytes.Buffer
		helper := exec.Command(must[string](t)(os.Executable()))
		helper.Env = append(os.Environ(), "LOCULE_TEST_HELPER=cycles", "DIR="+rt.StateDir(), "ROOTFS="+busyboxRootfs(t))
		helper.Stdout, helper.Stderr = &out, &out
		check(t, helper.Start())
		time.Sleep(time.Duration(30+7*i) * time.Millisecond)
		check(t, helper.Process.Kill())
		_ = helper.Wait()
		if out.Len() > 0 {
			t.Errorf("%s", &out)
		}
		prefix := fmt.Sprintf("gotest-%d-", helper.Process.Pid)
		for {
			left := cgroups(prefix)
			for _, state := range must[[]specs.State](t)(rt.List(ctx)) {
				left = append(left, state.ID+" "+string(state.Status))
			}
			entries, _ := os.ReadDir(rt.StateDir())
			for _, entry := range entries {
				if strings.HasPrefix(entry.Name(), prefix) {
					left = append(left, entry.Name())
				}
			}
			if len(left) == 0 {
				break
			}
			if time.Sleep(5 * time.Millisecond); ctx.Err() != nil {
				t.Fatal(left)
			}
		}
	}
}

// runHelper is what this test binary does when a test runs it again.
func runHelper(name string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := helpers[name](ctx); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		return 1
	}
	return 0
}

var helpers = map[string]func(context.Context) error{
	"load": func(ctx context.Context) error {
		rt, err := Open(WithStateDir(os.Getenv("DIR")))
		if err != nil {
			return err
		}
		c, err := rt.Load(ctx, os.Getenv("ID"))
		if err != nil {
			return err
		}
		state, err := c.State(ctx)
		if err != nil {
			return err
		}
		os.Stdout.WriteString(string(state.Status) + "\n")
		cmd := c.Command("echo", "from inside")
		cmd.Stdout = os.Stdout
		if err := cmd.Run(ctx); err != nil {
			return err
		}
		if err := c.Kill(ctx); err != nil {
			return err
		}
		s, err := c.Wait(ctx)
		os.Stdout.WriteString(s.String() + "\n")
		return err
	},
	"cycles": func(ctx context.Context) error {
		rt, err := Open(WithStateDir(os.Getenv("DIR")))
		if err != nil {
			return err
		}
		s, err := DefaultSpec(SpecOptions{Args: []string{"sh", "-c", "cat; exit 3"}, Env: []string{"PATH=/bin"}, Rootfs: os.Getenv("ROOTFS")})
		if err != nil {
			return err
		}
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for cycle(rt, s) == nil {
				}
			})
		}
		group.Wait()
		return errors.New("a cycle failed")
	},
	"create": func(ctx context.Context) error {
		rt, err := Open(WithStateDir(os.Getenv("DIR")))
		if err != nil {
			return err
		}
		s, err := DefaultSpec(SpecOptions{Args: []string{"sleep", "1000"}, Env: []string{"PATH=/bin"}, Rootfs: os.Getenv("ROOTFS")})
		if err != nil {
			return err
		}
		var opts []CreateOption
		if os.Getenv("DETACH") != "" {
			opts = append(opts, WithDetach())
		}
		c, err := rt.Create(ctx, os.Getenv("ID"), s, opts...)
		if err != nil {
			return err
		}
		return c.Start(ctx)
	},
}

func TestErrorsSayWhatAndWhere(t *testing.T) {
	rt := openRuntime(t)
	taken := create(t, rt, spec(t, "true"))
	bundle := func(config string) []CreateOption {
		dir := t.TempDir()
		if config != "" {
			check(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o644))
		}
		return []CreateOption{WithBundle(dir)}
	}
	changed := func(change func(*specs.Spec)) *specs.Spec {
		s := spec(t, "true")
		change(s)
		return s
	}
	program := func(args ...string) error {
		c, err := rt.Create(testContext(t), newID(), spec(t, args...))
		if err != nil {
			return err
		}
		defer c.Close()
		defer c.Delete(context.Background(), ForceDelete)
		return c.Start(testContext(t))
	}
	made := func(id string, s *specs.Spec, opts ...CreateOption) error {
		if id == "" {
			id = newID()
		}
		c, err := rt.Create(testContext(t), id, s, opts...)
		if err == nil {
			_ = c.Delete(context.Background(), ForceDelete)
			c.Close()
		}
		return err
	}
	for _, test := range []struct {
		name    string
		err     error
		want    error
		pointer string
	}{
		{"no spec and no bundle", made("", nil), ErrInvalid, ""},
		{"no such bundle", made("", nil, WithBundle("/nonexistent/bundle")), ErrNotFound, ""},
		{"a bundle without config.json", made("", nil, bundle("")...), ErrNotFound, ""},
		{"broken JSON", made("", nil, bundle(`{"ociVersion": `)...), ErrSpec, ""},
		{"a wrong type", made("", nil, bundle(`{"ociVersion":"1.0.0","root":{"path":"/"},"process":{"args":["x"],"cwd":"/"},"mounts":[{"destination":5}]}`)...), ErrSpec, "/mounts/0/destination"},
		{"no root filesystem", made("", changed(func(s *specs.Spec) { s.Root.Path = "/nonexistent/rootfs" })), ErrNotFound, "/root/path"},
		{"a relative cwd", made("", changed(func(s *specs.Spec) { s.Process.Cwd = "tmp" })), ErrSpec, "/process/cwd"},
		{"no arguments", made("", changed(func(s *specs.Spec) { s.Process.Args = nil })), ErrSpec, "/process/args"},
		{"a bad mount", made("", changed(func(s *specs.Spec) {
			s.Mounts = append([]specs.Mount{{Destination: "/tmp/x", Type: "nosuchfs", Source: "none"}}, s.Mounts...)
		})), ErrUnsupported, "/mounts/0"},
		{"a missing program", program("/bin/missing"), ErrProgram, "/process/args"},
		{"a program that cannot be executed", program("/etc"), ErrProgram, "/process/args"},
		{"an id in use", made(taken.ID(), spec(t, "true")), ErrExists, ""},
		{"an id with a slash", made("a/b", spec(t, "true")), ErrInvalid, ""},
		{"an id that is a directory", made("..", spec(t, "true")), ErrInvalid, ""},
		{"an id with a NUL", made("a\x00/b", spec(t, "true")), ErrInvalid, ""},
		{"loading what is not there", second(rt.Load(testContext(t), "none")), ErrNotFound, ""},
		{"loading an empty id", second(rt.Load(testContext(t), "")), ErrInvalid, ""},
		{"a state directory for which privilege lacks", second(Open(WithStateDir("/sys/locule"))), ErrPermission, ""},
		{"a keeper that is none", keeperError(t), nil, ""},
		{"a signal that is none", taken.Signal(syscall.Signal(1000)), ErrInvalid, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var e *Error
			if !errors.As(test.err, &e) {
				t.Fatalf("%T: %v", test.err, test.err)
			}
			if test.want != nil && !errors.Is(test.err, test.want) {
				t.Errorf("%v is not %v", test.err, test.want)
			}
			if e.Pointer != test.pointer {
				t.Errorf("pointer %q instead of %q: %v", e.Pointer, test.pointer, e)
			}
			if e.Msg == "" || e.Stage == "" || e.Op == "" {
				t.Errorf("%+v", e)
			}
		})
	}
}

func keeperError(t *testing.T) error {
	rt, err := Open(WithStateDir(t.TempDir()), WithKeeper("/nonexistent/keeper"))
	if err != nil {
		return err
	}
	defer rt.Close()
	_, err = rt.Create(testContext(t), newID(), spec(t, "true"))
	return err
}

func second[T any](_ T, err error) error { return err }

func TestEveryParentage(t *testing.T) {
	ctx := testContext(t)
	for _, parentage := range []Parentage{ParentageKeeper, ParentageOrphan, ParentageChild} {
		rt := openRuntime(t)
		var out bytes.Buffer
		c := start(t, rt, spec(t, "sh", "-c", "cat; exit 9"), WithStdio(nil, &out, nil), WithStdinPipe(), WithParentage(parentage))
		if text, err := c.Command("echo", "beside").Output(ctx); err != nil || string(text) != "beside\n" {
			t.Errorf("%v: %q %v", parentage, text, err)
		}
		_, err := io.WriteString(c.Stdin(), "x")
		check(t, err)
		check(t, c.Stdin().Close())
		s, err := c.Wait(ctx)
		if unknown := parentage == ParentageOrphan && s.Unknown(); err != nil || out.String() != "x" || (s.ExitCode() != 9 && !unknown) {
			t.Errorf("%v: %v %v %q", parentage, s, err, &out)
		}
		check(t, c.Delete(ctx))
	}
}

func TestALostKeeperIsNoGuess(t *testing.T) {
	ctx := testContext(t)
	c := sleeper(t, openRuntime(t))
	stat := string(must[[]byte](t)(os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Pid()))))
	keeper := must[int](t)(strconv.Atoi(strings.Fields(stat[strings.LastIndex(stat, ")"):])[2]))
	check(t, syscall.Kill(keeper, syscall.SIGKILL))
	if s, err := c.Wait(ctx); err != nil || s.Success() || s.ExitCode() >= 0 {
		t.Error(s, err)
	}
	check(t, c.Delete(ctx, ForceDelete))
}

func TestAnOverlayKeepsTheRootFilesystemAsItIs(t *testing.T) {
	rt := openRuntime(t)
	c := start(t, rt, spec(t, "sh", "-c", "echo x >/etc/new; cat /etc/new"), WithOverlay(), WithStdoutPipe())
	expect(t, c.Stdout(), "x\n")
	if s, err := c.Wait(testContext(t)); err != nil || !s.Success() {
		t.Error(s, err)
	}
	if _, err := os.Stat(busyboxRootfs(t) + "/etc/new"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestWithoutCgroupsThereIsNoPause(t *testing.T) {
	ctx := testContext(t)
	c := sleeper(t, openRuntime(t, WithoutCgroups()))
	if err := c.Pause(ctx); !errors.Is(err, ErrUnsupported) || !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	check(t, c.Command("true").Run(ctx))
	check(t, c.Kill(ctx))
}

func TestRunningOutOfDescriptorsIsAnError(t *testing.T) {
	rt := openRuntime(t)
	check(t, command(t, rt, "true").Run(testContext(t)))
	var limit syscall.Rlimit
	check(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) }()
	open := len(openFiles())
	for more := range 30 {
		cmd := command(t, rt, "true")
		cmd.Stdin = strings.NewReader("x")
		low := syscall.Rlimit{Cur: uint64(open + more), Max: limit.Max}
		check(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low))
		err := cmd.Run(testContext(t))
		check(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
		if err != nil && !errors.Is(err, ErrResource) && !errors.Is(err, syscall.EMFILE) {
			t.Error(more, err)
		}
	}
	if now := len(openFiles()); now > open {
		t.Errorf("%d files open before, %d after", open, now)
	}
}

func TestAThousandWaitsUseNoThousandThreads(t *testing.T) {
	ctx := testContext(t)
	rt := openRuntime(t)
	var containers []*Container
	for range 5 {
		containers = append(containers, sleeper(t, rt))
	}
	var group sync.WaitGroup
	for i := range 1000 {
		group.Go(func() {
			c := containers[i%len(containers)]
			if s, err := c.Wait(ctx); err != nil || s.Signal() != syscall.SIGKILL {
				t.Error(s, err)
			}
		})
	}
	for range 10 {
		time.Sleep(20 * time.Millisecond)
		if count := threads(t); count >= 60 {
			t.Fatalf("%d threads", count)
		}
	}
	for _, c := range containers {
		check(t, c.Kill(ctx))
	}
	group.Wait()
}

func TestManyGoroutinesManyContainers(t *testing.T) {
	rt := openRuntime(t)
	cycles := 50
	if testing.Short() {
		cycles = 5
	}
	s := spec(t, "sh", "-c", "cat; exit 3")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range cycles {
				if err := cycle(rt, s); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

// cycle is one container's life.
func cycle(rt *Runtime, s *specs.Spec) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var out bytes.Buffer
	c, err := rt.Create(ctx, newID(), s, WithStdio(strings.NewReader("data"), &out, &out))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Start(ctx); err != nil {
		return errors.Join(err, c.Delete(ctx, ForceDelete))
	}
	status, err := c.Wait(ctx)
	if err == nil && (status.ExitCode() != 3 || out.String() != "data") {
		err = errors.New(status.String() + ": " + out.String())
	}
	return errors.Join(err, c.Delete(ctx))
}

func TestWhatIsCancelledAtAnyInstantLeavesNothing(t *testing.T) {
	rt := openRuntime(t)
	s := spec(t, "sh", "-c", "cat")
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for i := range 25 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*500*time.Microsecond)
				cmd := rt.Command("cat")
				cmd.Spec = s
				cmd.Stdin = strings.NewReader("data")
				out, err := cmd.Output(ctx)
				if ended := errors.Is(err, context.DeadlineExceeded); !ended && (err != nil || string(out) != "data") {
					t.Errorf("%q %v", out, err)
				}
				cancel()
			}
		})
	}
	group.Wait()
	// What is left would be seen by openRuntime's cleanup.
}

func TestManyCommandsInOneContainer(t *testing.T) {
	c := sleeper(t, openRuntime(t))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 20 {
				out, err := c.Command("echo", "x").Output(context.Background())
				if err != nil || string(out) != "x\n" {
					t.Errorf("%q %v", out, err)
					return
				}
			}
		})
	}
	group.Wait()
}

func TestOneHandleInManyGoroutines(t *testing.T) {
	ctx := testContext(t)
	c := sleeper(t, openRuntime(t))
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() { _, _ = c.Wait(ctx) })
		group.Go(func() { <-c.Exited() })
		group.Go(func() { _, _ = c.State(ctx) })
		group.Go(func() { _, _ = c.Stats(ctx) })
		group.Go(func() { _ = c.Command("true").Run(ctx) })
		group.Go(func() { time.Sleep(50 * time.Millisecond); _ = c.Kill(ctx) })
		group.Go(func() { time.Sleep(60 * time.Millisecond); _ = c.Delete(ctx, ForceDelete) })
		group.Go(func() { time.Sleep(70 * time.Millisecond); c.Close() })
	}
	group.Wait()
}

func TestTheGarbageCollectorFreesNothingInUse(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	stop := make(chan struct{})
	var collector sync.WaitGroup
	collector.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	})
	rt := openRuntime(t)
	s := spec(t, "sh", "-c", "cat; exit 3")
	for range 5 {
		check(t, cycle(rt, s))
	}
	close(stop)
	collector.Wait()
}

func TestForgottenHandlesAreClosed(t *testing.T) {
	rt := openRuntime(t)
	id := newID()
	func() {
		if _, err := rt.Create(testContext(t), id, spec(t, "true")); err != nil {
			t.Fatal(err)
		}
	}()
	before := len(openFiles())
	for range 100 {
		runtime.GC()
		if len(openFiles()) < before {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(openFiles()) >= before {
		t.Error("the handle's descriptors are still open")
	}
	c := must[*Container](t)(rt.Load(testContext(t), id))
	check(t, c.Delete(testContext(t), ForceDelete))
	c.Close()
}
