package locule

// Watching containers for what the kernel tells of their cgroups.

import (
	"context"
	"sync"
	"time"

	"github.com/locule/locule/bindings/go/internal/liblocule"
)

// Resource is something that processes may have to wait for.
type Resource uint32

// The resources whose pressure the kernel counts.
const (
	ResourceCPU    Resource = liblocule.ResourceCPU
	ResourceMemory Resource = liblocule.ResourceMemory
	ResourceIO     Resource = liblocule.ResourceIO
)

// PressureTrigger is how long processes may wait, as the kernel counts it (its documentation,
// "Pressure Stall Information").
type PressureTrigger struct {
	Resource Resource
	// Stall is how long is too long: the time of waiting within a window, added up.
	Stall time.Duration
	// Window is half a second to ten; for an ordinary user a multiple of two. There is one event
	// in a window at most.
	Window time.Duration
	// Full counts the time in which all processes that could run had to wait at once, instead of
	// that in which at least one had to.
	Full bool
}

// WatchOOM has [Container.Events] of this handle tell, from now on, when the container runs out of
// memory.
func (c *Container) WatchOOM(ctx context.Context) error {
	return c.watch(ctx, &liblocule.Watch{Kind: liblocule.WatchOOM})
}

// WatchPressure has [Container.Events] of this handle tell, from now on, when processes have to
// wait too long. It needs cgroup v2 alone.
func (c *Container) WatchPressure(ctx context.Context, p PressureTrigger) error {
	w := &liblocule.Watch{
		Kind:     liblocule.WatchPressure,
		Resource: uint32(p.Resource),
		StallUS:  uint64(max(p.Stall, 0) / time.Microsecond),
		WindowUS: uint64(max(p.Window, 0) / time.Microsecond),
	}
	if p.Full {
		w.Flags = liblocule.WatchFull
	}
	return c.watch(ctx, w)
}

func (c *Container) watch(ctx context.Context, w *liblocule.Watch) error {
	if err := done(ctx, "watch", c.id); err != nil {
		return err
	}
	// First, so that somebody listens when the first event comes.
	if err := c.runtime.listeners.add(c); err != nil {
		return wrap(ctx, "watch", c.id, err)
	}
	return wrap(ctx, "watch", c.id, c.lib.Watch(w))
}

// listeners are the watched containers of a runtime. Its descriptor is in the set of [watcher]
// while there are any.
type listeners struct {
	lib     *liblocule.Runtime
	plugged bool

	mu         sync.Mutex
	fd         int
	containers map[*Container]bool
}

// add has events of c be published until it is removed.
func (l *listeners) add(c *Container) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.containers) == 0 {
		fd, err := l.lib.FD()
		if err == nil {
			err = watcher.addFD(fd, l)
		}
		if err != nil {
			return err
		}
		l.fd = fd
		l.containers = make(map[*Container]bool)
	}
	l.containers[c] = true
	return nil
}

func (l *listeners) remove(c *Container) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.containers[c] {
		return
	}
	delete(l.containers, c)
	if len(l.containers) == 0 {
		watcher.removeFD(l.fd, l)
	}
}

// look publishes what the runtime has to tell.
func (l *listeners) look() bool {
	events, err := l.lib.Collect()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, event := range events {
		for c := range l.containers {
			if c.id == event.ID {
				c.events.publish(Event{
					Kind:     EventKind(event.Kind),
					ID:       event.ID,
					Kills:    event.Kills,
					Resource: Resource(event.Resource),
				})
			}
		}
	}
	if err != nil {
		// A closed runtime has nothing more to tell.
		l.containers = nil
	}
	return err != nil
}

func (l *listeners) finish(ExitStatus, error) {}

func (l *listeners) callsPlugins() bool { return l.plugged }

func (l *listeners) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.containers) == 0 {
		return
	}
	if err := watcher.addFD(l.fd, l); err != nil {
		l.containers = nil
	}
}
