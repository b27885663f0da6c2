package locule

// Events: what happens to a container's processes.

import (
	"context"
	"iter"
	"sync"
)

// EventKind is what happened.
type EventKind uint32

// EventExited says that a process has ended. Later versions may add kinds.
const EventExited EventKind = 1

// Event is something that happened to a process of a container.
type Event struct {
	Kind   EventKind
	ID     string // the container's
	Pid    int    // of the process, as this process sees it
	Status ExitStatus
}

// Events yields what happens from now on to the first process and to those that are started
// with [Container.Command] of this handle. The end of the first process is the last event. If
// ctx ends, or the handle is closed, the last pair has the error.
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
					yield(Event{EventExited, c.id, c.init.pid, c.init.status}, nil)
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
