package main

// The containers that the workers run.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	locule "github.com/locule/locule/bindings/go"
)

// ids is how the ids of the containers begin.
var ids = fmt.Sprintf("invariants-%d-", os.Getpid())

func expect(what string, got, expected any) {
	if got != expected {
		works.add("%s: %v", what, got)
	}
}

// runContainer runs one that ends by itself, with what it is told; or is killed; or is never
// started.
func runContainer(rt *locule.Runtime, number int) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := tryContainer(ctx, rt, number); err != nil {
		works.add("%v", err)
	}
}

func tryContainer(ctx context.Context, rt *locule.Runtime, number int) error {
	killed, code := number%2 == 1, number%200
	command := "read code; exit $code"
	if killed {
		command = "exec sleep 600"
	}
	spec, err := locule.DefaultSpec(locule.SpecOptions{Args: []string{"/bin/sh", "-c", "echo ready$GREETING; " + command}})
	if err != nil {
		return err
	}
	c, err := rt.Create(ctx, fmt.Sprint(ids, number), spec, locule.HostRootfs(), locule.WithStdinPipe(), locule.WithStdoutPipe())
	if err != nil {
		return err
	}
	defer c.Close()
	if withPlugins() {
		state, err := c.State(ctx)
		if err != nil {
			return err
		}
		expect("stamp", state.Annotations["org.locule.stamp"], "a host")
	}
	if number%5 == 4 {
		if _, err := rt.Create(ctx, "", spec, locule.WithBundle("/no/such/bundle")); err == nil {
			works.add("a container without a root was created")
		}
		return c.Delete(ctx, locule.ForceDelete)
	}
	if err := errors.Join(c.Start(ctx), execIn(ctx, c, number)); err != nil {
		return errors.Join(err, c.Delete(ctx, locule.ForceDelete))
	}
	if killed {
		err = c.SignalAll(syscall.SIGKILL)
	} else {
		_, err = fmt.Fprintln(c.Stdin(), code)
	}
	if err != nil {
		return err
	}
	status, err := c.Wait(ctx)
	if err != nil {
		return err
	}
	if killed {
		expect("killed container", status.Signal(), syscall.SIGKILL)
	} else {
		output, err := io.ReadAll(c.Stdout())
		expect("container", fmt.Sprint(status.ExitCode(), string(output), err), fmt.Sprint(code, "ready"+greeting()+"\n", nil))
	}
	return c.Delete(ctx)
}

// execIn runs another process, now and then with a terminal, which a host without one must not
// get.
func execIn(ctx context.Context, c *locule.Container, number int) error {
	cmd := c.Command("/bin/sh", "-c", fmt.Sprintf("echo exec %d$GREETING; exit %d", number, number%200))
	if number%3 == 0 {
		cmd.TTY = &locule.WinSize{Rows: 24, Cols: 80}
	}
	output, err := cmd.Output(ctx)
	code := 0
	var exit *locule.ExitError
	if errors.As(err, &exit) {
		code, err = exit.ExitCode(), nil
	}
	expect("exec", fmt.Sprint(code, strings.TrimSpace(string(output))), fmt.Sprint(number%200, fmt.Sprintf("exec %d%s", number, greeting())))
	return err
}
