package main

// The plugins of the variant with that name: one is a function, one a Wasm component.

import (
	"os"
	"path/filepath"
	"sync/atomic"

	locule "github.com/locule/locule/bindings/go"
)

var (
	components = os.Getenv("LOCULE_TEST_PLUGIN") // in an environment that goes away
	calls      atomic.Int64
)

func withPlugins() bool { return variant == "plugins" }

// greeting is what a program says that the plugin has greeted.
func greeting() string {
	if withPlugins() {
		return " greeted"
	}
	return ""
}

func greet(c *locule.Call) error {
	calls.Add(1)
	return c.SetEnv("GREETING", " greeted")
}

func plugins() []locule.Plugin {
	if !withPlugins() {
		return nil
	}
	return []locule.Plugin{
		locule.HostPlugin{Name: "greet", On: map[locule.Stage]func(*locule.Call) error{
			locule.StageCreate: greet, locule.StageExec: greet,
		}},
		locule.WasmPlugin{
			Path: filepath.Join(components, "stamp.wasm"), Config: "a host",
			Powers: []string{"adjust-annotations", "adjust-rlimits"}, Cache: filepath.Join(dir, "cache"),
		},
	}
}
