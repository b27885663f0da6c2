package locule

// Plugins: what sees, changes or refuses a container at stages of its life.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/locule/locule/bindings/go/internal/liblocule"
)

// Plugin is what a runtime calls at stages of its containers' lives: a [HostPlugin], a
// [WasmPlugin] or a [PluginFile]. Give them to [WithPlugins].
type Plugin interface {
	open() (*liblocule.Plugin, error)
}

// Stage is a point in a container's life at which plugins are called.
type Stage string

// The stages, in the order of a life. What is said to happen can be refused, unless it is marked.
const (
	StageCreate  Stage = "create"  // it is about to be created: its configuration may be changed
	StageCreated Stage = "created" // it has been created; cannot be refused
	StageStart   Stage = "start"   // its program is about to be started
	StageStarted Stage = "started" // its program runs; cannot be refused
	StageExec    Stage = "exec"    // another process is about to be run in it: that may be changed
	StageUpdate  Stage = "update"  // its limits are about to be changed: the new ones may be changed
	StagePause   Stage = "pause"   // it is about to be frozen
	StageResume  Stage = "resume"  // it is about to be thawed
	StageKill    Stage = "kill"    // it is about to be sent a signal; cannot be refused
	StageStopped Stage = "stopped" // its first process has ended; cannot be refused
	StageDelete  Stage = "delete"  // it has been removed; cannot be refused
)

// OnFailure is what becomes of a container when a plugin fails. The default is [OnFailureFail].
type OnFailure string

const (
	// OnFailureFail has what it was called for fail, where that can be refused.
	OnFailureFail OnFailure = "fail"
	// OnFailureSkip goes on as if it had not been called: what it has changed in that call is
	// undone.
	OnFailureSkip OnFailure = "skip"
	// OnFailureDisable is like OnFailureSkip, and the runtime does not call it again.
	OnFailureDisable OnFailure = "disable"
)

// HostPlugin is a plugin in Go.
//
// A function returns nil to agree. It refuses with a [*Refused], as [Refuse] makes it; any other
// error, a panic, and the end of its goroutine is a failure of the plugin, which means what OnFailure
// says. Where the stage does not take place for it, the call that led there fails with [ErrPlugin].
//
// Functions run on a goroutine for which that call waits, for several containers at once if several
// goroutines make some; "stopped" when the first learns of the end. They may use this package
// for other containers, and should return soon.
type HostPlugin struct {
	// Name is what errors call it: letters, digits and any of _.- . No two of a runtime have the
	// same.
	Name string
	// On has what is called, by stage.
	On map[Stage]func(*Call) error
	// Judge sees what all plugins together have made of a container that is about to be created.
	// A plugin with it may change nothing.
	Judge func(*Call) error
	// Priority orders plugins: lower ones are called first; of equal ones the names decide. After
	// something has happened the order is the other way round.
	Priority int32
	// OnFailure is what becomes of a container when it fails.
	OnFailure OnFailure
	// Override lets it change what plugins before it have changed.
	Override bool
	// Required has no container created while it is disabled, and none for which it fails.
	Required bool
}

func (p HostPlugin) open() (*liblocule.Plugin, error) {
	o := &liblocule.PluginOptions{Name: p.Name, Priority: p.Priority}
	for stage, handler := range p.On {
		if handler == nil {
			return nil, invalid("open", fmt.Sprintf("plugin %q has no function for %q", p.Name, stage))
		}
		o.Stages = append(o.Stages, string(stage))
	}
	slices.Sort(o.Stages)
	switch p.OnFailure {
	case "", OnFailureFail:
	case OnFailureSkip:
		o.OnFailure = liblocule.OnFailureSkip
	case OnFailureDisable:
		o.OnFailure = liblocule.OnFailureDisable
	default:
		return nil, invalid("open", fmt.Sprintf("plugin %q: OnFailure %q is unknown", p.Name, p.OnFailure))
	}
	if p.Override {
		o.Flags |= liblocule.PluginOverride
	}
	if p.Required {
		o.Flags |= liblocule.PluginRequired
	}
	if len(p.On) > 0 {
		on := make(map[Stage]func(*Call) error, len(p.On))
		for stage, handler := range p.On {
			on[stage] = handler
		}
		o.Handle = func(lib *liblocule.PluginCall) { answer(lib, on[Stage(lib.Stage)]) }
	}
	if p.Judge != nil {
		o.Judge = func(lib *liblocule.PluginCall) { answer(lib, p.Judge) }
	}
	return liblocule.NewPlugin(o)
}

func answer(lib *liblocule.PluginCall, handler func(*Call) error) {
	err := handler(&Call{lib})
	var refused *Refused
	switch {
	case err == nil:
	case errors.As(err, &refused):
		lib.Refuse(refused.Code, err.Error())
	default:
		lib.Fail(err.Error())
	}
}

// Refused is the error by which a plugin refuses.
type Refused struct {
	// Message says for people what is wrong.
	Message string
	// Code is a number of the plugin's own, or 0.
	Code uint32
}

func (r *Refused) Error() string { return r.Message }

// Refuse is a [*Refused] with this message.
func Refuse(format string, args ...any) error {
	return &Refused{Message: fmt.Sprintf(format, args...)}
}

// WasmPlugin is a plugin that is a Wasm component. It needs a library that has "wasm-plugins":
// see [Has].
type WasmPlugin struct {
	// Path is the component's file, or oci: and the path of an OCI image layout.
	Path string `json:"path"`
	// Name is what errors call it. The default is the file's name without its ending.
	Name string `json:"name"`
	// Digest, sha256:..., has any other component refused.
	Digest string `json:"digest,omitempty"`
	// Powers is what it may do: the interfaces of locule:plugin that it may import.
	Powers []string `json:"powers,omitempty"`
	// Config is what it is told, as JSON.
	Config any `json:"config,omitempty"`
	// Priority, OnFailure, Override and Required are as those of [HostPlugin].
	Priority  int32     `json:"priority,omitempty"`
	OnFailure OnFailure `json:"onFailure,omitempty"`
	// OnFailureAt is the same for single stages.
	OnFailureAt map[Stage]OnFailure `json:"onFailureAt,omitempty"`
	Override    bool                `json:"override,omitempty"`
	Required    bool                `json:"required,omitempty"`
	// Limits is how much it may use in a call, by the names of a configuration file: fuel,
	// memoryBytes and so on.
	Limits map[string]uint64 `json:"limits,omitempty"`
	// KeepAlive keeps its memory between calls.
	KeepAlive bool `json:"keepAlive,omitempty"`
	// Engine is how it is run, as in a configuration file.
	Engine string `json:"engine,omitempty"`
	// Cache is where compiled components are kept.
	Cache string `json:"cache,omitempty"`
}

func (p WasmPlugin) open() (*liblocule.Plugin, error) {
	if p.Name == "" {
		p.Name = stem(p.Path)
	}
	text, err := json.Marshal(p)
	if err != nil {
		return nil, invalid("open", fmt.Sprintf("plugin %q: %v", p.Name, err))
	}
	return liblocule.LoadPlugin(text, "")
}

// PluginFile is the path of a Wasm plugin's configuration file, JSON. Paths in it are taken from
// its directory, and the plugin has the file's name unless it says another.
type PluginFile string

func (f PluginFile) open() (*liblocule.Plugin, error) {
	text, err := os.ReadFile(string(f))
	if err != nil {
		return nil, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, invalid("open", fmt.Sprintf("%s: %v", f, err))
	}
	if _, named := members["name"]; !named && members != nil {
		members["name"], _ = json.Marshal(stem(string(f)))
	}
	if text, err = json.Marshal(members); err != nil {
		return nil, invalid("open", fmt.Sprintf("%s: %v", f, err))
	}
	return liblocule.LoadPlugin(text, filepath.Dir(string(f)))
}

func stem(path string) string {
	name := filepath.Base(path)
	return strings.TrimSuffix(name, filepath.Ext(name))
}

// Component is what a Wasm component is.
type Component struct {
	// Digest is sha256: and the digest of its bytes.
	Digest string `json:"digest"`
	Bytes  int64  `json:"bytes"`
	// Powers is what it has to be granted.
	Powers []string `json:"powers"`
	// Judges tells whether it judges what other plugins have made.
	Judges bool `json:"judges"`
	// Imports and Exports are all it imports and exports, by their full names.
	Imports []string `json:"imports"`
	Exports []string `json:"exports"`
}

// InspectPlugin says what the component in a file is, without running it.
func InspectPlugin(path string) (*Component, error) {
	var component Component
	get := func() ([]byte, error) { return liblocule.InspectPlugin(path) }
	if err := document(context.Background(), "inspect", "", get, &component); err != nil {
		return nil, err
	}
	return &component, nil
}

// WithPlugins has these plugins called at stages of the containers' lives.
func WithPlugins(plugins ...Plugin) Option {
	return func(c *openConfig) { c.plugins = append(c.plugins, plugins...) }
}

// WithPluginDir loads further Wasm plugins, by a configuration file NAME.json for each of them in
// this directory, and perhaps rules.json.
func WithPluginDir(dir string) Option {
	return func(c *openConfig) { c.pluginDir = dir }
}

// WithPluginLog has this logger hear what Wasm plugins say, and warnings about plugins: one that was
// skipped, a fault at a stage that cannot be refused. Without it nobody does.
func WithPluginLog(logger *slog.Logger) Option {
	return func(c *openConfig) { c.pluginLog = logger }
}

var levels = map[uint32]slog.Level{
	liblocule.LogDebug: slog.LevelDebug,
	liblocule.LogInfo:  slog.LevelInfo,
	liblocule.LogWarn:  slog.LevelWarn,
	liblocule.LogError: slog.LevelError,
}

// RequirePlugins has no container created without the plugins of these names, which have to be
// there and not disabled.
func RequirePlugins(names ...string) Option {
	return func(c *openConfig) { c.rules.Required = append(c.rules.Required, names...) }
}

// ForbidPlugins says what no plugin may do: change "hooks", "namespaces", "seccomp",
// "capabilities", "confinement", "sysctl" or "devices", or in the case of walls take them away.
func ForbidPlugins(what ...string) Option {
	return func(c *openConfig) { c.rules.Forbid = append(c.rules.Forbid, what...) }
}

// rules is what holds for all plugins.
type rules struct {
	Required []string `json:"required,omitempty"`
	Forbid   []string `json:"forbid,omitempty"`
}

func (r rules) json() []byte {
	if len(r.Required) == 0 && len(r.Forbid) == 0 {
		return nil
	}
	text, _ := json.Marshal(r) // texts only
	return text
}

// openPlugins makes handles of plugins; release gives them back.
func openPlugins(plugins []Plugin) (handles []*liblocule.Plugin, release func(), err error) {
	release = func() {
		for _, handle := range handles {
			handle.Close()
		}
	}
	for _, plugin := range plugins {
		if plugin == nil {
			release()
			return nil, nil, invalid("open", "a plugin is nil")
		}
		handle, err := plugin.open()
		if err != nil {
			release()
			return nil, nil, err
		}
		handles = append(handles, handle)
	}
	return handles, release, nil
}

// PluginInfo is what there is to say about a plugin of a runtime.
type PluginInfo struct {
	Name        string              `json:"name"`
	Stages      []Stage             `json:"stages"`
	Judges      bool                `json:"judges"`
	Priority    int32               `json:"priority"`
	OnFailure   OnFailure           `json:"onFailure"`
	OnFailureAt map[Stage]OnFailure `json:"onFailureAt"`
	Override    bool                `json:"override"`
	Required    bool                `json:"required"`
	// Disabled tells whether it has failed and is not called again.
	Disabled bool `json:"disabled"`
}

// Plugins are the runtime's, in the order in which they are called.
func (r *Runtime) Plugins(ctx context.Context) ([]PluginInfo, error) {
	var plugins []PluginInfo
	return plugins, document(ctx, "plugins", "", r.lib.PluginsJSON, &plugins)
}

// Change is what a plugin has changed of a container's configuration.
type Change struct {
	// Plugin is its name.
	Plugin string `json:"plugin"`
	// Stage is where it has done so: create, exec or update.
	Stage Stage `json:"stage"`
	// Adjustment is how, such as set-env.
	Adjustment string `json:"adjustment"`
	// Pointer is where: a JSON pointer, in which an element of a list is named by what it is known
	// by, such as /process/env/PATH.
	Pointer string `json:"pointer"`
	// Before is what was there, nil if nothing was, and After what is there now.
	Before json.RawMessage `json:"before"`
	After  json.RawMessage `json:"after"`
}

// Changes is what plugins have changed of the container, in the order in which they did.
func (c *Container) Changes(ctx context.Context) ([]Change, error) {
	var state struct {
		Changes []Change `json:"changes"`
	}
	err := document(ctx, "changes", c.id, c.lib.StateJSON, &state)
	return state.Changes, err
}
