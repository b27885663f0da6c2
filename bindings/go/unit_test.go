package locule

// What needs no privilege.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/locule/locule/bindings/go/internal/liblocule"
)

func TestErrorsAreTheSentinelsOfTheirCategory(t *testing.T) {
	all := []error{ErrNotFound, ErrExists, ErrState, ErrInvalid, ErrSpec, ErrPermission, ErrUnsupported,
		ErrBusy, ErrTimeout, ErrResource, ErrProgram, ErrHook, ErrKeeper, ErrPlugin, ErrClosed}
	for code, targets := range sentinels {
		err := fmt.Errorf("outer: %w", &Error{Code: code})
		for _, target := range targets {
			if !errors.Is(err, target) {
				t.Errorf("%v is not %v", err, target)
			}
		}
		for _, other := range all {
			if other != targets[0] && errors.Is(err, other) {
				t.Errorf("%v is %v", code, other)
			}
		}
	}
}

func TestAnErrorUnwrapsToItsErrno(t *testing.T) {
	err := error(&Error{Code: CodeProgram, Errno: syscall.EACCES})
	var errno syscall.Errno
	if !errors.As(err, &errno) || errno != syscall.EACCES || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%#v", errno)
	}
	if errors.Unwrap(&Error{Code: CodeSpec}) != nil {
		t.Error("an error without errno unwraps to something")
	}
}

func TestACallThatItsContextEndedSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := wrap(ctx, "create", "c", &liblocule.Error{Code: int(CodeCancelled), Message: "cancelled"})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	err = wrap(context.Background(), "create", "c", &liblocule.Error{Code: int(CodeTimeout)})
	if !errors.Is(err, ErrTimeout) || !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := wrap(ctx, "create", "c", liblocule.ErrClosed); !errors.Is(err, ErrClosed) || !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
}

func TestExitStatusInWords(t *testing.T) {
	for want, exit := range map[string]liblocule.Exit{
		"not ended":                     {},
		"exit status 3":                 {Kind: liblocule.ExitCode, Code: 3},
		"signal: killed":                {Kind: liblocule.ExitSignal, Signal: 9},
		"signal: aborted (core dumped)": {Kind: liblocule.ExitSignal, Signal: 6, CoreDumped: true},
		"exit status unknown":           {Kind: liblocule.ExitUnknown},
	} {
		if got := (ExitStatus{exit}).String(); got != want {
			t.Errorf("%q instead of %q", got, want)
		}
	}
	killed := ExitStatus{liblocule.Exit{Kind: liblocule.ExitSignal, Signal: 9}}
	if killed.ExitCode() != -1 || killed.Signal() != syscall.SIGKILL || killed.Success() || !killed.Ended() {
		t.Error(killed)
	}
}

func TestTheContextDecidesOverTheTimeLimit(t *testing.T) {
	if ms := timeout(context.Background(), 0); ms != 0 {
		t.Error(ms)
	}
	if ms := timeout(context.Background(), 1500*time.Microsecond); ms != 2 {
		t.Error(ms)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if ms := timeout(ctx, 0); ms < 3600_000 || ms > 3602_000 {
		t.Error(ms)
	}
	if ms := timeout(ctx, 1000*time.Hour); ms != 1<<31-1 {
		t.Error(ms)
	}
}

func TestAnExcerptKeepsBothEnds(t *testing.T) {
	var e excerpt
	fmt.Fprint(&e, "begin", strings.Repeat(".", 100_000))
	fmt.Fprint(&e, "end")
	text := e.bytes()
	if !bytes.HasPrefix(text, []byte("begin")) || !bytes.HasSuffix(text, []byte("end")) || len(text) > 2*excerptSize+100 {
		t.Errorf("%d bytes", len(text))
	}
	if !strings.Contains(string(text), fmt.Sprintf("omitting %d bytes", 100_008-2*excerptSize)) {
		t.Error("the count of omitted bytes is wrong")
	}
}

func TestTheDefaultSpecHasTheChoices(t *testing.T) {
	s, err := DefaultSpec(SpecOptions{
		Args: []string{"a", "b c"}, Env: []string{"X=1"}, Cwd: "/tmp", Hostname: "box", Rootfs: "/r",
		UID: 5, GID: 6, MemoryBytes: 1 << 30, CPUMilli: 500, Pids: 7, ReadOnly: true, Terminal: true,
	})
	check(t, err)
	p := s.Process
	if fmt.Sprintf("%v %v %v %v %v", p.Args, p.Cwd, p.User.UID, p.User.GID, p.Terminal) != "[a b c] /tmp 5 6 true" || !slices.Contains(p.Env, "X=1") {
		t.Errorf("%+v", p)
	}
	if s.Hostname != "box" || s.Root.Path != "/r" || !s.Root.Readonly {
		t.Errorf("%v %+v", s.Hostname, s.Root)
	}
	r := s.Linux.Resources
	if *r.Memory.Limit != 1<<30 || r.Pids.Limit == nil || *r.Pids.Limit != 7 || r.CPU.Quota == nil {
		t.Errorf("%+v", r)
	}
}

func TestExplainShowsThePlanWithoutDoingIt(t *testing.T) {
	rt, err := Open(WithStateDir(t.TempDir()))
	check(t, err)
	defer rt.Close()
	s, err := DefaultSpec(SpecOptions{Rootfs: "/"})
	check(t, err)
	plan, err := rt.Explain(context.Background(), s)
	check(t, err)
	if !strings.Contains(plan, "/mounts/0") {
		t.Error(plan)
	}
	if text, err := rt.ExplainJSON(context.Background(), s); err != nil || text[0] != '{' {
		t.Errorf("%v %.100s", err, text)
	}
	f, err := rt.Features(context.Background())
	if err != nil || f.OCIVersionMax == "" || len(f.MountOptions) == 0 {
		t.Errorf("%+v %v", f, err)
	}
}

func TestAClosedRuntimeRefuses(t *testing.T) {
	rt, err := Open(WithStateDir(t.TempDir()))
	check(t, err)
	check(t, rt.Close())
	check(t, rt.Close())
	if _, err := rt.List(context.Background()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := rt.Create(context.Background(), "x", new(specs.Spec)); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if rt.StateDir() != "" {
		t.Error(rt.StateDir())
	}
}

func TestTheLibraryNamesItself(t *testing.T) {
	if Version() == "" || !Has("container") || Has("flight") || Has("") {
		t.Error(Version())
	}
	if CodeNotFound.String() != "not-found" {
		t.Error(CodeNotFound)
	}
}
