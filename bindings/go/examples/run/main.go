// Run starts a container, talks to its program, runs a second one beside it, and deletes it.
//
//	run [BUNDLE]
//
// Without a bundle the container sees the host's files, under an overlay that is thrown away.
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"

	locule "github.com/locule/locule/bindings/go"
)

func main() {
	log.SetFlags(0)
	// Control-C ends the calls that wait, and what is deferred cleans up.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, args []string) error {
	rt, err := locule.Open()
	if err != nil {
		return err
	}
	defer rt.Close()

	c, output, err := create(ctx, rt, args)
	if err != nil {
		return err
	}
	defer c.Close()
	defer c.Delete(context.WithoutCancel(ctx), locule.ForceDelete)

	if err := c.Start(ctx); err != nil {
		return err
	}
	fmt.Printf("container %s runs; its first process is %d here\n", c.ID(), c.Pid())

	// A second command beside the first.
	const look = `echo "pid 1:    $(tr '\0' ' ' </proc/1/cmdline)"
		echo "hostname: $(hostname)"
		echo "mounts:   $(wc -l </proc/mounts), the first are"; head -n 3 /proc/mounts | cut -c -60`
	beside, err := c.Command("sh", "-c", look).Output(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("seen from inside:\n%s", indent(beside))

	// The first one reads until the end of its input.
	fmt.Fprintln(c.Stdin(), "hello, container")
	c.Stdin().Close()

	status, err := c.Wait(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("the first process said:\n%s", indent(output.Bytes()))
	fmt.Println("and ended with", status)
	return nil
}

// create creates a container from the bundle in args, or else a default one, and collects
// what its first process prints.
func create(ctx context.Context, rt *locule.Runtime, args []string) (*locule.Container, *bytes.Buffer, error) {
	output := new(bytes.Buffer)
	opts := []locule.CreateOption{
		locule.WithStdio(nil, output, output),
		locule.WithStdinPipe(),
	}
	if len(args) > 0 {
		c, err := rt.Create(ctx, "", nil, append(opts, locule.WithBundle(args[0]))...)
		return c, output, err
	}
	spec, err := locule.DefaultSpec(locule.SpecOptions{
		Args:     []string{"sh", "-c", "tr a-z A-Z; exit 3"},
		Rootless: true,
	})
	if err != nil {
		return nil, nil, err
	}
	c, err := rt.Create(ctx, "", spec, append(opts, locule.HostRootfs())...)
	return c, output, err
}

func indent(text []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		b.WriteString("  " + line)
	}
	return b.String()
}
