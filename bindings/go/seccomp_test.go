package locule

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// listen takes the listener that comes over a socket, closes it, so that the kernel has no such
// call any more, and says what came with it.
func listen(t *testing.T) (*os.File, <-chan specs.ContainerProcessState) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	check(t, err)
	theirs := os.NewFile(uintptr(pair[1]), "listener")
	t.Cleanup(func() { theirs.Close() })
	states := make(chan specs.ContainerProcessState, 1)
	go func() {
		defer close(states)
		defer syscall.Close(pair[0])
		text, control := make([]byte, 65536), make([]byte, 64)
		n, controls, _, _, err := syscall.Recvmsg(pair[0], text, control, syscall.MSG_CMSG_CLOEXEC)
		if err != nil {
			t.Error(err)
			return
		}
		messages, err := syscall.ParseSocketControlMessage(control[:controls])
		if err != nil || len(messages) != 1 {
			t.Error(messages, err)
			return
		}
		fds, err := syscall.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			t.Error(fds, err)
		}
		for _, fd := range fds {
			syscall.Close(fd)
		}
		var state specs.ContainerProcessState
		if err := json.Unmarshal(text[:n], &state); err != nil {
			t.Error(err)
		}
		states <- state
	}()
	return theirs, states
}

func TestTheListenerOfASeccompFilterComesToTheCaller(t *testing.T) {
	rt := openRuntime(t)
	s := spec(t, "sh", "-c", "mkdir /tmp/x; sleep 1000")
	s.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}},
	}
	socket, states := listen(t)
	c := start(t, rt, s, WithSeccompListener(socket))
	if state := <-states; state.Pid != c.Pid() || state.State.Status != specs.StateCreating {
		t.Error(state)
	}

	socket, states = listen(t)
	var out bytes.Buffer
	cmd := c.Command("sh", "-c", "mkdir /tmp/y")
	cmd.Stderr, cmd.SeccompListener = &out, socket
	check(t, cmd.Start(testContext(t)))
	if state := <-states; state.State.Status != specs.StateRunning || state.State.Pid != c.Pid() {
		t.Error(state)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "Function not implemented") {
		t.Error(err, out.String())
	}
}
