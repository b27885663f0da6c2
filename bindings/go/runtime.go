package locule

// The runtime: where containers are kept.

import (
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/locule/locule/bindings/go/internal/liblocule"
)

// Runtime is a place where containers are kept. All methods may be called by any number of
// goroutines at once.
type Runtime struct {
	lib       *liblocule.Runtime
	listeners listeners
	plugged   bool // there may be plugins in Go
}

// Option is a choice for [Open].
type Option func(*openConfig)

type openConfig struct {
	stateDir, keeper string
	flags            uint64
	cgroups          uint32
	plugins          []Plugin
	pluginDir        string
	rules            rules
	pluginLog        *slog.Logger
}

// WithStateDir keeps containers in this directory, which is made if missing. The default is
// /run/locule for root, else $XDG_RUNTIME_DIR/locule, else /tmp/locule-UID.
func WithStateDir(path string) Option {
	return func(c *openConfig) { c.stateDir = path }
}

// WithKeeper uses this keeper executable. The default is the one inside the library, else an
// installed one.
func WithKeeper(path string) Option {
	return func(c *openConfig) { c.keeper = path }
}

// WithoutCgroups leaves cgroups alone: no limits, statistics or pausing.
func WithoutCgroups() Option {
	return func(c *openConfig) { c.flags |= liblocule.RuntimeNoCgroups }
}

// WithSystemd has systemd make the containers' cgroups, with a scope for each: that of the
// machine for root, the user's own for an ordinary user. Without it the library makes them itself.
func WithSystemd() Option {
	return func(c *openConfig) { c.cgroups = liblocule.CgroupsSystemd }
}

// IgnoreAnnotations leaves annotations alone that change what is done. With [WithSystemd]
// org.systemd.property.NAME sets any property of a container's scope, and who may write
// annotations could do so.
func IgnoreAnnotations() Option {
	return func(c *openConfig) { c.flags |= liblocule.RuntimeIgnoreAnnotations }
}

// Version is the version of liblocule that runs, such as "0.1.0".
func Version() string { return liblocule.Version() }

// Has tells whether the library that runs has a feature, such as "rootfs-overlay". What the
// machine can do says [Runtime.Features].
func Has(feature string) bool { return liblocule.Has(feature) }

// Open opens a runtime. A process may open any number, of one state directory, too. It does
// not block but for the filesystem, and to compile Wasm plugins. Give it back with
// [Runtime.Close].
func Open(opts ...Option) (*Runtime, error) {
	var config openConfig
	for _, opt := range opts {
		opt(&config)
	}
	plugins, release, err := openPlugins(config.plugins)
	if err != nil {
		return nil, wrap(context.Background(), "open", "", err)
	}
	defer release()
	var hear func(level uint32, plugin, id, message string)
	if logger := config.pluginLog; logger != nil {
		hear = func(level uint32, plugin, id, message string) {
			logger.Log(context.Background(), levels[level], message, "plugin", plugin, "container", id)
		}
	}
	lib, err := liblocule.NewRuntime(&liblocule.RuntimeOptions{
		StateDir:    config.stateDir,
		Keeper:      config.keeper,
		Flags:       config.flags,
		Cgroups:     config.cgroups,
		Plugins:     plugins,
		PluginDir:   config.pluginDir,
		PluginRules: config.rules.json(),
		PluginLog:   hear,
	})
	if err != nil {
		return nil, wrap(context.Background(), "open", "", err)
	}
	plugged := len(config.plugins) > 0
	return &Runtime{lib: lib, listeners: listeners{lib: lib, plugged: plugged}, plugged: plugged}, nil
}

// Close gives the runtime up. Containers and their handles go on. It may be called more than
// once; the error is always nil.
func (r *Runtime) Close() error {
	r.lib.Close()
	return nil
}

// StateDir is the directory where containers are kept; empty after [Runtime.Close].
func (r *Runtime) StateDir() string { return r.lib.StateDir() }

// Create creates a container from spec: everything is set up and the program waits for
// [Container.Start]. An empty id invents one. With a nil spec, config.json comes from the
// bundle of [WithBundle] or is made of the image of [WithImage].
//
// It blocks until the container is set up, hooks included, and an image's layers are unpacked; the
// end of ctx stops it. When it fails, nothing is left behind, and the [*Error] names the stage and
// the place in the spec. What has been unpacked of an image stays in its store: see [Image.Prepare].
//
// A container dies with the process that created it unless it was created with
// [WithDetach].
func (r *Runtime) Create(ctx context.Context, id string, spec *specs.Spec, opts ...CreateOption) (*Container, error) {
	var config createConfig
	for _, opt := range opts {
		opt(&config)
	}
	c := new(Container)
	if err := c.openPipes(&config); err != nil {
		config.stdio.abandon()
		return nil, err
	}
	config.stdio.looseStdin = true
	if err := r.create(ctx, c, id, spec, &config); err != nil {
		return nil, err
	}
	if err := c.stdio.started(c.init.lib); err != nil {
		c.scrap()
		return nil, wrap(ctx, "create", id, err)
	}
	c.copied = make(chan struct{})
	go func() {
		c.copyErr = c.stdio.wait(nil)
		close(c.copied)
	}()
	return c, nil
}

// create fills in c. Its streams are open, but nothing is copied yet; they are closed when it
// fails.
func (r *Runtime) create(ctx context.Context, c *Container, id string, spec *specs.Spec, config *createConfig) error {
	c.stdio = &config.stdio
	lib, err := r.createLib(ctx, id, spec, config)
	if err == nil {
		if err = wrap(ctx, "create", id, c.adopt(r, lib)); err != nil {
			c.scrap()
		}
	}
	if err != nil {
		c.stdio.abandon()
	}
	return err
}

// scrap undoes a creation.
func (c *Container) scrap() {
	_ = c.lib.Delete(liblocule.DeleteForce)
	c.Close()
}

func (r *Runtime) createLib(ctx context.Context, id string, spec *specs.Spec, config *createConfig) (*liblocule.Container, error) {
	if err := done(ctx, "create", id); err != nil {
		return nil, err
	}
	o, err := config.lower(id, spec)
	if err != nil {
		return nil, err
	}
	if err := config.stdio.check("create"); err != nil {
		return nil, err
	}
	if err := config.stdio.open(); err != nil {
		return nil, err
	}
	o.Stdio, o.PassFDs = config.stdio.lower()
	stop, err := config.limit(ctx, o)
	if err != nil {
		return nil, wrap(ctx, "create", id, err)
	}
	defer stop()
	lib, err := r.lib.Create(o)
	return lib, wrap(ctx, "create", id, err)
}

// Load opens the container with this id, whichever process created it. It does not block.
func (r *Runtime) Load(ctx context.Context, id string) (*Container, error) {
	if err := done(ctx, "load", id); err != nil {
		return nil, err
	}
	lib, err := r.lib.Open(id)
	if err != nil {
		return nil, wrap(ctx, "load", id, err)
	}
	c := &Container{stdio: new(stdio), copied: make(chan struct{})}
	close(c.copied)
	if err := c.adopt(r, lib); err != nil {
		c.Close()
		return nil, wrap(ctx, "load", id, err)
	}
	return c, nil
}

// List is the state of every container in the state directory, whoever created it, in the
// order of their ids. It does not block but for the filesystem.
func (r *Runtime) List(ctx context.Context) ([]specs.State, error) {
	var states []specs.State
	return states, document(ctx, "list", "", r.lib.ListJSON, &states)
}

// Features is the features document (runtime-spec, features.md): what the library can do on
// this machine.
func (r *Runtime) Features(ctx context.Context) (*features.Features, error) {
	var f features.Features
	if err := document(ctx, "features", "", r.lib.FeaturesJSON, &f); err != nil {
		return nil, err
	}
	return &f, nil
}

// Explain is what [Runtime.Create] would do with these arguments, as text with a line a step.
// It does nothing of it and needs no privilege, but for an image: that is unpacked into its store if
// it is not yet, because some of it is needed for this. The end of ctx stops that.
func (r *Runtime) Explain(ctx context.Context, spec *specs.Spec, opts ...CreateOption) (string, error) {
	text, err := r.explain(ctx, spec, opts, liblocule.ExplainText)
	return string(text), err
}

// ExplainJSON is like [Runtime.Explain], for programs.
func (r *Runtime) ExplainJSON(ctx context.Context, spec *specs.Spec, opts ...CreateOption) (json.RawMessage, error) {
	return r.explain(ctx, spec, opts, liblocule.ExplainJSON)
}

func (r *Runtime) explain(ctx context.Context, spec *specs.Spec, opts []CreateOption, format uint32) ([]byte, error) {
	if err := done(ctx, "explain", ""); err != nil {
		return nil, err
	}
	var config createConfig
	for _, opt := range opts {
		opt(&config)
	}
	o, err := config.lower("", spec)
	if err != nil {
		return nil, err
	}
	o.Stdio, o.PassFDs = config.stdio.lower()
	stop, err := config.limit(ctx, o)
	if err != nil {
		return nil, wrap(ctx, "explain", "", err)
	}
	defer stop()
	text, err := r.lib.Explain(o, format)
	return text, wrap(ctx, "explain", "", err)
}

// document calls get and decodes the JSON that it returns.
func document(ctx context.Context, op, id string, get func() ([]byte, error), out any) error {
	if err := done(ctx, op, id); err != nil {
		return err
	}
	text, err := get()
	if err != nil {
		return wrap(ctx, op, id, err)
	}
	return json.Unmarshal(text, out)
}

// limit has the end of ctx, or the time that was given, stop a call; stop must follow it.
func (c *createConfig) limit(ctx context.Context, o *liblocule.CreateOptions) (stop func(), err error) {
	o.TimeoutMS = timeout(ctx, c.timeout)
	o.Cancel, stop, err = cancelWith(ctx)
	return stop, err
}

// cancelWith is a token that is triggered when ctx is done; stop gives it back.
func cancelWith(ctx context.Context) (token *liblocule.Cancel, stop func(), err error) {
	if ctx.Done() == nil {
		return nil, func() {}, nil
	}
	token, err = liblocule.NewCancel()
	if err != nil {
		return nil, nil, err
	}
	stopped := context.AfterFunc(ctx, token.Trigger)
	return token, func() { stopped(); token.Close() }, nil
}

// timeout is the library's limit in milliseconds: what was asked for, or else later than the
// context's deadline, so that the context decides.
func timeout(ctx context.Context, asked time.Duration) uint32 {
	if deadline, ok := ctx.Deadline(); ok && asked <= 0 {
		asked = max(time.Until(deadline), 0) + time.Second
	}
	switch ms := (asked + time.Millisecond - 1).Milliseconds(); {
	case ms <= 0:
		return 0
	case ms > math.MaxInt32:
		return math.MaxInt32
	default:
		return uint32(ms)
	}
}

// readBundle reads a bundle's config.json as far as it can be; errors are the library's to
// report. It takes no more than the library does: a FIFO or a device could go on for ever.
func readBundle(bundle string) *specs.Spec {
	path := filepath.Join(bundle, "config.json")
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Size() > 16<<20 {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	spec := new(specs.Spec)
	if json.Unmarshal(text, spec) != nil {
		return nil
	}
	return spec
}
