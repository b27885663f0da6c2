package locule

// What this process must not notice: the first promise of the design.

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
)

func TestTheHostIsUntouched(t *testing.T) {
	rt := openRuntime(t)
	c := sleeper(t, rt)
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGCHLD)
	defer signal.Stop(signals)
	before := hostFacts(t)
	for range 5 {
		check(t, command(t, rt, "true").Run(testContext(t)))
		check(t, c.Command("true").Run(testContext(t)))
	}
	if after := hostFacts(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if len(signals) > 0 {
		t.Errorf("%d SIGCHLD", len(signals))
	}
	var info syscall.WaitStatus
	if pid, err := syscall.Wait4(-1, &info, syscall.WNOHANG, nil); !errors.Is(err, syscall.ECHILD) {
		t.Error("a child:", pid, err)
	}
}

func hostFacts(t *testing.T) string {
	t.Helper()
	var facts strings.Builder
	for line := range strings.Lines(string(must[[]byte](t)(os.ReadFile("/proc/self/status")))) {
		name, _, _ := strings.Cut(line, ":")
		switch name {
		case "Umask", "Uid", "Gid", "Groups", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd",
			"CapAmb", "NoNewPrivs", "Seccomp", "Cpus_allowed":
			facts.WriteString(line)
		}
	}
	for _, file := range []string{"cgroup", "oom_score_adj", "limits", "environ", "sessionid", "mountinfo"} {
		text, err := os.ReadFile("/proc/self/" + file)
		if err != nil {
			continue // not on every kernel
		}
		// Overlays and cgroup mounts of the containers must not be seen here.
		fmt.Fprintf(&facts, "%s: %s\n", file, text)
	}
	for _, link := range []string{"cwd", "root", "exe", "ns/mnt", "ns/pid", "ns/net", "ns/user", "ns/uts", "ns/ipc", "ns/cgroup", "ns/pid_for_children"} {
		target, err := os.Readlink("/proc/self/" + link)
		fmt.Fprintln(&facts, link, target, err)
	}
	fmt.Fprintln(&facts, os.Environ())
	return facts.String()
}
