package locule

// Commands in containers.

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// both runs a test with commands in containers of their own, and in one that runs.
func both(t *testing.T, test func(t *testing.T, command func(args ...string) *Cmd)) {
	t.Run("own container", func(t *testing.T) {
		rt := openRuntime(t)
		test(t, func(args ...string) *Cmd { return command(t, rt, args...) })
	})
	t.Run("running container", func(t *testing.T) {
		c := sleeper(t, openRuntime(t))
		test(t, func(args ...string) *Cmd { return c.Command(args[0], args[1:]...) })
	})
}

func TestACommandReadsItsInputAndWritesItsOutput(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		cmd := command("sh", "-c", "cat; echo error >&2")
		var stdout, stderr bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("hello\n"), &stdout, &stderr
		check(t, cmd.Run(testContext(t)))
		if stdout.String() != "hello\n" || stderr.String() != "error\n" || !cmd.ExitStatus().Success() {
			t.Errorf("%q %q %v", &stdout, &stderr, cmd.ExitStatus())
		}
	})
}

func TestLargeDataGoesBothWays(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		data := make([]byte, 16<<20+7)
		random := rand.NewChaCha8([32]byte{1})
		_, _ = random.Read(data)
		cmd := command("cat")
		hash := sha256.New()
		cmd.Stdin, cmd.Stdout = bytes.NewReader(data), hash
		check(t, cmd.Run(testContext(t)))
		if want := sha256.Sum256(data); !bytes.Equal(hash.Sum(nil), want[:]) {
			t.Error("the data changed on the way")
		}
	})
}

func TestExitCodesAndSignals(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		for script, want := range map[string]string{
			"exit 0":   "",
			"exit 1":   "exit status 1",
			"exit 255": "exit status 255",
		} {
			err := command("sh", "-c", script).Run(testContext(t))
			if (err == nil) != (want == "") || (err != nil && err.Error() != want) {
				t.Errorf("%s: %v", script, err)
			}
		}
		cmd := command("sleep", "1000")
		check(t, cmd.Start(testContext(t)))
		if cmd.Pid() <= 0 || syscall.Kill(cmd.Pid(), 0) != nil {
			t.Error(cmd.Pid())
		}
		check(t, cmd.Signal(syscall.SIGKILL))
		var exit *ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Signal() != syscall.SIGKILL || exit.Unwrap() != nil {
			t.Error(err)
		}
		if err := cmd.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
	})
}

func TestTheContextKillsACommand(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
		defer cancel()
		began := time.Now()
		err := command("sleep", "1000").Run(ctx)
		var exit *ExitError
		if !errors.As(err, &exit) || exit.Signal() != syscall.SIGKILL || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if time.Since(began) > 10*time.Second {
			t.Error("took", time.Since(began))
		}
	})
}

func TestAContextThatIsDoneStartsNothing(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		cmd := command("true")
		cmd.Stdin = strings.NewReader("x")
		if err := cmd.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Error("waited for what was not started")
		}
	})
}

func TestCancelReplacesTheKill(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		cmd := command("sh", "-c", "trap 'exit 0' TERM; echo ready; while true; do sleep 0.05; done")
		out := must[io.ReadCloser](t)(cmd.StdoutPipe())
		cmd.Cancel = func() error { return cmd.Signal(syscall.SIGTERM) }
		check(t, cmd.Start(ctx))
		_, err := io.ReadFull(out, make([]byte, 6))
		check(t, err)
		cancel()
		if err := cmd.Wait(); !errors.Is(err, context.Canceled) || !cmd.ExitStatus().Success() {
			t.Error(err, cmd.ExitStatus())
		}
	})
}

func TestWaitDelayEndsWhatIgnoresCancel(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		cmd := command("sleep", "1000")
		cmd.Cancel = func() error { return nil }
		cmd.WaitDelay = 100 * time.Millisecond
		if err := cmd.Run(ctx); !errors.Is(err, context.DeadlineExceeded) || cmd.ExitStatus().Signal() != syscall.SIGKILL {
			t.Error(err)
		}
	})
}

func TestWaitDelayAbandonsOutputThatNeverEnds(t *testing.T) {
	c := sleeper(t, openRuntime(t))
	cmd := c.Command("sh", "-c", "sleep 1000 & echo started")
	var out bytes.Buffer
	cmd.Stdout = &out
	cmd.WaitDelay = 200 * time.Millisecond
	if err := cmd.Run(testContext(t)); !errors.Is(err, ErrWaitDelay) {
		t.Error(err)
	}
	if cmd.ExitStatus().ExitCode() != 0 {
		t.Error(cmd.ExitStatus())
	}
}

func TestFilesBecomeTheStreamsThemselves(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		dir := t.TempDir()
		check(t, os.WriteFile(dir+"/in", []byte("from a file"), 0o644))
		in := must[*os.File](t)(os.Open(dir + "/in"))
		defer in.Close()
		out := must[*os.File](t)(os.Create(dir + "/out"))
		defer out.Close()
		cmd := command("sh", "-c", "cat; echo -n , and errors >&2")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, out
		check(t, command("true").Run(testContext(t))) // opens what the runtime keeps
		before := len(openFiles())
		check(t, cmd.Start(testContext(t)))
		if len(cmd.stdio.copies) != 0 {
			t.Error("files are copied")
		}
		check(t, cmd.Wait())
		if text, _ := os.ReadFile(dir + "/out"); string(text) != "from a file, and errors" {
			t.Errorf("%q", text)
		}
		if _, err := out.WriteString("still open"); err != nil {
			t.Error(err)
		}
		if after := len(openFiles()); after > before {
			t.Errorf("%d open files before, %d after", before, after)
		}
	})
}

func TestFilesThatAreNotOpenAreRefused(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		file := must[*os.File](t)(os.Open("/dev/null"))
		file.Close()
		for _, change := range []func(*Cmd){
			func(c *Cmd) { c.Stdin = file },
			func(c *Cmd) { c.Stdout = (*os.File)(nil) },
			func(c *Cmd) { c.ExtraFiles = []*os.File{nil} },
		} {
			cmd := command("true")
			change(cmd)
			if err := cmd.Run(testContext(t)); !errors.Is(err, ErrInvalid) {
				t.Error(err)
			}
		}
	})
}

func TestPipes(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		cmd := command("sh", "-c", "cat; echo err >&2")
		in := must[io.WriteCloser](t)(cmd.StdinPipe())
		out := must[io.ReadCloser](t)(cmd.StdoutPipe())
		errs := must[io.ReadCloser](t)(cmd.StderrPipe())
		check(t, cmd.Start(testContext(t)))
		for _, word := range []string{"one\n", "two\n"} {
			fmt.Fprint(in, word)
			got := make([]byte, 4)
			if _, err := io.ReadFull(out, got); err != nil || string(got) != word {
				t.Errorf("%q %v", got, err)
			}
		}
		check(t, in.Close())
		check(t, in.Close())
		if text, err := io.ReadAll(errs); err != nil || string(text) != "err\n" {
			t.Errorf("%q %v", text, err)
		}
		check(t, cmd.Wait())
	})
}

func TestAProgramThatDoesNotReadItsInputIsNoError(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		cmd := command("true")
		cmd.Stdin = strings.NewReader(strings.Repeat("x", 1<<20))
		check(t, cmd.Run(testContext(t)))
	})
}

func TestOutput(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		out, err := command("sh", "-c", "echo out; echo why >&2; exit 4").Output(testContext(t))
		var exit *ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 4 || string(exit.Stderr) != "why\n" || string(out) != "out\n" {
			t.Errorf("%q %v", out, err)
		}
		out, err = command("sh", "-c", "echo out; echo err >&2").CombinedOutput(testContext(t))
		if err != nil || string(out) != "out\nerr\n" {
			t.Errorf("%q %v", out, err)
		}
	})
}

func TestEnvironmentDirectoryUserAndFiles(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		r, w := pipe(t)
		defer r.Close()
		fmt.Fprint(w, "three")
		w.Close()
		cmd := command("sh", "-c", "echo $A $(pwd) $(id -u):$(id -g) $(cat <&3)")
		cmd.Env = []string{"A=b", "PATH=/bin"}
		cmd.Dir = "/tmp"
		cmd.User = &specs.User{UID: 12, GID: 34}
		cmd.ExtraFiles = []*os.File{r}
		out, err := cmd.Output(testContext(t))
		if err != nil || string(out) != "b /tmp 12:34 three\n" {
			t.Errorf("%q %v", out, err)
		}
	})
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	check(t, err)
	return r, w
}

func TestWithoutStreamsThereIsTheNullDevice(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		out, err := command("sh", "-c", "ls -l /proc/self/fd/0 | wc -l; cat; [ ! -e /proc/self/fd/3 ]").Output(testContext(t))
		if err != nil || string(out) != "1\n" {
			t.Errorf("%q %v", out, err)
		}
	})
}

func TestATerminal(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		cmd := command("sh", "-c", "tty; stty size; read line; echo got $line; stty size; cat")
		cmd.TTY = &WinSize{Rows: 30, Cols: 90}
		in := must[io.WriteCloser](t)(cmd.StdinPipe())
		out := must[io.ReadCloser](t)(cmd.StdoutPipe())
		check(t, cmd.Start(testContext(t)))
		expect(t, out, "30 90")
		check(t, cmd.Resize(WinSize{Rows: 11, Cols: 22}))
		fmt.Fprint(in, "text\n")
		expect(t, out, "got text")
		expect(t, out, "11 22")
		in.Close() // control-D ends cat
		rest, err := io.ReadAll(out)
		check(t, err)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v, output %q", err, rest)
		}
	})
}

// expect reads until what was read ends with want.
func expect(t *testing.T, r io.Reader, want string) {
	t.Helper()
	var seen []byte
	for !bytes.HasSuffix(seen, []byte(want)) {
		b := make([]byte, 1)
		if _, err := r.Read(b); err != nil {
			t.Fatalf("%v after %q, waiting for %q", err, seen, want)
		}
		seen = append(seen, b...)
	}
}

func TestATerminalWithReaderAndWriter(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		cmd := command("sh", "-c", "wc -l; tty >/dev/null")
		cmd.TTY = &WinSize{Rows: 24, Cols: 80}
		cmd.Stdin = strings.NewReader("a\nb\n")
		out, err := cmd.Output(testContext(t))
		if err != nil || !strings.Contains(string(out), "2") {
			t.Errorf("%q %v", out, err)
		}
	})
}

func TestATerminalThatNobodyReadsDoesNotBlock(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		cmd := command("sh", "-c", "head -c 1000000 /dev/zero")
		cmd.TTY = &WinSize{}
		check(t, cmd.Run(testContext(t)))
	})
}

func TestACommandThatCannotBeExecuted(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		cmd := command("/bin/missing")
		cmd.Stdin = strings.NewReader("x")
		err := cmd.Run(testContext(t))
		var e *Error
		if !errors.Is(err, ErrProgram) || !errors.As(err, &e) || e.Errno != syscall.ENOENT {
			t.Errorf("%v", err)
		}
	})
}

func TestAWriterThatFailsIsReported(t *testing.T) {
	both(t, func(t *testing.T, command func(...string) *Cmd) {
		cmd := command("sh", "-c", "echo x")
		broken := errors.New("broken writer")
		cmd.Stdout = writerFunc(func([]byte) (int, error) { return 0, broken })
		if err := cmd.Run(testContext(t)); !errors.Is(err, broken) {
			t.Error(err)
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestACommandIsUsedOnce(t *testing.T) {
	rt := openRuntime(t)
	cmd := command(t, rt, "true")
	if _, err := cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdoutPipe(); err == nil {
		t.Error("two pipes for one stream")
	}
	check(t, cmd.Run(testContext(t)))
	if cmd.Run(testContext(t)) == nil || cmd.Wait() == nil {
		t.Error("used twice")
	}
	if _, err := cmd.Container.State(context.Background()); err == nil {
		t.Error("the container is still there")
	}
}

func TestACommandInTheHostsFiles(t *testing.T) {
	rt := openRuntime(t)
	marker := must[*os.File](t)(os.CreateTemp("/var/tmp", "locule-go-"))
	defer os.Remove(marker.Name())
	marker.Close()
	out, err := rt.Command("sh", "-c", "echo changed >"+marker.Name()+" && cat "+marker.Name()+"; echo $$").Output(testContext(t))
	if errors.Is(err, ErrUnsupported) {
		t.Skip("skipped: overlay filesystems:", err)
	}
	if err != nil || string(out) != "changed\n1\n" {
		t.Errorf("%q %v", out, err)
	}
	if text, _ := os.ReadFile(marker.Name()); len(text) > 0 {
		t.Errorf("the host's file changed: %q", text)
	}
}
