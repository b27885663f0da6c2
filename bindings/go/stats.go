package locule

// Stats is what a container uses, as its cgroup counts it. What the machine does not count is
// zero, empty or nil. The JSON is the data of `runc events --stats`.
type Stats struct {
	CPU     CPUStats             `json:"cpu"`
	Memory  MemoryStats          `json:"memory"`
	Pids    PidsStats            `json:"pids"`
	BlockIO BlockIOStats         `json:"blkio"`
	HugeTLB map[string]HugePages `json:"hugetlb"` // by page size, such as "2MB"
}

// CPUStats is processor time.
type CPUStats struct {
	Usage      CPUUsage   `json:"usage"`
	Throttling Throttling `json:"throttling"`
	Pressure   *Pressure  `json:"psi,omitempty"` // cgroup version 2 only
}

// CPUUsage is processor time used, in nanoseconds.
type CPUUsage struct {
	Total  uint64   `json:"total"`
	PerCPU []uint64 `json:"percpu,omitempty"` // cgroup version 1 only
	Kernel uint64   `json:"kernel"`
	User   uint64   `json:"user"`
}

// Throttling is what the processor quota did.
type Throttling struct {
	Periods          uint64 `json:"periods"`
	ThrottledPeriods uint64 `json:"throttledPeriods"` // in which the quota ran out
	ThrottledTime    uint64 `json:"throttledTime"`    // in nanoseconds
}

// MemoryStats is memory, in bytes.
type MemoryStats struct {
	Cache     uint64            `json:"cache"` // file pages
	Usage     MemoryUsage       `json:"usage"` // without swap
	Swap      MemoryUsage       `json:"swap"`  // with memory in cgroup version 1
	Kernel    MemoryUsage       `json:"kernel"`
	KernelTCP MemoryUsage       `json:"kernelTCP"`
	Raw       map[string]uint64 `json:"raw"`      // memory.stat
	OOMKills  uint64            `json:"oomKills"` // processes killed for want of memory
	Pressure  *Pressure         `json:"psi,omitempty"`
}

// MemoryUsage is one kind of memory, in bytes.
type MemoryUsage struct {
	Limit     uint64 `json:"limit"` // a huge number for none
	Usage     uint64 `json:"usage"`
	Max       uint64 `json:"max"`     // the most ever used
	FailCount uint64 `json:"failcnt"` // how often the limit was hit
}

// PidsStats is the number of processes and threads.
type PidsStats struct {
	Current uint64 `json:"current"`
	Limit   uint64 `json:"limit"` // 0 for none
}

// BlockIOStats is the traffic of block devices.
type BlockIOStats struct {
	ServiceBytes []BlockIOEntry `json:"ioServiceBytesRecursive"`
	Serviced     []BlockIOEntry `json:"ioServicedRecursive"` // requests
	Pressure     *Pressure      `json:"psi,omitempty"`
}

// BlockIOEntry is one count of one device.
type BlockIOEntry struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	Op    string `json:"op"` // "Read", "Write" and so on
	Value uint64 `json:"value"`
}

// HugePages is huge pages of one size, in bytes.
type HugePages struct {
	Usage     uint64 `json:"usage"`
	Max       uint64 `json:"max"`
	FailCount uint64 `json:"failcnt"`
}

// Pressure is pressure stall information.
type Pressure struct {
	Some PressureLevel `json:"some"` // some task waited
	Full PressureLevel `json:"full"` // all tasks waited
}

// PressureLevel is a share of time, in percent, over the last seconds, and the total in
// microseconds.
type PressureLevel struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}
