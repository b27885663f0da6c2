// Package locule runs OCI containers from inside a Go program: no daemon, no runtime to
// execute, no fork of the program. It binds liblocule.
//
// The quickest container sees the host's files, and its changes vanish:
//
//	rt, err := locule.Open()
//	...
//	defer rt.Close()
//	out, err := rt.Command("uname", "-n").Output(ctx)
//
// [Cmd] is like that of os/exec. [Runtime.Create] gives a [Container] from a configuration
// and the whole life of it: start, wait, signal, pause, limits, statistics, delete; and
// [Container.Command] runs further commands in it.
//
// # Images
//
// An [ImageStore] takes images from layouts, archives and registries, or makes them of trees, and
// [Runtime.ImageCommand] and [WithImage] make containers of them.
//
// # Errors
//
// What the library reports is an [*Error], which says where in the container's life and where
// in its configuration something failed. Decide with [errors.Is] and the sentinels of this
// package. A call that its context ended is [context.Canceled] or [context.DeadlineExceeded].
//
// # Goroutines and threads
//
// Everything may be called by any number of goroutines at once, except the methods of a
// [Cmd]. Creating, starting and deleting occupy a thread for the milliseconds that they take,
// or as long as hooks and plugins run, and moving and unpacking images as long as that takes.
// Waiting, for one process or for thousands, occupies none.
// Nothing calls back from C into Go but a [HostPlugin] and [WithProgress], on a goroutine for which
// the call waits, and [WithPluginLog].
//
// # Plugins
//
// [WithPlugins] has a [HostPlugin] in Go or a [WasmPlugin] see, change or refuse containers at
// stages of their lives.
//
// # Closing
//
// Close gives a handle up and leaves the container as it is; Delete removes the container. A
// handle that is forgotten is closed by the garbage collector at some time, which is no way to
// run a service.
//
// # Building
//
// The package uses cgo, and finds liblocule with pkg-config. With the build tag locule_static
// the library becomes part of the program.
package locule
