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

// run calls a callback, which fails by a panic or Goexit. What it says with Refuse and Fail counts
// whatever this returns.
func run(ptr *C.locule_plugin_call, callback func(*PluginCall)) C.int {
	call := newPluginCall(ptr)
	defer call.end()
	switch returned, value := apart(func() { callback(call) }); {
	case value != nil:
		call.Fail(fmt.Sprint("panic: ", value))
	case !returned:
		call.Fail("it has ended its goroutine")
	}
	return 0
}

// apart calls f, on a goroutine of its own, and tells whether it has returned, and else with which
// value it panicked: nil after Goexit, such as of testing's FailNow. Neither must go through the
// frames of C, which would never give back what they hold, and Goexit cannot be stopped.
func apart(f func()) (returned bool, value any) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() { value = recover() }()
		f()
		returned = true
	}()
	<-ended
	return returned, value
}
