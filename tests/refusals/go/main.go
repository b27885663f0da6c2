// Drives the Go API for the table of refusals: see drivers.py for the words it is given and the
// answer it gives. It judges nothing.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	locule "github.com/locule/locule/bindings/go"
)

const runner = 3 // the descriptor

// What a program can compare an error with.
var sentinels = []struct {
	name string
	err  error
}{
	{"ErrNotFound", locule.ErrNotFound},
	{"ErrExists", locule.ErrExists},
	{"ErrState", locule.ErrState},
	{"ErrInvalid", locule.ErrInvalid},
	{"ErrSpec", locule.ErrSpec},
	{"ErrPermission", locule.ErrPermission},
	{"ErrUnsupported", locule.ErrUnsupported},
	{"ErrBusy", locule.ErrBusy},
	{"ErrTimeout", locule.ErrTimeout},
	{"ErrResource", locule.ErrResource},
	{"ErrProgram", locule.ErrProgram},
	{"ErrHook", locule.ErrHook},
	{"ErrKeeper", locule.ErrKeeper},
	{"fs.ErrNotExist", fs.ErrNotExist},
	{"fs.ErrExist", fs.ErrExist},
	{"fs.ErrInvalid", fs.ErrInvalid},
	{"fs.ErrPermission", fs.ErrPermission},
	{"errors.ErrUnsupported", errors.ErrUnsupported},
	{"os.ErrDeadlineExceeded", os.ErrDeadlineExceeded},
	{"context.Canceled", context.Canceled},
}

type words map[string]string

func (w words) number(key string) int {
	n, _ := strconv.Atoi(w[key])
	return n
}

func (w words) has(key string) bool {
	_, ok := w[key]
	return ok
}

// file is the stream of this name: none, unless a word says otherwise.
func (w words) file(name string) *os.File {
	switch w[name] {
	case "":
		return nil
	case "inherit":
		return map[string]*os.File{"stdin": os.Stdin, "stdout": os.Stdout, "stderr": os.Stderr}[name]
	}
	return os.NewFile(uintptr(w.number(name)), name)
}

// scene is one case: its runtime and containers.
type scene struct {
	runtime    *locule.Runtime
	containers []*locule.Container
}

func (s *scene) perform(verb string, w words) (err error) {
	ctx := context.Background()
	switch verb {
	case "open":
		opts := []locule.Option{locule.WithStateDir(w["state"]), locule.WithKeeper(w["keeper"])}
		if w.has("no_cgroups") {
			opts = append(opts, locule.WithoutCgroups())
		}
		s.runtime, err = locule.Open(opts...)
		return err
	case "create":
		return s.create(ctx, w)
	case "load":
		container, err := s.runtime.Load(ctx, w["id"])
		if err == nil {
			s.containers = append(s.containers, container)
		}
		return err
	}
	c := s.containers[len(s.containers)-1]
	switch verb {
	case "start":
		return c.Start(ctx)
	case "exec":
		return execute(ctx, c, w)
	case "wait":
		return await(ctx, c)
	case "signal":
		if w.has("all") {
			return c.SignalAll(syscall.Signal(w.number("number")))
		}
		return c.Signal(syscall.Signal(w.number("number")))
	case "pause":
		return c.Pause(ctx)
	case "resume":
		return c.Resume(ctx)
	case "update":
		var resources specs.LinuxResources
		if err := json.Unmarshal([]byte(w["json"]), &resources); err != nil {
			return err
		}
		return c.Update(ctx, &resources)
	case "delete":
		if w.has("force") {
			return c.Delete(ctx, locule.ForceDelete)
		}
		return c.Delete(ctx)
	case "state":
		_, err = c.State(ctx)
	case "stats":
		_, err = c.Stats(ctx)
	case "pids":
		_, err = c.Pids(ctx)
	}
	return err
}

func (s *scene) create(ctx context.Context, w words) error {
	opts := []locule.CreateOption{
		locule.WithBundle(w["bundle"]),
		locule.WithParentage(locule.Parentage(w.number("parentage"))),
		locule.WithTimeout(time.Duration(w.number("timeout")) * time.Millisecond),
	}
	stdin, stdout, stderr := w.file("stdin"), w.file("stdout"), w.file("stderr")
	if stdin != nil || stdout != nil || stderr != nil {
		opts = append(opts, locule.WithStdio(reader(stdin), writer(stdout), writer(stderr)))
	}
	if w.has("pass") {
		opts = append(opts, locule.WithExtraFiles(w.file("pass")))
	}
	if w.has("overlay") {
		opts = append(opts, locule.WithOverlay())
	}
	if w.has("cancel") {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		cancel()
	}
	container, err := s.runtime.Create(ctx, w["id"], nil, opts...)
	if err == nil {
		s.containers = append(s.containers, container)
	}
	return err
}

func execute(ctx context.Context, c *locule.Container, w words) error {
	var process struct {
		Args []string
		Env  map[string]string
		Cwd  string
		User *specs.User
	}
	if err := json.Unmarshal([]byte(w["json"]), &process); err != nil {
		return err
	}
	cmd := c.Command(process.Args[0], process.Args[1:]...)
	cmd.Dir, cmd.User = process.Cwd, process.User
	for name, value := range process.Env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = reader(w.file("stdin")), writer(w.file("stdout")), writer(w.file("stderr"))
	if err := cmd.Start(ctx); err != nil {
		return err
	}
	return cmd.Wait()
}

// await waits for the first process, which has to exit with 0.
func await(ctx context.Context, c *locule.Container) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	status, err := c.Wait(ctx)
	if err == nil && !status.Success() {
		err = errors.New(status.String())
	}
	return err
}

// reader and writer keep a nil file from becoming an interface that is not nil.
func reader(file *os.File) interface{ Read([]byte) (int, error) } {
	if file == nil {
		return nil
	}
	return file
}

func writer(file *os.File) interface{ Write([]byte) (int, error) } {
	if file == nil {
		return nil
	}
	return file
}

func (s *scene) status() string {
	if len(s.containers) == 0 {
		return ""
	}
	state, err := s.containers[len(s.containers)-1].State(context.Background())
	if err != nil {
		return ""
	}
	return string(state.Status)
}

func (s *scene) close() {
	for _, container := range s.containers {
		_ = container.Delete(context.Background(), locule.ForceDelete)
		container.Close()
	}
	if s.runtime != nil {
		s.runtime.Close()
	}
}

func say(answer *strings.Builder, key, value string) {
	answer.WriteString(" " + key + "=" + strings.ReplaceAll(url.QueryEscape(value), "+", "%20"))
}

// report is what the error says.
func report(answer *strings.Builder, at int, err error) {
	fmt.Fprintf(answer, "refused at=%d", at)
	var natural []string
	for _, sentinel := range sentinels {
		if errors.Is(err, sentinel.err) {
			natural = append(natural, sentinel.name)
		}
	}
	var e *locule.Error
	if !errors.As(err, &e) {
		say(answer, "message", err.Error())
		return
	}
	var errno syscall.Errno
	if errors.As(err, &errno) && errno != e.Errno {
		say(answer, "other_errno", errno.Error())
	}
	say(answer, "natural", strings.Join(append(natural, "*Error"), ","))
	say(answer, "errno", strconv.Itoa(int(e.Errno)))
	say(answer, "category", e.Code.String())
	say(answer, "stage", e.Stage)
	say(answer, "pointer", e.Pointer)
	say(answer, "id", e.ID)
	say(answer, "message", e.Msg)
	say(answer, "hint", e.Hint)
}

func run(line string) string {
	var s scene
	var answer strings.Builder
	var failed error
	for at, text := range strings.Split(line, "\t") {
		verb, rest, _ := strings.Cut(text, " ")
		w := make(words)
		for _, word := range strings.Fields(rest) {
			key, value, _ := strings.Cut(word, "=")
			w[key], _ = url.PathUnescape(value)
		}
		if failed = s.perform(verb, w); failed != nil {
			report(&answer, at, failed)
			break
		}
	}
	if failed == nil {
		answer.WriteString("fine")
	}
	say(&answer, "status", s.status())
	s.close()
	return answer.String()
}

func main() {
	// The netpoller has descriptors, too: let it open them before they are counted.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	file := os.NewFile(runner, "runner")
	lines := bufio.NewReader(file)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		fmt.Fprintln(file, run(strings.TrimSuffix(line, "\n")))
	}
}
