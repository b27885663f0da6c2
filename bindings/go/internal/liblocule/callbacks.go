package liblocule

// What C calls. In a file of its own, because the preamble of one with exports may define nothing.

// #include <locule.h>
import "C"

import (
	"fmt"
	"runtime/cgo"
)

//export loculeGoHandle
func loculeGoHandle(call *C.locule_plugin_call, user C.uintptr_t) C.int {
	return run(call, options(user).Handle)
}

//export loculeGoJudge
func loculeGoJudge(call *C.locule_plugin_call, user C.uintptr_t) C.int {
	return run(call, options(user).Judge)
}

//export loculeGoLog
func loculeGoLog(level C.uint32_t, plugin, id, message *C.char, user C.uintptr_t) {
	// A panic must not go through the frames of C, and there is nobody to tell.
	defer func() { _ = recover() }()
	hear := cgo.Handle(user).Value().(func(level uint32, plugin, id, message string))
	hear(uint32(level), C.GoString(plugin), C.GoString(id), C.GoString(message))
}

//export loculeGoProgress
func loculeGoProgress(progress *C.struct_locule_image_progress, user C.uintptr_t) C.int {
	return truth(!cgo.Handle(user).Value().(*listener).hear(ImageProgress{
		Step:     uint32(progress.step),
		Digest:   C.GoString(progress.digest),
		Done:     uint64(progress.done),
		Total:    uint64(progress.total),
		Finished: progress.finished != 0,
	}))
}

//export loculeGoRelease
func loculeGoRelease(user C.uintptr_t) { cgo.Handle(user).Delete() }

func options(user C.uintptr_t) *PluginOptions { return cgo.Handle(user).Value().(*PluginOptions) }

// run calls a callback. A panic of it must not go through the frames of C: it is a failure of
// the plugin. What the callback says with Refuse and Fail counts whatever this returns.
func run(ptr *C.locule_plugin_call, callback func(*PluginCall)) C.int {
	call := newPluginCall(ptr)
	defer call.end()
	defer func() {
		if r := recover(); r != nil {
			call.Fail(fmt.Sprint("panic: ", r))
		}
	}()
	callback(call)
	return 0
}
