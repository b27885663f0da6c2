package locule_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	locule "github.com/locule/locule/bindings/go"
)

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	rt, err := locule.Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer rt.Close()

	cmd := rt.Command("tr", "a-z", "A-Z")
	cmd.Stdin = strings.NewReader("hello from inside\n")
	out, err := cmd.Output(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(string(out))
	// Output: HELLO FROM INSIDE
}

// A container's whole life, step by step.
func ExampleRuntime_Create() {
	ctx := context.Background()
	rt, err := locule.Open()
	if err != nil {
		log.Fatal(err)
	}
	defer rt.Close()

	spec, err := locule.DefaultSpec(locule.SpecOptions{
		Args:        []string{"sleep", "60"},
		MemoryBytes: 64 << 20,
	})
	if err != nil {
		log.Fatal(err)
	}
	c, err := rt.Create(ctx, "web", spec, locule.HostRootfs())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	defer c.Delete(context.WithoutCancel(ctx), locule.ForceDelete)

	if err := c.Start(ctx); err != nil {
		log.Fatal(err)
	}
	out, err := c.Command("hostname").Output(ctx)
	fmt.Printf("%s %v\n", out, err)

	_ = c.Kill(ctx)
	status, err := c.Wait(ctx)
	fmt.Println(status, err)
}

// From an image to a running container.
func ExampleRuntime_ImageCommand() {
	ctx := context.Background()
	store, err := locule.OpenImageStore()
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	image, err := store.Get("alpine")
	if errors.Is(err, locule.ErrNotFound) {
		image, err = store.Pull(ctx, "alpine", locule.WithProgress(func(p locule.ImageProgress) error {
			fmt.Printf("%v %.19s: %d of %d bytes\n", p.Step, p.Digest, p.Done, p.Total)
			return nil // an error would stop the call
		}))
	}
	if err != nil {
		log.Fatal(err)
	}
	defer image.Close()

	rt, err := locule.Open()
	if err != nil {
		log.Fatal(err)
	}
	defer rt.Close()
	cmd := rt.ImageCommand(image, "cat", "/etc/os-release")
	cmd.Overrides.User = "nobody"
	cmd.Overrides.Memory = 64 << 20
	out, err := cmd.Output(ctx)
	fmt.Printf("%s %v\n", out, err)
}

// What a container changes becomes an image.
func ExampleImageStore_Commit() {
	ctx := context.Background()
	store, err := locule.OpenImageStore()
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	image, err := store.Import(ctx, "./rootfs", locule.WithConfig(map[string]any{"Cmd": []string{"sh"}}))
	if err != nil {
		log.Fatal(err)
	}
	defer image.Close()

	rt, err := locule.Open()
	if err != nil {
		log.Fatal(err)
	}
	defer rt.Close()
	install := locule.ImageOverrides{Args: []string{"sh", "-c", "echo hello >/greeting"}}
	c, err := rt.Create(ctx, "", nil, locule.WithImage(image, install), locule.WithChanges("/var/tmp/changes"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	defer c.Delete(context.WithoutCancel(ctx), locule.ForceDelete)
	if err := c.Start(ctx); err != nil {
		log.Fatal(err)
	}
	if status, err := c.Wait(ctx); err != nil || !status.Success() {
		log.Fatal(status, err)
	}

	changed, err := store.Commit(ctx, c, locule.WithName("greeter"))
	if err != nil {
		log.Fatal(err)
	}
	defer changed.Close()
	fmt.Println(changed.Digest(), changed.Save(ctx, "greeter.tar"))
}

func ExampleError() {
	rt, err := locule.Open()
	if err != nil {
		log.Fatal(err)
	}
	defer rt.Close()
	_, err = rt.Create(context.Background(), "web", nil, locule.WithBundle("/some/bundle"))
	var e *locule.Error
	switch {
	case errors.Is(err, locule.ErrExists):
		fmt.Println("there is one already")
	case errors.Is(err, locule.ErrSpec) && errors.As(err, &e):
		fmt.Println("look at", e.Pointer, "in config.json")
	}
}
