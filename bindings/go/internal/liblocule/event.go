package liblocule

// #include <stdlib.h>
// #include <string.h>
// #include <locule.h>
//
// // What Go keeps of an event, which itself is gone after the callback.
// struct kept {
//     struct kept *next;
//     uint32_t kind;
//     uint64_t kills;
//     uint32_t resource;
//     char container_id[];
// };
//
// static int keep(const locule_event *event, void *user) {
//     struct kept ***end = user;
//     uint32_t kind = locule_event_kind(event);
//     if (kind != LOCULE_EVENT_OOM && kind != LOCULE_EVENT_PRESSURE)
//         return 0;
//     const char *id = locule_event_container_id(event);
//     struct kept *kept = calloc(1, sizeof *kept + strlen(id) + 1);
//     if (kept == NULL)
//         return 1;
//     kept->kind = kind;
//     kept->kills = locule_event_oom_kills(event);
//     struct locule_watch_opts watch = {.size = sizeof watch};
//     if (kind == LOCULE_EVENT_PRESSURE && locule_event_pressure(event, &watch, NULL) == 0)
//         kept->resource = watch.resource;
//     strcpy(kept->container_id, id);
//     **end = kept;
//     *end = &kept->next;
//     return 0;
// }
//
// // The watched-for events that are there now, in order.
// static int collect(locule_runtime *runtime, struct kept **first, locule_error **err) {
//     struct kept **end = first;
//     return locule_runtime_dispatch(runtime, 0, keep, &end, err);
// }
import "C"

import "unsafe"

// Kinds and flags of locule.h.
const (
	EventExited   = C.LOCULE_EVENT_EXITED
	EventOOM      = C.LOCULE_EVENT_OOM
	EventPressure = C.LOCULE_EVENT_PRESSURE

	WatchOOM      = C.LOCULE_WATCH_OOM
	WatchPressure = C.LOCULE_WATCH_PRESSURE
	WatchFull     = C.LOCULE_WATCH_FULL

	ResourceCPU    = C.LOCULE_RESOURCE_CPU
	ResourceMemory = C.LOCULE_RESOURCE_MEMORY
	ResourceIO     = C.LOCULE_RESOURCE_IO
)

// Watch is a locule_watch_opts.
type Watch struct {
	Flags             uint64
	Kind, Resource    uint32
	StallUS, WindowUS uint64
}

// Event is an event that was watched for.
type Event struct {
	Kind     uint32
	ID       string
	Kills    uint64
	Resource uint32
}

// FD is the descriptor to poll for events. It belongs to the handle.
func (r *Runtime) FD() (int, error) {
	ptr, err := r.acquire()
	if err != nil {
		return -1, err
	}
	defer r.release()
	fd := C.locule_runtime_fd(ptr)
	return int(fd), failed(fd, nil)
}

// Collect gives, without waiting, the events that were watched for, and takes the ends of
// processes out of the way, which are known by their own descriptors.
func (r *Runtime) Collect() ([]Event, error) {
	ptr, err := r.acquire()
	if err != nil {
		return nil, err
	}
	defer r.release()
	var first *C.struct_kept
	var e *C.locule_error
	err = failed(C.collect(ptr, &first, &e), e)
	var events []Event
	for first != nil {
		kept := first
		events = append(events, Event{
			Kind:     uint32(kept.kind),
			ID:       C.GoString((*C.char)(unsafe.Pointer(&kept.container_id))),
			Kills:    uint64(kept.kills),
			Resource: uint32(kept.resource),
		})
		first = kept.next
		C.free(unsafe.Pointer(kept))
	}
	return events, err
}
