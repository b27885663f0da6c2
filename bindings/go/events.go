package locule

// Events: what happens to a container and its processes.

import (
	"context"
	"iter"
	"sync"

	"github.com/locule/locule/bindings/go/internal/liblocule"
)

// EventKind is what happened.
type EventKind uint32

// Later versions may add kinds.
const (
	// EventExited says that a process has ended.
	EventExited EventKind = liblocule.EventExited
	// EventOOM says that the container ran out of memory: see [Container.WatchOOM].
	EventOOM EventKind = liblocule.EventOOM
	// EventPressure says that processes had to wait too long: see [Container.WatchPressure].
	EventPressure EventKind = liblocule.EventPressure
)

// Event is something that happened to a container or a process of it.
type Event struct {
	Kind EventKind
	ID   string // the container's

	// With EventExited: the process, as this process sees it, and how it ended.
	Pid    int
	Status ExitStatus

	// With EventOOM: how many processes the kernel has killed by now. With cgroup v1 it reports
	// that memory ran out before it kills.
	Kills uint64
	// With EventPressure: what the processes had to wait for.
	Resource Resource
}

// Events yields what happens from now on to the first process and to those that are started
// with [Container.Command] of this handle, and what it is watched for. The end of the first
// process is the last event. If ctx ends, or the handle is closed, the last pair has the error.
func (c *Container) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		s := c.events.subscribe()
		defer c.events.unsubscribe(s)
		exited := c.init.exited()
		for {
			var last bool
			select {
			case <-s.wake:
			case <-exited:
				last = true
			case <-ctx.Done():
				yield(Event{}, &Error{Code: CodeCancelled, Op: "events", ID: c.id, Msg: "waiting for events", cause: ctx.Err()})
				return
			}
			for _, event := range c.events.take(s) {
				if !yield(event, nil) {
					return
				}
			}
			if last {
				if err := wrap(ctx, "events", c.id, c.init.err); err != nil {
					yield(Event{}, err)
				} else {
					yield(Event{Kind: EventExited, ID: c.id, Pid: c.init.pid, Status: c.init.status}, nil)
				}
				return
			}
		}
	}
}

// hub hands events to every subscriber. Nobody who publishes is held up by one who listens.
type hub struct {
	mu          sync.Mutex
	subscribers map[*subscriber]bool
}

type subscriber struct {
	queue []Event
	wake  chan struct{}
}

func (h *hub) subscribe() *subscriber {
	s := &subscriber{wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subscribers == nil {
		h.subscribers = make(map[*subscriber]bool)
	}
	h.subscribers[s] = true
	return s
}

func (h *hub) unsubscribe(s *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subscribers, s)
}

func (h *hub) publish(event Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subscribers {
		s.queue = append(s.queue, event)
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

func (h *hub) take(s *subscriber) []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	queue := s.queue
	s.queue = nil
	return queue
}
