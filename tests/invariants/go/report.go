package main

// One line for each item.

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

const reportFD = 40

var failures int

func report(fine bool, item, format string, a ...any) {
	word := "ok    "
	if !fine {
		word = "FAILED"
		failures++
	}
	detail := fmt.Sprintf(format, a...)
	if detail != "" {
		detail = ": " + detail
	}
	line := fmt.Sprintf("%s   go %s: %s%s\n", word, variant, item, detail)
	_, _ = syscall.Write(reportFD, []byte(line))
}

// must ends the host when something fails that has nothing to do with the library.
func must(err error) {
	if err != nil {
		report(false, "the host itself", "%v", err)
		os.Exit(1)
	}
}

// complaint is what went wrong, told by any goroutine; the first is reported at the end.
type complaint struct {
	mu    sync.Mutex
	count int
	first string
}

var works, passing, attributes, children complaint

func (c *complaint) add(format string, a ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == 0 {
		c.first = fmt.Sprintf(format, a...)
	}
	c.count++
}

func (c *complaint) report(item, format string, a ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count > 0 {
		report(false, item, "%d times, first: %s", c.count, c.first)
		return
	}
	report(true, item, format, a...)
}
