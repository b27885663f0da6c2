package locule

// Images: made, kept, moved, run and changed.

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func openStore(t testing.TB, opts ...ImageStoreOption) *ImageStore {
	t.Helper()
	needRoot(t)
	if !Has("images") {
		t.Skip("skipped: a library with images")
	}
	opts = append([]ImageStoreOption{WithStorePath(filepath.Join(t.TempDir(), "images"))}, opts...)
	store := must[*ImageStore](t)(OpenImageStore(opts...))
	t.Cleanup(func() { store.Close() })
	return store
}

// tree is a root filesystem of busybox with users.
func tree(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	for _, name := range []string{"", "bin", "etc", "tmp", "home", "proc", "dev", "sys"} {
		check(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	busybox := filepath.Join(busyboxRootfs(t), "bin/busybox")
	check(t, os.WriteFile(filepath.Join(dir, "bin/busybox"), must[[]byte](t)(os.ReadFile(busybox)), 0o755))
	for _, name := range strings.Fields("sh cat echo id hostname stty rm") {
		check(t, os.Symlink("busybox", filepath.Join(dir, "bin", name)))
	}
	for name, text := range map[string]string{
		"etc/passwd":   "root:x:0:0::/root:/bin/sh\nalice:x:1000:100::/home:/bin/sh\n",
		"etc/group":    "root:x:0:\nusers:x:100:\nextra:x:7:alice\n",
		"etc/greeting": "good day\n",
	} {
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return dir
}

// greeting is the configuration of the images that the tests make.
var greeting = map[string]any{
	"Entrypoint": []string{"sh", "-c"},
	"Cmd":        []string{"echo $WORD"},
	"Env":        []string{"WORD=hello", "PATH=/bin"},
}

// importImage makes an image of a tree, called greeter.
func importImage(t testing.TB, store *ImageStore, opts ...ImageOption) *Image {
	t.Helper()
	opts = append([]ImageOption{WithName("greeter"), WithConfig(greeting)}, opts...)
	image := must[*Image](t)(store.Import(testContext(t), tree(t), opts...))
	t.Cleanup(func() { image.Close() })
	return image
}

// prints runs a command, which has to print this.
func prints(t testing.TB, want string, cmd *Cmd) {
	t.Helper()
	out, err := cmd.Output(testContext(t))
	if err != nil || string(out) != want {
		t.Errorf("%v prints %q, %v instead of %q", cmd, out, err, want)
	}
}

// heard collects progress.
type heard struct {
	steps    map[ImageStep]bool
	finished map[string]bool
	calls    int
}

func (h *heard) option(t testing.TB) ImageOption {
	h.steps, h.finished = make(map[ImageStep]bool), make(map[string]bool)
	return WithProgress(func(p ImageProgress) error {
		h.calls++
		h.steps[p.Step] = true
		if p.Finished {
			h.finished[p.Digest] = true
		}
		if p.Done < 0 || p.Total > 0 && p.Done > p.Total {
			t.Errorf("%+v", p)
		}
		return nil
	})
}

func TestATreeBecomesAnImage(t *testing.T) {
	store := openStore(t)
	if images, err := store.List(); err != nil || len(images) > 0 {
		t.Error(images, err)
	}
	created := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	opts := []ImageOption{
		WithAuthor("a test"), WithComment("from a tree"), WithCreated(created), WithCompression(CompressionZstd),
	}
	image := importImage(t, store, opts...)
	info := must[*ImageInfo](t)(image.Inspect())
	if info.Digest != image.Digest() || !strings.HasPrefix(info.Digest, "sha256:") || info.Size <= 0 ||
		!slices.Equal(info.Names, []string{"docker.io/library/greeter:latest"}) ||
		info.Created != "2026-02-03T04:05:06Z" || !strings.HasPrefix(info.Platform, "linux/") {
		t.Errorf("%+v", info)
	}
	if len(info.Layers) != 1 || !strings.HasSuffix(info.Layers[0].MediaType, "tar+zstd") ||
		info.Layers[0].DiffID == info.Layers[0].Digest || info.Layers[0].Size <= 0 {
		t.Errorf("%+v", info.Layers)
	}
	var config struct {
		Author  string
		History []struct{ Comment string }
		Config  struct{ Cmd []string }
	}
	check(t, json.Unmarshal(info.Config, &config))
	if config.Author != "a test" || len(config.History) != 1 || config.History[0].Comment != "from a tree" ||
		!slices.Equal(config.Config.Cmd, []string{"echo $WORD"}) {
		t.Errorf("%s", info.Config)
	}
	if !json.Valid(info.Manifest) {
		t.Errorf("%s", info.Manifest)
	}
	images := must[[]ImageSummary](t)(store.List())
	if len(images) != 1 || images[0].Digest != info.Digest || images[0].Size != info.Size {
		t.Errorf("%+v", images)
	}
}

func TestAnImageIsFoundByItsNamesAndItsDigest(t *testing.T) {
	store := openStore(t)
	image := importImage(t, store)
	check(t, image.Tag("localhost/other:1"))
	hex := strings.TrimPrefix(image.Digest(), "sha256:")
	for _, name := range []string{"greeter", "docker.io/library/greeter:latest", "localhost/other:1", image.Digest(), hex[:12]} {
		found := must[*Image](t)(store.Get(name))
		if found.Digest() != image.Digest() {
			t.Errorf("%s is %s", name, found.Digest())
		}
		check(t, found.Close())
	}
	check(t, store.Remove("localhost/other:1"))
	if _, err := store.Get("localhost/other:1"); !errors.Is(err, ErrNotFound) || !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	check(t, store.Remove(image.Digest()))
	if images, err := store.List(); err != nil || len(images) > 0 {
		t.Error(images, err)
	}
}

func TestAnImageRunsAsItSaysAndAsTheCommandSays(t *testing.T) {
	rt, image := openRuntime(t), importImage(t, openStore(t))
	prints(t, "hello\n", rt.ImageCommand(image))
	prints(t, "hello there\n", rt.ImageCommand(image, "echo $WORD there"))

	cmd := rt.ImageCommand(image)
	cmd.Overrides = ImageOverrides{Env: []string{"WORD=bye"}, Hostname: "box"}
	prints(t, "bye\n", cmd)
	cmd = rt.ImageCommand(image, "hostname; echo $0")
	cmd.Overrides = ImageOverrides{Entrypoint: []string{"sh", "-c"}, Hostname: "box"}
	prints(t, "box\nsh\n", cmd)

	cmd = rt.ImageCommand(image, "hostname")
	cmd.Overrides = ImageOverrides{HostHostname: true}
	prints(t, must[string](t)(os.Hostname())+"\n", cmd)

	kind := "while read d m t r; do case $m,$t in /,overlay) echo overlay;; /,*) echo copy;; esac; done </proc/mounts"
	prints(t, "overlay\n", rt.ImageCommand(image, kind))
	cmd = rt.ImageCommand(image, kind)
	cmd.Overrides = ImageOverrides{NoOverlay: true}
	prints(t, "copy\n", cmd)

	cmd = rt.Command("sh", "-c", "cat; pwd; echo $WORD $A")
	cmd.Image, cmd.Dir, cmd.Env = image, "/etc", []string{"A=b"}
	cmd.Stdin = strings.NewReader("input\n")
	prints(t, "input\n/etc\nb\n", cmd)
	cmd = rt.Command("cat", "/etc/greeting")
	cmd.Create = []CreateOption{WithImage(image, ImageOverrides{})}
	prints(t, "good day\n", cmd)

	cmd = rt.Command("stty", "size")
	cmd.Image, cmd.TTY = image, &WinSize{Rows: 11, Cols: 33}
	prints(t, "11 33\r\n", cmd)
	if text := rt.ImageCommand(image, "a", "b").String(); text != "a b" {
		t.Error(text)
	}
}

func TestAnImageRunsAsItsUsers(t *testing.T) {
	rt, image := openRuntime(t), importImage(t, openStore(t))
	const who = "id -u; id -G; echo $HOME"
	cmd := rt.ImageCommand(image, who)
	prints(t, "0\n0\n/root\n", cmd)
	for user, want := range map[string]string{
		"alice":      "1000\n100 7\n/home\n",
		"alice:root": "1000\n0\n/home\n",
		"5:6":        "5\n6\n/\n",
	} {
		cmd := rt.ImageCommand(image, who)
		cmd.Overrides.User = user
		prints(t, want, cmd)
	}
	cmd = rt.ImageCommand(image, who+"; echo $WORD")
	cmd.User = &specs.User{UID: 1000, GID: 100, AdditionalGids: []uint32{9}}
	cmd.Overrides.Patch = map[string]any{"process": map[string]any{"env": []string{"PATH=/bin", "HOME=/x", "WORD=patched"}}}
	prints(t, "1000\n100 9\n/x\npatched\n", cmd)

	cmd = rt.ImageCommand(image)
	cmd.Overrides.User = "nobody"
	if err := cmd.Run(testContext(t)); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "/etc/passwd") {
		t.Error(err)
	}
	cmd = rt.ImageCommand(image)
	cmd.User, cmd.Overrides.Patch = new(specs.User), []int{1}
	if err := cmd.Run(testContext(t)); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

func TestAContainerIsCreatedFromAnImage(t *testing.T) {
	rt, image := openRuntime(t), importImage(t, openStore(t))
	host := t.TempDir()
	check(t, os.WriteFile(filepath.Join(host, "file"), []byte("shared\n"), 0o644))
	c := create(t, rt, nil, WithStdoutPipe(), WithImage(image, ImageOverrides{
		Args:        []string{"cat /srv/file; echo x >/etc/x || echo read-only"},
		ReadOnly:    true,
		Memory:      64 << 20,
		CPUs:        0.5,
		Pids:        17,
		Mounts:      []ImageMount{{Source: host, Target: "/srv", ReadOnly: true}},
		Annotations: map[string]string{"a": "b"},
		StopSignal:  "SIGINT",
		Patch:       map[string]any{"annotations": map[string]string{"c": "d"}},
	}))
	image.Close() // the store keeps what the container needs
	state := must[*specs.State](t)(c.State(testContext(t)))
	for name, want := range map[string]string{"a": "b", "c": "d", "org.opencontainers.image.stopSignal": "SIGINT"} {
		if state.Annotations[name] != want {
			t.Errorf("%s: %q", name, state.Annotations[name])
		}
	}
	if stats := must[*Stats](t)(c.Stats(testContext(t))); stats.Pids.Limit != 17 || stats.Memory.Usage.Limit != 64<<20 {
		t.Errorf("%+v %+v", stats.Pids, stats.Memory.Usage)
	}
	check(t, c.Start(testContext(t)))
	out := string(must[[]byte](t)(io.ReadAll(c.Stdout())))
	if out != "shared\nread-only\n" {
		t.Errorf("%q", out)
	}
}

func TestAContainerOfAnImageIsExplained(t *testing.T) {
	rt, image := openRuntime(t), importImage(t, openStore(t))
	plan, err := rt.Explain(testContext(t), nil, WithImage(image, ImageOverrides{Hostname: "box"}))
	if err != nil || !strings.Contains(plan, "box") {
		t.Errorf("%v %s", err, plan)
	}
}

func TestExplainingUnpacksAnImageAndIsStopped(t *testing.T) {
	rt, store, dir := openRuntime(t), openStore(t), tree(t)
	noise := make([]byte, 96<<20)
	must[int](t)(rand.Read(noise))
	check(t, os.WriteFile(filepath.Join(dir, "noise"), noise, 0o644))
	image := must[*Image](t)(store.Import(testContext(t), dir, WithConfig(greeting), WithCompression(CompressionZstd)))
	defer image.Close()
	ctx, cancel := context.WithTimeout(testContext(t), 10*time.Millisecond)
	defer cancel()
	_, err := rt.Explain(ctx, nil, WithImage(image, ImageOverrides{}))
	if !errors.Is(err, context.DeadlineExceeded) || len(layers(t, store)) > 0 {
		t.Error(err, layers(t, store))
	}
	must[string](t)(rt.Explain(testContext(t), nil, WithImage(image, ImageOverrides{})))
	if len(layers(t, store)) != 1 {
		t.Error(layers(t, store))
	}
}

// layers are the unpacked layers of a store.
func layers(t testing.TB, store *ImageStore) []string {
	t.Helper()
	var names []string
	entries, err := os.ReadDir(filepath.Join(store.Path(), "layers"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestAnImageIsPreparedForItsContainers(t *testing.T) {
	rt, store := openRuntime(t), openStore(t)
	image := importImage(t, store)
	reader := must[*ImageStore](t)(OpenImageStore(WithStorePath(store.Path()), WithReadOnlyStore()))
	defer reader.Close()
	found := must[*Image](t)(reader.Get("greeter"))
	defer found.Close()
	check(t, found.Prepare(testContext(t), ImageOverrides{}))
	if err := rt.ImageCommand(found).Run(testContext(t)); !errors.Is(err, ErrNotFound) || len(layers(t, store)) > 0 {
		t.Error(err, layers(t, store))
	}

	enough := errors.New("enough")
	err := image.Prepare(testContext(t), ImageOverrides{}, WithProgress(func(ImageProgress) error { return enough }))
	if !errors.Is(err, enough) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	err = image.Prepare(ctx, ImageOverrides{}, WithProgress(func(ImageProgress) error {
		cancel()
		time.Sleep(300 * time.Millisecond) // until a goroutine has told the library
		return nil
	}))
	if !errors.Is(err, context.Canceled) || len(layers(t, store)) > 0 {
		t.Error(err, layers(t, store))
	}

	var progress heard
	check(t, image.Prepare(testContext(t), ImageOverrides{User: "alice", Hostname: "box"}, progress.option(t)))
	if !progress.steps[ImageStepUnpack] || len(layers(t, store)) != 1 {
		t.Errorf("%+v %v", progress, layers(t, store))
	}
	check(t, found.Prepare(testContext(t), ImageOverrides{}))
	prints(t, "hello\n", rt.ImageCommand(image))
	if len(layers(t, store)) != 1 {
		t.Error(layers(t, store))
	}
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	check(t, image.Prepare(testContext(t), ImageOverrides{UIDMappings: ids, GIDMappings: ids}))
	if len(layers(t, store)) != 2 {
		t.Error(layers(t, store))
	}
	err = image.Prepare(testContext(t), ImageOverrides{UIDMappings: ids})
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "gidMappings") {
		t.Error(err)
	}
	if err := image.Prepare(testContext(t), ImageOverrides{}, WithName("x")); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

func TestAUserNamespaceIsMadeForAnImage(t *testing.T) {
	rt, image := openRuntime(t), importImage(t, openStore(t))
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	cmd := rt.ImageCommand(image, "id -u; cat /proc/self/uid_map")
	cmd.Overrides = ImageOverrides{User: "alice", UIDMappings: ids, GIDMappings: ids}
	out, err := cmd.Output(testContext(t))
	if err != nil || strings.Join(strings.Fields(string(out)), " ") != "1000 0 100000 65536" {
		t.Errorf("%q %v", out, err)
	}
}

func TestAnImageIsSavedAndLoaded(t *testing.T) {
	store := openStore(t)
	image := importImage(t, store)
	layer := must[*ImageInfo](t)(image.Inspect()).Layers[0].Digest
	for _, place := range []string{"layout", "image.tar"} {
		path := filepath.Join(t.TempDir(), place)
		var out, in heard
		check(t, image.Save(testContext(t), path, WithName("localhost/saved:1"), out.option(t)))
		if !out.steps[ImageStepSave] || !out.finished[layer] {
			t.Errorf("%+v", out)
		}
		other := openStore(t)
		loaded := must[*Image](t)(other.Load(testContext(t), path, WithFrom("localhost/saved:1"), in.option(t)))
		if loaded.Digest() != image.Digest() || !in.steps[ImageStepFetch] || !in.finished[layer] {
			t.Errorf("%s %+v", loaded.Digest(), in)
		}
		if names := must[*ImageInfo](t)(loaded.Inspect()).Names; !slices.Equal(names, []string{"localhost/saved:1"}) {
			t.Error(names)
		}
		loaded.Close()
		loaded = must[*Image](t)(other.Load(testContext(t), path, WithName("new")))
		loaded.Close()
		if images := must[[]ImageSummary](t)(other.List()); len(images) != 1 || len(images[0].Names) != 2 {
			t.Errorf("%+v", images)
		}
		_, err := other.Load(testContext(t), path, WithFrom("localhost/nobody:1"))
		if !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	}
}

func TestAnImageIsUnpacked(t *testing.T) {
	image := importImage(t, openStore(t))
	dir := filepath.Join(t.TempDir(), "out")
	var progress heard
	check(t, image.Unpack(testContext(t), dir, WithOwner(OwnerCaller), progress.option(t)))
	text, err := os.ReadFile(filepath.Join(dir, "etc/greeting"))
	if err != nil || string(text) != "good day\n" || !progress.steps[ImageStepUnpack] {
		t.Errorf("%q %v %+v", text, err, progress)
	}
	if err := image.Unpack(testContext(t), dir); !errors.Is(err, ErrExists) || !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	for _, limit := range []ImageOption{WithMaxBytes(1000), WithMaxEntries(1)} {
		if err := image.Unpack(testContext(t), t.TempDir(), limit); !errors.Is(err, ErrResource) {
			t.Error(err)
		}
	}
}

func TestALayerIsNotMuchLargerThanCompressed(t *testing.T) {
	store, dir := openStore(t), tree(t)
	zeros := filepath.Join(dir, "zeros")
	check(t, os.WriteFile(zeros, nil, 0o644))
	check(t, os.Truncate(zeros, 72<<20))
	image := must[*Image](t)(store.Import(testContext(t), dir))
	defer image.Close()
	if err := image.Unpack(testContext(t), t.TempDir(), WithMaxRatio(2)); !errors.Is(err, ErrResource) {
		t.Error(err)
	}
	check(t, image.Unpack(testContext(t), t.TempDir()))
}

func TestAnErrorOfProgressIsReturned(t *testing.T) {
	store, dir := openStore(t), tree(t)
	enough, calls := errors.New("enough"), 0
	_, err := store.Import(testContext(t), dir, WithProgress(func(ImageProgress) error {
		calls++
		return fmt.Errorf("so far: %w", enough)
	}))
	var e *Error
	if !errors.Is(err, enough) || !errors.As(err, &e) || e.Code != CodeCallback || calls != 1 ||
		!strings.Contains(err.Error(), "so far: enough") {
		t.Errorf("%d calls: %v", calls, err)
	}
	image := importImage(t, store)
	err = image.Save(testContext(t), filepath.Join(t.TempDir(), "image.tar"), WithProgress(func(ImageProgress) error {
		return context.Canceled
	}))
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if images := must[[]ImageSummary](t)(store.List()); len(images) != 1 {
		t.Errorf("%+v", images)
	}
}

func TestAPanicOrGoexitOfProgressGoesOn(t *testing.T) {
	store, dir := openStore(t), tree(t)
	calls := 0
	run := func(broken func()) (value any, returned bool) {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			defer func() { value = recover() }()
			_, _ = store.Import(testContext(t), dir, WithProgress(func(ImageProgress) error {
				calls++
				broken()
				return nil
			}))
			returned = true
		}()
		<-ended
		return value, returned
	}
	if value, returned := run(func() { panic("too far") }); value != "too far" || returned {
		t.Error(value, returned)
	}
	if value, returned := run(runtime.Goexit); value != nil || returned {
		t.Error(value, returned)
	}
	if calls != 2 {
		t.Error(calls, "calls")
	}
	// Nothing is held any more.
	importImage(t, store)
	must[*Pruned](t)(store.Prune(testContext(t), true))
}

func TestTheContextStopsACallForAnImage(t *testing.T) {
	store, dir := openStore(t), tree(t)
	ctx, cancel := context.WithCancel(context.Background())
	_, err := store.Import(ctx, dir, WithProgress(func(ImageProgress) error {
		cancel()
		time.Sleep(300 * time.Millisecond) // until a goroutine has told the library
		return nil
	}))
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_, err = store.Import(ctx, dir)
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = store.Import(ctx, dir, WithProgress(func(ImageProgress) error {
		<-ctx.Done()
		time.Sleep(300 * time.Millisecond)
		return nil
	}))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if images := must[[]ImageSummary](t)(store.List()); len(images) > 0 {
		t.Errorf("%+v", images)
	}
	begun, goOn, made := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := store.Import(context.Background(), dir, WithProgress(func(ImageProgress) error {
			select {
			case <-begun:
			default:
				close(begun)
			}
			<-goOn
			return nil
		}))
		made <- err
	}()
	<-begun
	ctx, cancel = context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	before := time.Now()
	_, err = store.Prune(ctx, true)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(before) > 10*time.Second {
		t.Error(err, time.Since(before))
	}
	close(goOn)
	check(t, <-made)
}

func TestAContainerIsCommitted(t *testing.T) {
	rt, store := openRuntime(t), openStore(t)
	image := importImage(t, store)
	changes := filepath.Join(t.TempDir(), "changes")
	script := ImageOverrides{Args: []string{"echo new >/etc/new; rm /etc/greeting"}}
	c := create(t, rt, nil, WithImage(image, script), WithChanges(changes))
	_, err := store.Commit(testContext(t), c)
	var e *Error
	if !errors.Is(err, ErrState) || !errors.As(err, &e) || e.ID != c.ID() {
		t.Error(err)
	}
	check(t, c.Start(testContext(t)))
	if status, err := c.Wait(testContext(t)); err != nil || !status.Success() {
		t.Fatal(status, err)
	}
	var progress heard
	committed := must[*Image](t)(store.Commit(testContext(t), c, WithName("changed"),
		WithConfig(map[string]any{"Cmd": []string{"cat /etc/new; cat /etc/greeting || echo gone"}}), progress.option(t)))
	t.Cleanup(func() { committed.Close() })
	if !progress.steps[ImageStepPack] || len(must[*ImageInfo](t)(committed.Inspect()).Layers) != 2 {
		t.Errorf("%+v", progress)
	}
	prints(t, "new\ngone\n", rt.ImageCommand(committed))
	prints(t, "good day\n", rt.ImageCommand(image, "cat /etc/greeting"))

	c = start(t, rt, nil, WithImage(image, ImageOverrides{}))
	must[ExitStatus](t)(c.Wait(testContext(t)))
	if _, err := store.Commit(testContext(t), c); !errors.Is(err, ErrState) {
		t.Error(err)
	}
}

func TestChangesAreKeptAboveLayers(t *testing.T) {
	rt := openRuntime(t)
	if !Has("rootfs-layers") {
		t.Skip("skipped: a library with rootfs-layers")
	}
	top, bottom := t.TempDir(), t.TempDir()
	for dir, text := range map[string]string{top: "top\n", bottom: "bottom\n"} {
		check(t, os.Mkdir(filepath.Join(dir, "layers"), 0o755))
		check(t, os.WriteFile(filepath.Join(dir, "layers/both"), []byte(text), 0o644))
	}
	check(t, os.WriteFile(filepath.Join(bottom, "layers/one"), []byte("one\n"), 0o644))
	opts := []CreateOption{WithLower(top, bottom), WithChanges(filepath.Join(t.TempDir(), "changes"))}
	for _, want := range []string{"top\none\n", "top\none\nkept\n"} {
		cmd := command(t, rt, "sh", "-c", "cd /layers; cat both one; if [ -e kept ]; then cat kept; fi; echo kept >kept")
		cmd.Create = opts
		prints(t, want, cmd)
	}
}

func TestWhatNobodyNeedsIsPruned(t *testing.T) {
	rt, store := openRuntime(t), openStore(t)
	image := importImage(t, store)
	prints(t, "hello\n", rt.ImageCommand(image))
	pruned := must[*Pruned](t)(store.Prune(testContext(t), false))
	if len(pruned.Images) > 0 {
		t.Errorf("%+v", pruned)
	}
	c := create(t, rt, nil, WithImage(image, ImageOverrides{}))
	pruned = must[*Pruned](t)(store.Prune(testContext(t), true))
	if len(pruned.Images) > 0 {
		t.Errorf("a container needs it: %+v", pruned)
	}
	check(t, c.Delete(testContext(t), ForceDelete))
	pruned = must[*Pruned](t)(store.Prune(testContext(t), true))
	if !slices.Equal(pruned.Images, []string{image.Digest()}) || pruned.Blobs != 3 || pruned.Layers != 1 || pruned.Bytes <= 0 {
		t.Errorf("%+v", pruned)
	}
	if _, err := image.Inspect(); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestAReadOnlyStoreIsNotChanged(t *testing.T) {
	store := openStore(t)
	image := importImage(t, store)
	reader := must[*ImageStore](t)(OpenImageStore(WithStorePath(store.Path()), WithReadOnlyStore()))
	defer reader.Close()
	found := must[*Image](t)(reader.Get("greeter"))
	defer found.Close()
	if found.Digest() != image.Digest() {
		t.Error(found.Digest())
	}
	if err := found.Tag("other"); !errors.Is(err, ErrState) {
		t.Error(err)
	}
	if _, err := reader.Import(testContext(t), tree(t)); !errors.Is(err, ErrState) {
		t.Error(err)
	}
}

func TestWhatIsWrongWithImagesIsRefused(t *testing.T) {
	rt, store := openRuntime(t), openStore(t)
	image, dir := importImage(t, store), tree(t)
	ctx := testContext(t)
	flawed := filepath.Join(t.TempDir(), "flawed")
	check(t, image.Save(ctx, flawed))
	layer := must[*ImageInfo](t)(image.Inspect()).Layers[0].Digest
	blob := filepath.Join(flawed, "blobs", strings.Replace(layer, ":", "/", 1))
	text := must[[]byte](t)(os.ReadFile(blob))
	text[len(text)/2] ^= 1
	check(t, os.Remove(blob))
	check(t, os.WriteFile(blob, text, 0o644))

	load := func(path string, opts ...ImageOption) error {
		_, err := openStore(t).Load(ctx, path, opts...)
		return err
	}
	make := func(opts ...ImageOption) error {
		_, err := store.Import(ctx, dir, opts...)
		return err
	}
	get := func(name string) error {
		_, err := store.Get(name)
		return err
	}
	build := func(s *specs.Spec, opts ...CreateOption) error {
		c, err := rt.Create(ctx, newID(), s, opts...)
		if err == nil {
			c.scrap()
		}
		return err
	}
	of := func(o ImageOverrides) CreateOption { return WithImage(image, o) }
	for _, c := range []struct {
		what string
		err  error
		is   error
		says string
	}{
		{"a layout that is not there", load("/no/such"), ErrNotFound, "/no/such"},
		{"a directory that is no layout", load(dir), ErrSpec, dir},
		{"a blob with a wrong bit", load(flawed), ErrSpec, layer},
		{"an option of another call", load(dir, WithAuthor("me")), ErrInvalid, "author"},
		{"a patch that is no JSON", make(WithConfig(func() {})), ErrInvalid, "func()"},
		{"a patch that is no object", make(WithConfig("text")), ErrInvalid, "object"},
		{"a compression that is none", make(WithCompression(9)), ErrUnsupported, "9"},
		{"a NUL byte in a name", make(WithName("a\x00b")), ErrInvalid, "NUL"},
		{"a name that is none", make(WithName("No Name")), ErrInvalid, "No Name"},
		{"an image that is not there", get("nobody"), ErrNotFound, "nobody"},
		{"another name that is none", get(""), ErrInvalid, ""},
		{"a name that nobody has", store.Remove("nobody"), ErrNotFound, "nobody"},
		{"a tag that is no name", image.Tag("No Name"), ErrInvalid, "No Name"},
		{"neither a spec nor an image", build(nil), ErrInvalid, "image"},
		{"a spec and an image", build(new(specs.Spec), of(ImageOverrides{})), ErrInvalid, "both a spec"},
		{"a bundle and an image", build(nil, WithBundle(dir), of(ImageOverrides{})), ErrInvalid, "both a bundle"},
		{"the host's files and an image", build(nil, HostRootfs(), of(ImageOverrides{})), ErrInvalid, "HostRootfs"},
		{"layers and an image", build(nil, WithLower(dir), of(ImageOverrides{})), ErrInvalid, "lower"},
		{"two hostnames", build(nil, of(ImageOverrides{Hostname: "x", HostHostname: true})), ErrInvalid, "HostHostname"},
		{"a patch that cannot be written", build(nil, of(ImageOverrides{Patch: func() {}})), ErrInvalid, "func()"},
		{"a relative target", build(nil, of(ImageOverrides{Mounts: []ImageMount{{Source: "/", Target: "x"}}})), ErrInvalid, "x"},
		{"half a user namespace", build(nil, of(ImageOverrides{UIDMappings: []specs.LinuxIDMapping{{Size: 1}}})), ErrInvalid, "gidMappings"},
	} {
		if !errors.Is(c.err, c.is) || !strings.Contains(c.err.Error(), c.says) {
			t.Errorf("%s: %v", c.what, c.err)
		}
	}
}

func TestClosedStoresAndImagesRefuse(t *testing.T) {
	rt, store := openRuntime(t), openStore(t)
	image := importImage(t, store)
	path := store.Path()
	check(t, store.Close())
	check(t, store.Close())
	if path == "" || store.Path() != "" {
		t.Error(path, store.Path())
	}
	prints(t, "hello\n", rt.ImageCommand(image)) // images go on
	check(t, image.Close())
	check(t, image.Close())
	ctx := testContext(t)
	_, list := store.List()
	_, load := store.Load(ctx, path)
	_, inspect := image.Inspect()
	for _, err := range []error{
		list, load, inspect, store.Remove("x"), image.Tag("x"), image.Save(ctx, path), image.Unpack(ctx, path),
		rt.ImageCommand(image).Run(ctx),
	} {
		if !errors.Is(err, ErrClosed) || !errors.Is(err, fs.ErrClosed) {
			t.Error(err)
		}
	}
	if !strings.HasPrefix(image.Digest(), "sha256:") {
		t.Error(image.Digest())
	}
}

func TestManyGoroutinesUseOneStore(t *testing.T) {
	rt, store := openRuntime(t), openStore(t)
	image := importImage(t, store)
	path := filepath.Join(t.TempDir(), "image.tar")
	check(t, image.Save(testContext(t), path))
	other := openStore(t)
	var group sync.WaitGroup
	for i := range 6 {
		group.Go(func() {
			var progress heard
			loaded, err := other.Load(testContext(t), path, WithName(fmt.Sprint("name", i)), progress.option(t))
			if err != nil {
				t.Error(err)
				return
			}
			defer loaded.Close()
			out, err := rt.ImageCommand(loaded).Output(testContext(t))
			if err != nil || string(out) != "hello\n" || progress.calls == 0 {
				t.Errorf("%q %v", out, err)
			}
		})
	}
	group.Wait()
	if images := must[[]ImageSummary](t)(other.List()); len(images) != 1 || len(images[0].Names) != 6 {
		t.Errorf("%+v", images)
	}
}

func TestImagesLeaveTheHostAsItWas(t *testing.T) {
	rt, store := openRuntime(t), openStore(t)
	before := hostFacts(t)
	image := importImage(t, store)
	prints(t, "hello\n", rt.ImageCommand(image))
	check(t, image.Unpack(testContext(t), t.TempDir()))
	must[*Pruned](t)(store.Prune(testContext(t), true))
	if after := hostFacts(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// registry runs a registry on the loopback and returns its address.
func registry(t testing.TB) string {
	t.Helper()
	const program = "/usr/bin/docker-registry"
	if _, err := os.Stat(program); err != nil {
		t.Skip("skipped: docker-registry")
	}
	if !Has("registry") {
		t.Skip("skipped: a library with registry")
	}
	listener := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	address := listener.Addr().String()
	listener.Close()
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog:\n  accesslog:\n    disabled: true\n  level: error\n"+
		"storage:\n  filesystem:\n    rootdirectory: %s/data\nhttp:\n  addr: %s\n", dir, address)
	file := filepath.Join(dir, "config.yml")
	check(t, os.WriteFile(file, []byte(config), 0o644))
	cmd := exec.Command(program, "serve", file)
	check(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	for {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return address
		}
		select {
		case <-ended:
			t.Fatal("docker-registry has ended")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestAnImageGoesToARegistryAndComesBack(t *testing.T) {
	store := openStore(t)
	name := registry(t) + "/test/greeter:1"
	image := importImage(t, store)
	other := openStore(t)
	if _, err := other.Pull(testContext(t), name); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	enough := errors.New("enough")
	err := image.Push(testContext(t), name, WithProgress(func(ImageProgress) error { return enough }))
	if !errors.Is(err, enough) {
		t.Error(err)
	}
	var out, in heard
	check(t, image.Push(testContext(t), name, out.option(t)))
	pulled := must[*Image](t)(other.Pull(testContext(t), name, in.option(t)))
	defer pulled.Close()
	if pulled.Digest() != image.Digest() || !out.steps[ImageStepPush] || !in.steps[ImageStepFetch] {
		t.Errorf("%s %+v %+v", pulled.Digest(), out, in)
	}
	if names := must[*ImageInfo](t)(pulled.Inspect()).Names; !slices.Equal(names, []string{name}) {
		t.Error(names)
	}
	prints(t, "hello\n", openRuntime(t).ImageCommand(pulled))
	again := must[*Image](t)(other.Pull(testContext(t), name, WithName("mine"), WithCredentials("", "")))
	defer again.Close()
	mine := must[*Image](t)(other.Get("mine"))
	defer mine.Close()
}

func TestARegistryThatDoesNotAnswerIsNamed(t *testing.T) {
	store := openStore(t)
	if !Has("registry") {
		t.Skip("skipped: a library with registry")
	}
	const nobody = "127.0.0.1:1/greeter:1"
	_, pull := store.Pull(testContext(t), nobody)
	push := importImage(t, store).Push(testContext(t), nobody)
	for _, err := range []error{pull, push} {
		if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
			t.Error(err)
		}
	}
	_, err := store.Pull(testContext(t), nobody, WithCredentials("me", ""))
	if !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

func TestImageStepsInWords(t *testing.T) {
	for step, want := range map[ImageStep]string{
		ImageStepFetch: "fetch", ImageStepUnpack: "unpack", ImageStepSave: "save", ImageStepPush: "push",
		ImageStepPack: "pack", 99: "step 99",
	} {
		if got := step.String(); got != want {
			t.Errorf("%q instead of %q", got, want)
		}
	}
}
