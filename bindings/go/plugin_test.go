package locule

// Plugins in Go, with real containers.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// on is a plugin with a function for one stage.
func on(name string, stage Stage, f func(*Call) error) HostPlugin {
	return HostPlugin{Name: name, On: map[Stage]func(*Call) error{stage: f}}
}

// output is what a script prints in a container of its own.
func output(t testing.TB, rt *Runtime, script string) string {
	t.Helper()
	out, err := command(t, rt, "sh", "-c", script).Output(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// refused is the error of a container that plugins do not let be.
func refused(t testing.TB, rt *Runtime, texts ...string) {
	t.Helper()
	c, err := rt.Create(testContext(t), newID(), spec(t, "true"))
	if err == nil {
		_ = c.Delete(testContext(t), ForceDelete)
		c.Close()
		t.Fatal("not refused")
	}
	var e *Error
	if !errors.Is(err, ErrPlugin) || !errors.As(err, &e) || e.Stage != "plugin" || e.ID == "" {
		t.Errorf("%#v", err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q lacks %q", err, text)
		}
	}
}

func TestWhatAPluginChangesIsSoInTheContainer(t *testing.T) {
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "file"), []byte("from outside"), 0o644))
	rt := openRuntime(t, WithPlugins(on("stamp", StageCreate, func(c *Call) error {
		if c.Stage() != StageCreate || c.ID() == "" || c.Pid() != 0 || !filepath.IsAbs(c.Bundle()) {
			return fmt.Errorf("%+v", c)
		}
		mount := specs.Mount{Destination: "/tmp", Type: "bind", Source: dir, Options: []string{"rbind", "ro"}}
		err := errors.Join(
			c.SetEnv("STAMP", "7 ü"),
			c.SetMount(mount),
			c.SetRlimit(specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 88}),
		)
		var soft int
		if err := c.Get("/process/rlimits/0/soft", &soft); err != nil || soft != 77 {
			return fmt.Errorf("%d, %v", soft, err)
		}
		if err := c.Get("/no/such", &soft); !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("nothing there: %v", err)
		}
		changes, e := c.Changes()
		if e != nil || len(changes) != 3 || changes[1].Pointer != "/mounts/~1tmp" || changes[1].After == nil {
			return fmt.Errorf("%+v, %v", changes, e)
		}
		s, e := c.Spec()
		if e != nil || s.Process.Cwd != "/" {
			return fmt.Errorf("%+v, %v", s, e)
		}
		return err
	})))
	script := "echo $STAMP $(ulimit -Sn) $(ulimit -Hn) $(cat /tmp/file)"
	if got := output(t, rt, script); got != "7 ü 77 88 from outside\n" {
		t.Errorf("%q", got)
	}
	c := create(t, rt, spec(t, "true"))
	changes := must[[]Change](t)(c.Changes(testContext(t)))
	first := changes[0]
	if len(changes) != 3 || first.Plugin != "stamp" || first.Stage != StageCreate || first.Adjustment != "set-env" ||
		first.Pointer != "/process/env/STAMP" || first.Before != nil || string(first.After) != `"STAMP=7 ü"` {
		t.Errorf("%+v", changes)
	}
}

func TestEveryAdjustmentIsOneOfTheLibrary(t *testing.T) {
	mode, id, timeout := os.FileMode(0o600), uint32(0), 5
	all := func(c *Call) error {
		return errors.Join(
			c.SetAnnotation("a", "b"),
			c.RemoveAnnotation("a"),
			c.RemoveEnv("NONE"),
			c.SetMount(specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "x"}),
			c.RemoveMount("/tmp"),
			c.SetDevice(specs.LinuxDevice{Path: "/dev/other", Type: "c", Major: 1, Minor: 3, FileMode: &mode, UID: &id, GID: &id}, "rw"),
			c.RemoveDevice("/dev/other"),
			c.SetResource("pids/limit", "50"),
			c.SetUnified("pids.max", "50"),
			c.SetRlimit(specs.POSIXRlimit{Type: "RLIMIT_CORE", Soft: 1<<64 - 1, Hard: 1<<64 - 1}),
			c.RemoveRlimit("RLIMIT_CORE"),
			c.SetArgs("sh", "-c", "echo $(pwd) $(id -u) $0", "zero"),
			c.SetCwd("/tmp"),
			c.SetUser(3, 4, 5),
			c.SetOOMScoreAdj(10),
			c.RemoveNamespace(specs.IPCNamespace),
			c.SetNamespace(specs.LinuxNamespace{Type: specs.IPCNamespace}),
			c.AddCapability("CAP_CHOWN"),
			c.DropCapability("CAP_CHOWN"),
			c.SetNoNewPrivileges(true),
			c.SetSeccomp(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow}),
			c.SetApparmorProfile(""),
			c.SetSelinuxLabel(""),
			c.MaskPath("/etc/motd"),
			c.WriteProtectPath("/etc/issue"),
			c.SetRootReadOnly(false),
			c.AddHook("createRuntime", specs.Hook{Path: "/bin/true", Timeout: &timeout}),
			c.Merge(map[string]any{"linux": map[string]any{"resources": map[string]any{"unified": nil}}}),
		)
	}
	rt := openRuntime(t, WithPlugins(on("all", StageCreate, all)))
	if got := output(t, rt, "exit 9"); got != "/tmp 3 zero\n" {
		t.Errorf("%q", got)
	}
}

func TestAPluginMayEndItsGoroutine(t *testing.T) {
	// Through the frames of C it would take the container's lock and the plugins along.
	rt := openRuntime(t, WithPlugins(on("policy", StageCreate, func(*Call) error {
		runtime.Goexit()
		return nil
	})))
	ended := make(chan error, 1)
	go func() {
		defer close(ended)
		_, err := rt.Create(testContext(t), "", spec(t, "true"))
		ended <- err
	}()
	err, returned := <-ended
	if !returned || !errors.Is(err, ErrPlugin) || !strings.Contains(err.Error(), `plugin "policy" failed at create`) {
		t.Error(err, returned)
	}
}

func TestAPluginRefusesFailsAndPanics(t *testing.T) {
	var says func(*Call) error
	opened := func(change func(*HostPlugin), more ...Option) *Runtime {
		p := on("policy", StageCreate, func(c *Call) error { return says(c) })
		change(&p)
		return openRuntime(t, append(more, WithPlugins(&p))...)
	}
	rt := opened(func(*HostPlugin) {})
	says = func(*Call) error { return fmt.Errorf("today: %w", &Refused{Message: "not on a Friday", Code: 13}) }
	refused(t, rt, `plugin "policy" refused create with code 13: today: not on a Friday`)
	says = func(c *Call) error { return Refuse("not %s", c.Stage()) }
	refused(t, rt, "refused create: not create")
	says = func(*Call) error { return os.ErrNotExist }
	refused(t, rt, `plugin "policy" failed at create: `+os.ErrNotExist.Error())
	says = func(*Call) error { panic("oh no") }
	refused(t, rt, `plugin "policy" failed at create: panic: oh no`)
	says = func(c *Call) error { return c.SetCwd("no path") }
	refused(t, rt, "failed at create", "is not absolute")

	says = func(c *Call) error {
		_ = c.SetEnv("HALF", "1")
		var nobody *Call
		return nobody.SetEnv("A", "b")
	}
	var heard bytes.Buffer
	hear := WithPluginLog(slog.New(slog.NewTextHandler(&heard, nil)))
	rt = opened(func(p *HostPlugin) { p.OnFailure = OnFailureSkip }, hear)
	if got := output(t, rt, "echo ${HALF-none}"); got != "none\n" {
		t.Errorf("%q", got)
	}
	line := heard.String()
	for _, text := range []string{"level=WARN", "plugin=policy", "skipped", "failed at create: panic"} {
		if !strings.Contains(line, text) {
			t.Errorf("%q lacks %q", line, text)
		}
	}
	rt = opened(func(p *HostPlugin) { p.OnFailure, p.Required = OnFailureDisable, true })
	refused(t, rt, `plugin "policy" failed at create: panic`)
	if plugins := must[[]PluginInfo](t)(rt.Plugins(testContext(t))); len(plugins) != 1 || !plugins[0].Disabled {
		t.Errorf("%+v", plugins)
	}
	refused(t, rt, `the required plugin "policy" has been disabled`)
}

func TestTheSecondWhoChangesSomethingIsToldWhoWasFirst(t *testing.T) {
	var order []string
	claim := func(name string, override bool, priority int32) HostPlugin {
		p := on(name, StageCreate, func(c *Call) error {
			order = append(order, name)
			err := c.SetEnv("OWNER", name)
			var e *Error
			if errors.As(err, &e) && e.Pointer == "/process/env/OWNER" && errors.Is(err, ErrBusy) {
				order = append(order, "busy")
				return nil
			}
			return err
		})
		p.On[StageCreated] = func(c *Call) error {
			order = append(order, name)
			if err := c.SetEnv("LATE", "1"); !errors.Is(err, ErrState) {
				t.Error(err)
			}
			return nil
		}
		p.Override, p.Priority = override, priority
		return p
	}
	rt := openRuntime(t, WithPlugins(claim("a-second", false, 0)), WithPlugins(claim("b-first", false, -1)))
	if got := output(t, rt, "echo $OWNER"); got != "b-first\n" {
		t.Errorf("%q", got)
	}
	if got := strings.Join(order, " "); got != "b-first a-second busy a-second b-first" {
		t.Error(got)
	}
	rt = openRuntime(t, WithPlugins(claim("a-second", true, 0), claim("b-first", false, -1)))
	if got := output(t, rt, "echo $OWNER"); got != "a-second\n" {
		t.Errorf("%q", got)
	}
}

func TestAJudgeSeesWhatAllHaveDoneAndChangesNothing(t *testing.T) {
	judge := HostPlugin{Name: "judge", Judge: func(c *Call) error {
		if err := c.SetCwd("/"); !errors.Is(err, ErrState) {
			t.Error(err)
		}
		changes, err := c.Changes()
		if err != nil || len(changes) != 1 {
			return fmt.Errorf("%+v, %v", changes, err)
		}
		return Refuse("%s has moved it", changes[0].Plugin)
	}}
	move := on("move", StageCreate, func(c *Call) error { return c.SetCwd("/tmp") })
	refused(t, openRuntime(t, WithPlugins(judge, move)), `"judge" refused create: move has moved it`)
}

func TestAWholeLifeIsSeenInItsOrder(t *testing.T) {
	stages := []Stage{StageCreate, StageCreated, StageStart, StageStarted, StageExec, StageUpdate,
		StagePause, StageResume, StageKill, StageStopped, StageDelete}
	var mu sync.Mutex
	var seen []string
	witness := HostPlugin{Name: "witness", On: map[Stage]func(*Call) error{}}
	for _, stage := range stages {
		witness.On[stage] = func(c *Call) error {
			mu.Lock()
			defer mu.Unlock()
			text := string(stage)
			for _, name := range []string{"signal", "all", "exit-code"} {
				if value := c.Detail(name); value != "" {
					text += " " + name + "=" + value
				}
			}
			if stage == StageExec && c.Detail("container-pid") != fmt.Sprint(c.Pid()) {
				text += " with another pid"
			}
			seen = append(seen, text)
			return nil
		}
	}
	rt := openRuntime(t, WithPlugins(witness))
	ctx := testContext(t)
	c := start(t, rt, spec(t, "sleep", "1000"))
	check(t, c.Command("true").Run(ctx))
	check(t, c.Pause(ctx))
	check(t, c.Resume(ctx))
	limit := int64(50)
	check(t, c.Update(ctx, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}))
	check(t, c.Signal(os.Kill))
	_, err := c.Wait(ctx)
	check(t, err)
	check(t, c.Delete(ctx))
	want := []string{"create", "created", "start", "started", "exec", "pause", "resume", "update",
		"kill signal=9 all=false", "stopped signal=9", "delete"}
	if !reflect.DeepEqual(seen, want) {
		t.Errorf("%q", seen)
	}
	plugins := must[[]PluginInfo](t)(rt.Plugins(ctx))
	if len(plugins) != 1 || !slices.Equal(plugins[0].Stages, []Stage{"create", "created", "delete", "exec", "kill", "pause", "resume", "start", "started", "stopped", "update"}) {
		t.Errorf("%+v", plugins)
	}
}

func TestAProcessAndNewLimitsCanBeChangedAndRefused(t *testing.T) {
	guard := HostPlugin{Name: "guard", On: map[Stage]func(*Call) error{
		StageExec: func(c *Call) error {
			var args []string
			if err := c.Get("/process/args", &args); err != nil {
				return err
			}
			if args[0] == "false" {
				return Refuse("not false")
			}
			if err := c.MaskPath("/etc"); !errors.Is(err, ErrState) {
				t.Error(err)
			}
			return c.SetEnv("INSIDE", "yes")
		},
		StageUpdate: func(c *Call) error {
			var limit int64
			if err := c.Get("/linux/resources/pids/limit", &limit); err != nil {
				return err
			}
			if limit > 1000 {
				return Refuse("too many")
			}
			return c.SetResource("pids/limit", "33")
		},
	}}
	rt := openRuntime(t, WithPlugins(guard))
	ctx := testContext(t)
	c := sleeper(t, rt)
	if out, err := c.Command("sh", "-c", "echo $INSIDE").Output(ctx); err != nil || string(out) != "yes\n" {
		t.Errorf("%q, %v", out, err)
	}
	if err := c.Command("false").Run(ctx); !errors.Is(err, ErrPlugin) || !strings.Contains(err.Error(), "not false") {
		t.Error(err)
	}
	update := func(limit int64) error {
		return c.Update(ctx, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}})
	}
	check(t, update(50))
	if stats := must[*Stats](t)(c.Stats(ctx)); stats.Pids.Limit != 33 {
		t.Errorf("%+v", stats.Pids)
	}
	if err := update(5000); !errors.Is(err, ErrPlugin) || !strings.Contains(err.Error(), "too many") {
		t.Error(err)
	}
	changes := must[[]Change](t)(c.Changes(ctx))
	if len(changes) != 2 || changes[0].Stage != StageExec || changes[1].Stage != StageUpdate {
		t.Errorf("%+v", changes)
	}
}

// A plugin that is told of an end waits for the end of another container, of which it learns in
// the same way.
func TestAPluginMayUseOtherContainers(t *testing.T) {
	var rt *Runtime
	var s *specs.Spec
	told := make(chan error, 1)
	nested := on("nested", StageStopped, func(c *Call) error {
		if !strings.HasSuffix(c.ID(), "-outer") {
			return nil
		}
		inner, err := rt.Create(context.Background(), newID(), s)
		if err == nil {
			defer inner.Close()
			_, err = inner.Wait(startedContext(t, inner))
			err = errors.Join(err, inner.Delete(context.Background()))
		}
		told <- err
		return err
	})
	rt = openRuntime(t, WithPlugins(nested))
	s = spec(t, "true")
	ctx := testContext(t)
	outer := must[*Container](t)(rt.Create(ctx, newID()+"-outer", s))
	defer outer.Close()
	check(t, outer.Start(ctx))
	if _, err := outer.Wait(ctx); err != nil {
		t.Error(err)
	}
	check(t, <-told)
	check(t, outer.Delete(ctx))
}

// startedContext starts a container; it returns a context to wait for it.
func startedContext(t testing.TB, c *Container) context.Context {
	ctx := testContext(t)
	if err := c.Start(ctx); err != nil {
		t.Error(err)
	}
	return ctx
}

func TestACallIsOverWhenTheFunctionReturns(t *testing.T) {
	var kept *Call
	rt := openRuntime(t, WithPlugins(on("keeps", StageCreate, func(c *Call) error {
		kept = c
		return nil
	})))
	create(t, rt, spec(t, "true"))
	if err := kept.SetEnv("A", "b"); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := kept.Get("", new(any)); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if kept.Detail("signal") != "" || kept.ID() == "" {
		t.Error(kept.ID())
	}
}

func TestRulesHoldForAllPlugins(t *testing.T) {
	hooks := on("hooks", StageCreate, func(c *Call) error {
		return c.AddHook("createRuntime", specs.Hook{Path: "/bin/true"})
	})
	refused(t, openRuntime(t, WithPlugins(hooks), ForbidPlugins("hooks")), "no plugin may change hooks")
	refused(t, openRuntime(t, RequirePlugins("policy")), `the required plugin "policy" is missing`)
}

func TestWhatIsNoPluginIsRefused(t *testing.T) {
	f := func(*Call) error { return nil }
	for text, opts := range map[string][]Option{
		"nil":               {WithPlugins(nil)},
		"no function":       {WithPlugins(on("x", StageCreate, nil))},
		"neither":           {WithPlugins(HostPlugin{Name: "x"})},
		"the plugin's name": {WithPlugins(on("a b", StageCreate, f))},
		"twin":              {WithPlugins(on("twin", StageCreate, f), on("twin", StageStart, f))},
		"maybe":             {WithPlugins(HostPlugin{Name: "x", Judge: f, OnFailure: "maybe"})},
		"NUL":               {WithPlugins(on("x\x00y", StageCreate, f))},
		"rain":              {ForbidPlugins("rain")},
	} {
		_, err := Open(append([]Option{WithStateDir(t.TempDir())}, opts...)...)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
	_, err := Open(WithStateDir(t.TempDir()), WithPlugins(on("x", "rain", f)))
	if !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
}

func TestPluginsOfManyGoroutinesDoNotGetInEachOthersWay(t *testing.T) {
	rt := openRuntime(t, WithPlugins(on("echo", StageCreate, func(c *Call) error {
		if strings.HasSuffix(c.ID(), "-3") {
			return Refuse("not %s", c.ID())
		}
		return c.Adjust("set-env", map[string]any{"name": "ID", "value": c.ID()})
	})))
	ctx := testContext(t)
	var group sync.WaitGroup
	for i := range 8 {
		id := fmt.Sprintf("%s-%d", newID(), i)
		s := spec(t, "sh", "-c", "test $ID = $0", id)
		group.Go(func() {
			c, err := rt.Create(ctx, id, s)
			if i == 3 {
				if !errors.Is(err, ErrPlugin) || !strings.Contains(err.Error(), "not "+id) {
					t.Error(err)
				}
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if err := c.Start(ctx); err != nil {
				t.Error(err)
			}
			if status, err := c.Wait(ctx); err != nil || !status.Success() {
				t.Error(status, err)
			}
			if err := c.Delete(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

func TestWithoutWasmTheLibrarySaysSo(t *testing.T) {
	want := ErrUnsupported
	if Has("wasm-plugins") {
		want = ErrNotFound
	}
	missing := filepath.Join(t.TempDir(), "no-such.wasm")
	if _, err := InspectPlugin(missing); !errors.Is(err, want) {
		t.Error(err)
	}
	if _, err := Open(WithStateDir(t.TempDir()), WithPlugins(WasmPlugin{Path: missing})); err == nil {
		t.Error("loaded")
	}
	if _, err := Open(WithStateDir(t.TempDir()), WithPlugins(PluginFile(missing))); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestAComponentIsAPlugin(t *testing.T) {
	folder := os.Getenv("LOCULE_TEST_PLUGIN")
	if folder == "" {
		t.Skip("skipped: LOCULE_TEST_PLUGIN, a folder with policy.wasm and stamp.wasm")
	}
	if !Has("wasm-plugins") {
		t.Skip("skipped: a library with Wasm plugins")
	}
	path := filepath.Join(folder, "policy.wasm")
	component := must[*Component](t)(InspectPlugin(path))
	if !strings.HasPrefix(component.Digest, "sha256:") || component.Bytes == 0 || len(component.Powers) == 0 {
		t.Errorf("%+v", component)
	}
	cache := t.TempDir()
	policy := WasmPlugin{
		Path: path, Powers: component.Powers, Digest: component.Digest, Cache: cache,
		Config: map[string]any{"hostPaths": []string{"/usr"}}, Limits: map[string]uint64{"fuel": 1e9},
	}
	refused(t, openRuntime(t, WithPlugins(policy)), "policy", "root")

	// The same from files, beside another that is in Go.
	dir := t.TempDir()
	text := must[[]byte](t)(json.Marshal(map[string]any{"path": path, "powers": component.Powers, "cache": cache}))
	check(t, os.WriteFile(filepath.Join(dir, "policy.json"), text, 0o644))
	check(t, os.WriteFile(filepath.Join(dir, "rules.json"), []byte(`{"required": ["policy"]}`), 0o644))
	demote := on("demote", StageCreate, func(c *Call) error { return c.SetUser(6, 6) })
	demote.Priority = -1
	for _, opts := range [][]Option{
		{WithPlugins(demote), WithPluginDir(dir)},
		{WithPlugins(demote, PluginFile(filepath.Join(dir, "policy.json")))},
	} {
		rt := openRuntime(t, opts...)
		plugins := must[[]PluginInfo](t)(rt.Plugins(testContext(t)))
		if len(plugins) != 2 || plugins[1].Name != "policy" {
			t.Errorf("%+v", plugins)
		}
		if got := output(t, rt, "id -u"); got != "6\n" {
			t.Errorf("%q", got)
		}
	}
}

func TestAPluginIsLetGoWithTheLastThatNeedsIt(t *testing.T) {
	needRoot(t)
	gone := make(chan struct{})
	func() {
		kept := new([64]byte)
		runtime.AddCleanup(kept, func(gone chan struct{}) { close(gone) }, gone)
		plugin := on("keeps", StageCreate, func(*Call) error {
			kept[0]++
			return nil
		})
		rt := must[*Runtime](t)(Open(WithStateDir(t.TempDir()), WithPlugins(plugin)))
		defer rt.Close()
		c := must[*Container](t)(rt.Create(testContext(t), newID(), spec(t, "true")))
		defer c.Close()
		check(t, c.Delete(testContext(t), ForceDelete))
	}()
	for range 100 {
		runtime.GC()
		select {
		case <-gone:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Error("still there")
}
